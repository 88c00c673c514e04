"""Random predictions of a known quality, for the tests of scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from genre.arrays import Float64, Ints
from genre.evaluation import bootstrap

CLASSES = 6


def predictions(
    rng: np.random.Generator, tracks: int = 200, skill: float = 0.6, truth: Ints | None = None
) -> tuple[Ints, Ints]:
    """Return random truth, and predictions that copy it with probability `skill` and guess otherwise."""
    truth = rng.integers(0, CLASSES, tracks) if truth is None else truth
    guess = rng.integers(0, CLASSES, len(truth))
    return truth, np.where(rng.random(len(truth)) < skill, truth, guess)


def drawn_scores(truth: Ints, predicted: npt.ArrayLike, n_classes: int = CLASSES, **options: Any) -> dict[str, Float64]:
    """Return the bootstrap replicates of one model's scores."""
    return bootstrap.bootstrap_scores(truth, {"model": predicted}, n_classes, **options)["model"]
