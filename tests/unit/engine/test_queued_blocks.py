"""How many blocks `prepare` queues, without Ray."""

from __future__ import annotations

import contextlib
from typing import Any

import pyarrow as pa
import pytest
import ray

from genre.settings import ClusterSettings
from ray_jobs.engine import blocks, cluster, reach


@pytest.mark.parametrize(("share", "max_cpus", "expected"), [(1.0, 4, 4), (0.5, 4, 8), (1.0, 0, 1000), (0.5, 0, 2000)])
def test_blocks_are_queued_for_all_cpus(
    share: float, max_cpus: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block of remote files takes half a CPU."""
    queued: list[int] = []

    def completed(start: Any, *, blocks: int, most: int, needed: Any) -> list[pa.Table]:
        queued.append(most)
        return []

    monkeypatch.setattr(blocks, "cpus_of_a_block", lambda tracks: share)
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(cluster, "connected", lambda settings, output: contextlib.nullcontext())
    monkeypatch.setattr(reach, "check_seen", lambda tracks, setting: None)
    monkeypatch.setattr(blocks, "completed", completed)
    with blocks.Workers(ClusterSettings(max_cpus=max_cpus), "outputs/run") as workers:
        assert not list(workers.map(lambda tracks: tracks, pa.table({"path": ["1.wav"]}), limit=1))
    assert queued == [expected]
