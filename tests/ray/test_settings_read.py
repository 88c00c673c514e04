"""Each job reads exactly the settings that it declares, which its help lists.

The reads are recorded in the driver and in all workers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from running import ENVIRONMENT, SETTINGS, write_config

from genre import config
from genre.settings import Config, DecodingSettings
from ray_jobs.engine import jobs

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SMALL = SETTINGS | {"tune": SETTINGS["tune"] | {"architectures": ["cnn"], "robustness": True}}
# Arguments of each job. The order matters: a job needs what earlier jobs wrote.
ARGUMENTS: dict[str, list[str]] = {
    "fetch": [],
    "prepare": [],
    "train": [],
    "pretrain": [],
    "tune": [],
    "evaluate": [],
    "leaderboard": [],
    "explain": ["one.wav", "explain.steps=1"],
    "export": [],
    "tag": ["music"],
    "embed": ["music", "output=embedded", "model=out/models/cnn"],
    "similar": ["one.wav", "output=embedded", "n=3"],
    "playlist": ["like=one.wav", "output=embedded"],
}
# `train` and `pretrain` read `model` to refuse it; the search sets `architecture` itself.
INTERNAL = {"train": {"model"}, "pretrain": {"model"}, "tune": {"architecture"}}
# They name the model in OUTPUT, unless there is a leaderboard.
_NETWORK = {"architecture", "architectures"}
# Read only for a song that is not in the table of embeddings.
_OF_A_NEW_SONG = {"min_precision", *(f"decoding.{name}" for name in DecodingSettings.model_fields)}
# Read only where a corpus is named, for a truncated file, when the copy of the clips is made, in cross-validation, and
# when genres are written into files.
SOMETIMES = {
    "fetch": {"corpus.root"},
    "tune": {"decoding.min_decoded_fraction", "cache.max_gb"},
    "evaluate": {"cache.folder", "cache.max_gb"},
    "explain": {"decoding.min_decoded_fraction", *_NETWORK},
    "export": _NETWORK,
    "tag": {"tag.replace_genres", "tag.field", *_NETWORK},
    "embed": _NETWORK,
    "similar": _OF_A_NEW_SONG,
    "playlist": _OF_A_NEW_SONG,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("settings")
    write_config(home, SMALL)
    return home


def settings_read(home: Path, job: str, arguments: list[str]) -> set[str]:
    """Run the job with tests/recording in each of its processes and return the settings that it read."""
    record = home / f"{job}.keys"
    environment = ENVIRONMENT | {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "tests/recording"), str(REPOSITORY)]),
        "RECORD_SETTINGS": str(record),
    }
    command = [sys.executable, "-m", "ray_jobs.engine.command", job, "--config", "run.yaml", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=home, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(record.read_text().split())


def settings_declared(job: str) -> set[str]:
    """Return the keys that the job declares, where a section stands for all its keys."""
    names = jobs.JOBS[job].settings + jobs.JOBS[job].other_settings
    keys = [key for key, _, _ in config.describe(Config())]
    return {key for key in keys if any(key == name or key.startswith(f"{name}.") for name in names)}


@pytest.mark.parametrize("job", ARGUMENTS)
def test_a_job_reads_what_it_declares(job: str, home: Path) -> None:
    if job in ("explain", "similar", "playlist"):
        shutil.copy(next((home / "music").glob("*/*.wav")), home / "one.wav")
    read = settings_read(home, job, ARGUMENTS[job])
    assert read - INTERNAL.get(job, set()) <= settings_declared(job), "read, but not in the help"
    assert settings_declared(job) - SOMETIMES.get(job, set()) <= read, "in the help, but never read"
