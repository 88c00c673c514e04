"""Jobs that are ended by SIGTERM, as by `kill`, a container's end or `ray job stop`."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from running import ENVIRONMENT, SETTINGS, command

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_sigterm_ends_a_job_in_one_line(tmp_path: Path) -> None:
    corpus = {"kind": "synthetic", "params": {"tracks_per_genre": 200, "artists_per_genre": 10, "seconds": 2.0}}
    settings = SETTINGS | {"corpus": corpus, "output": str(tmp_path / "out"), "prepare": {"tracks_per_block": 1}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    environment = ENVIRONMENT | {"XDG_CACHE_HOME": str(tmp_path)}
    with subprocess.Popen(
        command("prepare", tmp_path), stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment
    ) as running:
        assert running.stderr is not None
        first = [running.stderr.readline() for _ in range(2)]
        while not list((tmp_path / "out/features").glob("outcomes/*")):
            assert running.poll() is None, first
        running.send_signal(signal.SIGTERM)
        rest = running.stderr.read().splitlines()
    assert running.returncode == 1
    assert rest[-1] == "interrupted; run the same command again to resume"
    assert all(line.startswith("prepare: ") for line in rest[:-1])
