"""`prepare` under SIGKILL at random times: a few rounds of benchmarks/prepare_kills.py."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import REPOSITORY

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_kills_lose_no_tracks_and_decode_none_twice() -> None:
    command = [sys.executable, "benchmarks/prepare_kills.py", "--rounds", "3", "--tracks", "200", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result == {"rounds": 3, "victims": {"driver": 1, "worker": 1, "decoder": 1}, "violations": 0}
