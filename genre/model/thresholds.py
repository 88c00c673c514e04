"""The calibrated probability from which the best genre is reported, for each genre.

A threshold must keep its promise on new music: with `CONFIDENCE`, at least `precision` of the reported genres are
right. The lowest threshold at which that share was right on the validation tracks breaks it in every second corpus,
because it is the best of many. So thresholds are tested from high to low, each by an exact binomial test, and the last
one before the first failure is taken (Angelopoulos, Bates, Candès, Jordan, Lei, "Learn then test", arXiv 2110.01052:
testing in a fixed sequence needs no correction for the number of tests). A genre with `ENOUGH` answers has a threshold
of its own; the others share that of all answers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from genre.features import Float32

CONFIDENCE = 0.9
ENOUGH = 40  # answers of a genre: with fewer, a precision of 0.8 is hardly ever proven

_GRID = np.arange(19, -1, -1) / 20  # 0.95, 0.9, ... 0
NEVER = float(np.nextafter(np.float32(1), np.float32(2)))  # a threshold above every probability


def fit(probabilities: Float32, labels: npt.NDArray[np.int64], precision: float) -> tuple[float, ...]:
    """Return the threshold of each genre, from calibrated `probabilities` (tracks, classes) and `labels` (tracks,).

    It is above 1 for a genre of which no threshold proves the precision.
    """
    best = probabilities.argmax(axis=1)
    level, right = probabilities.max(axis=1), best == labels
    shared = _threshold(level, right, precision)
    return tuple(
        _threshold(level[own], right[own], precision) if (own := best == genre).sum() >= ENOUGH else shared
        for genre in range(probabilities.shape[1])
    )


def describe(limits: tuple[float, ...]) -> str:
    """Return "0.60", or "0.55 to 0.80, depending on the genre," or "" where no genre is ever reported."""
    usable = [limit for limit in limits if limit <= 1]
    if not usable:
        return ""
    low, high = min(usable), max(usable)
    return f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}, depending on the genre,"


def _threshold(level: Float32, right: npt.NDArray[np.bool_], precision: float) -> float:
    threshold = NEVER
    for candidate in _GRID:
        reported = level >= candidate
        number = int(reported.sum())
        if precision**number > 1 - CONFIDENCE:
            continue  # too few: even without an error the test fails
        if binomial_tail(number, int(right[reported].sum()), precision) > 1 - CONFIDENCE:
            break
        threshold = float(candidate)
    return threshold


def binomial_tail(number: int, least: int, probability: float) -> float:
    """Return the probability of at least `least` successes among `number`, each with `probability` in (0, 1)."""
    successes = np.arange(1, number + 1)
    ratios = np.log((number - successes + 1) / successes * probability / (1 - probability))
    logarithms = number * np.log1p(-probability) + np.concatenate([[0.0], np.cumsum(ratios)])
    return float(np.exp(logarithms[least:]).sum())
