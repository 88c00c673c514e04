"""Running jobs as a person does, on a corpus small enough for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml
from conftest import REPOSITORY

SETTINGS = {
    "corpus": {
        "kind": "synthetic",
        "params": {"tracks_per_genre": 6, "artists_per_genre": 3, "seconds": 2.0, "damaged": 8},
    },
    "audio": {"clip_seconds": 2.0},
    "spectrogram": {"n_mels": 32, "n_fft": 1024, "hop_length": 512},
    # so many windows that every epoch is validated
    "train": {"epochs": 2, "window_seconds": 1.0, "windows_per_clip": 3, "eval_windows": 2, "batch_size": 16},
    "models": {
        "cnn": {"width": 4, "depth": 3},
        "crnn": {"width": 4, "depth": 3, "hidden": 8},
        "crnn_attention": {"width": 4, "depth": 3, "hidden": 8, "attention": 4},
        "resnet": {"width": 4},
        "vgg16": {"width": 4},
        "vgg19": {"width": 4},
    },
    "tune": {"trials": 1, "seeds": 1, "grace_epochs": 1},
    "cluster": {"cpus": 2, "object_store_mb": 200},
}


ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}


def command(name: str, home: Path, *settings: str) -> list[str]:
    """The command line of a job with the settings in `home`."""
    return [sys.executable, "-m", f"ray_jobs.{name}", "--config", str(home / "run.yaml"), *settings]


def job(name: str, home: Path, *settings: str, succeeds: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a job to its end."""
    done = subprocess.run(
        command(name, home, *settings), capture_output=True, text=True, cwd=REPOSITORY, env=ENVIRONMENT, check=False
    )
    assert (done.returncode == 0) is succeeds, done.stdout + done.stderr
    return done


def make_home(home: Path) -> Path:
    """A run folder with its configuration and prepared features."""
    corpus = SETTINGS["corpus"] | {"root": str(home / "music")}
    (home / "run.yaml").write_text(yaml.safe_dump(SETTINGS | {"output": str(home / "out"), "corpus": corpus}))
    job("prepare", home)
    return home
