"""The ensemble of all networks: the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from genre.arrays import Float32


def mean_by_seed(runs: Mapping[str, Sequence[tuple[int, Float32]]]) -> list[tuple[int, Float32]]:
    """Return the mean probabilities of all networks for each seed, as (seed, probabilities).

    `runs` holds (seed, probabilities) of the runs of each network. A seed that some network lacks is left out; networks
    without a common seed are paired in the order of their runs.
    """
    shared = set.intersection(*({seed for seed, _ in each} for each in runs.values()))
    paired = zip(*([run for run in each if run[0] in shared or not shared] for each in runs.values()), strict=False)
    return [
        (pair[0][0], np.mean([probabilities for _, probabilities in pair], axis=0).astype(np.float32))
        for pair in paired
    ]
