"""Jobs that are disturbed make what undisturbed ones make, or say what is wrong. More of them: `make chaos`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from conftest import REPOSITORY

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SETTINGS = {
    "corpus": {
        "kind": "synthetic",
        "params": {"tracks_per_genre": 6, "artists_per_genre": 3, "seconds": 4.0, "damaged": 2},
    },
    "audio": {"clip_seconds": 4.0},
    "cluster": {"cpus": 1, "object_store_mb": 100},
}


@pytest.mark.parametrize("job", ["prepare", "train", "tune"])
def test_random_kills_change_nothing(job, tmp_path):
    jobs = ["prepare"] if job == "prepare" else ["prepare", job]
    command = [sys.executable, "benchmarks/chaos.py", str(tmp_path), "--kills", str(2 * len(jobs)), "--jobs", *jobs]
    done = subprocess.run(
        [*command, "--kills-per-run", "2"], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    # one line for each job of a round, of which there are as many as the kills take
    assert done.stdout.count("equal to the undisturbed run") % len(jobs) == 0
    assert done.stdout.count("starts; ") == done.stdout.count("equal to the undisturbed run") > 0


# In mounts of its own, so that a small disk can be full and nothing has to be cleaned up.
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
def test_a_full_disk_is_told_and_spoils_nothing(tmp_path):
    (tmp_path / "out").mkdir()
    corpus = SETTINGS["corpus"] | {"root": str(tmp_path / "music")}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(SETTINGS | {"output": str(tmp_path / "out"), "corpus": corpus}))
    command = ["unshare", "--mount", "bash", "-c", FULL_DISK, "full", str(tmp_path), sys.executable]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment, check=False)
    told = done.stdout + done.stderr
    assert "first: 1" in done.stdout, told
    assert "No space left on device" in done.stderr, told
    assert "left behind" not in done.stdout, told
    assert "second: 0" in done.stdout, told
    assert len(pq.read_table(Path(tmp_path / "kept/features/tracks.parquet"))) == 60
    assert len(pq.read_table(Path(tmp_path / "kept/features/rejects.parquet"))) == 2
