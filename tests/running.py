"""Run jobs from the command line, on a corpus small enough for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from conftest import REPOSITORY
from making import SMALL_MODELS

SETTINGS: dict[str, dict[str, Any]] = {
    "corpus": {
        "kind": "synthetic",
        "params": {"tracks_per_genre": 6, "artists_per_genre": 3, "seconds": 2.0, "damaged": 8},
    },
    "audio": {"clip_seconds": 2.0},
    "spectrogram": {"n_mels": 32, "n_fft": 1024, "hop_length": 512},
    # three windows a clip, so that every epoch is long enough to be validated
    "train": {"epochs": 2, "window_seconds": 1.0, "windows_per_clip": 3, "eval_windows": 2, "batch_size": 16},
    "architectures": SMALL_MODELS,
    "tune": {"trials": 1, "seeds": 1, "grace_epochs": 1, "robustness": False},
    "cluster": {"cpus": 2, "object_store_mb": 200},
}

# The environment without Ray's variables.
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}


def command(name: str, home: Path, *settings: str) -> list[str]:
    """Return the command line of a job that reads `home/run.yaml`."""
    return [sys.executable, "-m", f"ray_jobs.{name}", "--config", str(home / "run.yaml"), *settings]


def job(name: str, home: Path, *settings: str, succeeds: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a job and check that it succeeds, or that it fails where `succeeds` is False."""
    done = subprocess.run(
        command(name, home, *settings), capture_output=True, text=True, cwd=REPOSITORY, env=ENVIRONMENT, check=False
    )
    assert (done.returncode == 0) is succeeds, done.stdout + done.stderr
    return done


def write_config(home: Path, settings: dict[str, dict[str, Any]] = SETTINGS) -> None:
    """Write `home/run.yaml`: the settings, with the corpus in `home/music` and the output in `home/out`."""
    corpus = settings["corpus"] | {"root": str(home / "music")}
    (home / "run.yaml").write_text(yaml.safe_dump(settings | {"output": str(home / "out"), "corpus": corpus}))


def make_home(home: Path) -> Path:
    """Write a configuration to `home`, prepare its features and return `home`."""
    write_config(home)
    job("prepare", home)
    return home
