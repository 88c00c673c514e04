"""The CPUs of a worker of `train`."""

from __future__ import annotations

import math

import pytest

from ray_jobs.engine.training import cpus_of_a_worker


@pytest.mark.parametrize(
    ("cpus", "workers", "most", "share"),
    [
        ([8], 1, 8, 8),
        ([0, 4, 4], 2, math.inf, 4),
        ([0, 4, 4], 3, math.inf, 2),
        ([0, 4, 4], 2, 6, 3),
        ([0, 1], 2, math.inf, 1),  # a machine was lost after both had started
        ([0], 1, math.inf, 1),
    ],
)
def test_workers_have_the_most_cpus_that_fit(cpus: list[int], workers: int, most: float, share: int) -> None:
    assert cpus_of_a_worker(cpus, workers, most) == share
