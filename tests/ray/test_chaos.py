"""Jobs that are killed or run out of disk give the results of undisturbed ones, or report the error.

`make chaos` kills more of them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY
from running import ENVIRONMENT, write_config

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SETTINGS: dict[str, dict[str, Any]] = {
    "corpus": {
        "kind": "synthetic",
        "params": {"tracks_per_genre": 6, "artists_per_genre": 3, "seconds": 4.0, "damaged": 2},
    },
    "audio": {"clip_seconds": 4.0},
    "cluster": {"cpus": 1, "object_store_mb": 100},
}


def test_random_kills_and_faults_do_not_change_the_results(tmp_path: Path) -> None:
    jobs = ["prepare", "tag"]  # test_train kills trainings
    command = [sys.executable, "benchmarks/chaos.py", str(tmp_path / "chaos"), "--rounds", "2", "--jobs", *jobs]
    done = subprocess.run([*command, "--kills", "2"], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rounds = [json.loads(line) for line in (tmp_path / "chaos/rounds.jsonl").read_text().splitlines()]
    assert [record["job"] for record in rounds] == jobs
    assert sum(len(record["kills"]) for record in rounds) > 0
    assert sum(sum(record["faults"].values()) for record in rounds) > 0


# Runs in a mount namespace of its own, so that the small disk vanishes with it.
FULL_DISK = """
set -u
mount -t tmpfs -o size=600k tmpfs "$1/out"
"$2" -m ray_jobs.prepare --config "$1/run.yaml"; echo "first: $?"
find "$1/out" -name '.*' -type f | sed 's/^/left behind: /'
mount -o remount,size=100m "$1/out"
"$2" -m ray_jobs.prepare --config "$1/run.yaml"; echo "second: $?"
cp -r "$1/out" "$1/kept"
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root, to mount a small disk")
def test_a_full_disk_is_reported_and_the_next_run_completes(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_config(tmp_path, SETTINGS)
    command = ["unshare", "--mount", "bash", "-c", FULL_DISK, "full", str(tmp_path), sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=ENVIRONMENT, check=False)
    output = done.stdout + done.stderr
    assert "first: 1" in done.stdout, output
    assert "No space left on device" in done.stderr, output
    assert "left behind" not in done.stdout, output
    assert "second: 0" in done.stdout, output
    assert len(pq.read_table(tmp_path / "kept/features/tracks.parquet")) == 60
    assert len(pq.read_table(tmp_path / "kept/features/rejects.parquet")) == 2
