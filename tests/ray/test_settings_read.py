"""What each job declares to read, which its help shows, is what it reads: recorded in its driver and its workers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from running import ENVIRONMENT, SETTINGS

from genre import config
from genre.config import Config
from ray_jobs.engine import jobs

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SMALL = SETTINGS | {"tune": SETTINGS["tune"] | {"architectures": ["cnn"]}}
# each needs what those before it have written
RUNS = {
    "prepare": [],
    "train": [],
    "tune": [],
    "evaluate": [],
    "leaderboard": [],
    "explain": ["one.wav", "explain.steps=1"],
    "export": [],
    "tag": ["music"],
}
# `train` refuses it; the search sets it itself
INTERNAL = {"train": {"model.path"}, "tune": {"model.name"}}
# only for a truncated file; only where genres are written into files
SOMETIMES = {"explain": {"prepare.min_decoded_fraction"}, "tag": {"tag.replace_genres"}}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("settings")
    corpus = SMALL["corpus"] | {"root": str(home / "music")}
    output = str(home / "out")
    (home / "run.yaml").write_text(yaml.safe_dump(SMALL | {"output": output, "corpus": corpus}))
    return home


def settings_read(home: Path, job: str, arguments: list[str]) -> set[str]:
    """Run the job with the recorder of tests/recording in each of its processes."""
    record = home / f"{job}.keys"
    environment = ENVIRONMENT | {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "tests/recording"), str(REPOSITORY)]),
        "RECORD_SETTINGS": str(record),
    }
    command = [sys.executable, "-m", "ray_jobs.engine.command", job, "--config", "run.yaml", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=home, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(record.read_text().split())


def declared(job: str) -> set[str]:
    wanted = jobs.JOBS[job].settings + jobs.JOBS[job].also
    keys = [key for key, _, _ in config.describe(Config())]
    return {key for key in keys if any(key == name or key.startswith(f"{name}.") for name in wanted)}


@pytest.mark.parametrize("job", RUNS)
def test_a_job_reads_what_it_declares(job, home):
    if job == "explain":
        shutil.copy(next((home / "music").glob("*/*.wav")), home / "one.wav")
    read = settings_read(home, job, RUNS[job])
    assert read - INTERNAL.get(job, set()) <= declared(job), "read, but not in the help"
    assert declared(job) - SOMETIMES.get(job, set()) <= read, "in the help, but never read"
