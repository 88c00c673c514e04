"""How the work on changed audio is divided among CPUs."""

from __future__ import annotations

import itertools

import pytest

from ray_jobs.scoring import robustness


@pytest.mark.parametrize(
    ("tracks", "cpus", "blocks"), [(0, 2, 0), (1, 2, 1), (20, 2, 2), (32, 2, 2), (33, 2, 4), (100, 2, 8), (100, 64, 64)]
)
def test_blocks_of_tracks_are_even_and_keep_all_cpus_busy(tracks: int, cpus: int, blocks: int) -> None:
    positions = list(range(tracks))
    divided = robustness.even_blocks(positions, cpus)
    assert list(itertools.chain(*divided)) == positions
    sizes = [len(block) for block in divided]
    assert len(sizes) == blocks
    assert max(sizes, default=0) <= 16
    assert max(sizes, default=0) - min(sizes, default=0) <= 1
