"""Random predictions of a known quality, for the tests of scores."""

from __future__ import annotations

import numpy as np

from genre.evaluation.metrics import IntArray

CLASSES = 6


def predictions(
    rng: np.random.Generator, tracks: int = 200, skill: float = 0.6, truth: IntArray | None = None
) -> tuple[IntArray, IntArray]:
    """Return random truth, and predictions that copy it with probability `skill` and guess otherwise."""
    truth = rng.integers(0, CLASSES, tracks) if truth is None else truth
    guess = rng.integers(0, CLASSES, len(truth))
    return truth, np.where(rng.random(len(truth)) < skill, truth, guess)
