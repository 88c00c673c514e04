"""The calibrated probability from which the best genre is reported, for each genre.

A threshold has to hold on new music: with probability `CONFIDENCE`, at least `precision` of the reported genres
are correct. The lowest threshold that reached this precision on the held-out tracks fails on about half of all corpora,
because it was selected among many on these same tracks. So thresholds are tested from high to low, each by an exact
binomial test, and the last one before the first failure is used (Angelopoulos, Bates, Candès, Jordan, Lei, "Learn then
test", arXiv 2110.01052: tests in a fixed sequence need no correction for their number). Where the sequence starts
depends on the probabilities and never on which predictions were correct.

A genre that was predicted for at least `ENOUGH` held-out tracks has a threshold of its own. The others share one, which
is fitted on the predictions of these genres only: fitted on all tracks, an easy frequent genre would prove a precision
that the rare ones do not have. So the promise holds for each frequent genre and for the rare ones together.
"""

from __future__ import annotations

import numpy as np

from genre.arrays import Bools, Float32, Ints

CONFIDENCE = 0.9
ENOUGH = 40  # predictions of a genre: with fewer, the test for a precision of 0.8 hardly ever passes

_GRID = np.arange(19, -1, -1) / 20  # 0.95, 0.9, ... 0
NEVER = float(np.nextafter(np.float32(1), np.float32(2)))  # a threshold above every probability


def fit(probabilities: Float32, labels: Ints, precision: float) -> tuple[float, ...]:
    """Return the threshold of each genre, from calibrated `probabilities` (tracks, classes) and `labels` (tracks,).

    It is `NEVER`, above 1, for a genre for which every threshold fails the test.
    """
    best = probabilities.argmax(axis=1)
    confidence, correct = probabilities.max(axis=1), best == labels
    is_frequent = np.bincount(best, minlength=probabilities.shape[1]) >= ENOUGH
    rare = ~is_frequent[best]
    shared = _threshold(confidence[rare], correct[rare], precision)
    return tuple(
        _threshold(confidence[best == genre], correct[best == genre], precision) if is_frequent[genre] else shared
        for genre in range(probabilities.shape[1])
    )


def provable(probabilities: Float32, labels: Ints, precision: float) -> float:
    """Return the highest precision below `precision`, in steps of 0.05, that the tracks prove for any genre; 0 if none.

    For a model that reports no genre at the precision that was asked for. Since it is chosen by the same tracks, it is
    known with less confidence than a precision that was set before. Arguments as in `fit`.
    """
    lower = (float(each) for each in _GRID[:-1] if each < precision)
    return next((each for each in lower if min(fit(probabilities, labels, each)) <= 1), 0.0)


def describe(limits: tuple[float, ...]) -> str:
    """Return "0.60", or "0.55 to 0.80, depending on the genre," or "" where no genre is ever reported."""
    usable = [limit for limit in limits if limit <= 1]
    if not usable:
        return ""
    low, high = min(usable), max(usable)
    return f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}, depending on the genre,"


def _threshold(confidence: Float32, correct: Bools, precision: float) -> float:
    """Return the lowest threshold that passes the test after all higher ones did; `NEVER` if none does."""
    threshold = NEVER
    least = _first_test(len(confidence), precision)
    for candidate in _GRID:
        reported = confidence >= candidate
        count = int(reported.sum())
        if count < least:
            continue
        if binomial_tail(count, int(correct[reported].sum()), precision) > 1 - CONFIDENCE:
            break
        threshold = float(candidate)
    return threshold


def _first_test(tracks: int, precision: float) -> int:
    """Return the number of tracks that the highest tested threshold must report, of all `tracks`.

    It is the least that passes with one error: 18 for a precision of 0.8. A test that a single error fails would
    often end the sequence at its start. With too few tracks for that, it is the least that passes without errors.
    """
    numbers = np.arange(1, tracks + 1)
    all_correct = precision**numbers
    one_error = all_correct + numbers * precision ** (numbers - 1) * (1 - precision)
    passing = one_error <= 1 - CONFIDENCE
    if not passing.any():
        passing = all_correct <= 1 - CONFIDENCE
    return int(numbers[passing].min(initial=tracks + 1))


def binomial_tail(trials: int, successes: int, probability: float) -> float:
    """Return the probability of at least `successes` in `trials`, each with `probability` in (0, 1)."""
    counts = np.arange(1, trials + 1)
    ratios = np.log((trials - counts + 1) / counts * probability / (1 - probability))
    logarithms = trials * np.log1p(-probability) + np.concatenate([[0.0], np.cumsum(ratios)])
    return float(np.exp(logarithms[successes:]).sum())
