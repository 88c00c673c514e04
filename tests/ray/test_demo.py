"""`genre demo` outside of the checkout: with the configuration of the package, here on less music."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from running import ENVIRONMENT

from genre.report import read_board
from genre.storage import Location

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SMALL = (
    "corpus.params={tracks_per_genre: 6, artists_per_genre: 3, seconds: 2, damaged: 2}",
    "corpus.root=music",
    "audio.clip_seconds=2",
    "train.window_seconds=1",
    "train.epochs=1",
    "tune.architectures=[cnn]",
    "tune.trials=1",
    "tune.seeds=1",
    "tune.robustness=false",
    "cluster.cpus=2",
    "cluster.object_store_mb=200",
)


def test_the_demo_prepares_and_searches_and_records_its_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ray_jobs.engine.command", "demo", *SMALL]
    environment = ENVIRONMENT | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    board = read_board(Location.of(tmp_path / "outputs/demo/leaderboard"))
    assert board.commands == [shlex.join(["genre", "demo", *SMALL])]
    assert (tmp_path / "outputs/demo/models/cnn/model.json").exists()
