"""Which runs of the networks an ensemble averages."""

from __future__ import annotations

import numpy as np

from genre.arrays import Float32
from genre.evaluation.ensemble import mean_by_seed


def test_networks_are_averaged_by_the_seeds_that_they_share() -> None:
    runs = {"cnn": [(0, full(0.0)), (1, full(0.2)), (2, full(0.4))], "vgg": [(2, full(0.8)), (1, full(0.6))]}
    means = mean_by_seed({name: sorted(each, key=lambda run: run[0]) for name, each in runs.items()})
    assert [seed for seed, _ in means] == [1, 2]
    np.testing.assert_allclose([mean[0, 0] for _, mean in means], [0.4, 0.6])


def test_networks_without_a_common_seed_are_paired_in_order() -> None:
    means = mean_by_seed({"cnn": [(0, full(0.0)), (1, full(0.2))], "vgg": [(5, full(0.4)), (6, full(0.6))]})
    assert [seed for seed, _ in means] == [0, 1]
    np.testing.assert_allclose([mean[0, 0] for _, mean in means], [0.2, 0.4])


def full(value: float) -> Float32:
    return np.full((3, 2), value, np.float32)
