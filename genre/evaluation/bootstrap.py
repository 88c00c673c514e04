"""Uncertainty of scores by the bootstrap: intervals, and tests whether two rows of a leaderboard differ.

- Intervals are bias-corrected percentile intervals of a non-parametric bootstrap over tracks (Efron, "Better
  Bootstrap Confidence Intervals", JASA 82, 1987; Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
  chapters 13 and 14). Macro F1 of resampled small classes is biased downwards: in a simulation with ten classes of 3
  tracks the corrected interval covered the truth in 90 % of cases, the plain one in 84 %; of 29 tracks in 93 and 91 %.
- Where groups (artists) are known, groups are drawn instead of tracks: tracks of one artist are not independent.
- Intervals describe the choice of test tracks for the given runs, not the choice of seeds.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from genre.arrays import Float32, Float64, Ints
from genre.evaluation.metrics import SCORES, labels, macro_scores

Groups = Sequence[Any] | npt.NDArray[Any]
Key = TypeVar("Key", bound=Hashable)

_ROUNDING = 1e-12  # scores closer than this are equal
_BLOCK = 4_000_000  # resampled tracks in memory at a time


def bootstrap_scores(
    truth: npt.ArrayLike,
    predicted: Mapping[Key, npt.ArrayLike],
    n_classes: int,
    groups: Groups | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> dict[Key, dict[str, Float64]]:
    """Return accuracy, precision, recall and f1 of each model on `draws` resampled test sets, each of shape (draws,).

    `predicted` holds (tracks,) or (seeds, tracks) of each model. All of them are scored on the same resampled tracks,
    so that results are paired; the same `groups`, `draws` and `seed` resample the same tracks. Memory holds
    a few of the test sets at a time. Raises `ValueError` for labels, shapes or groups that do not fit.
    """
    true = labels(truth, n_classes)
    models = {name: np.atleast_2d(labels(each, n_classes)) for name, each in predicted.items()}
    for runs in models.values():
        if true.ndim != 1 or runs.shape[1:] != true.shape:
            raise ValueError(
                f"truth has shape {true.shape} and predicted {runs.shape}; must be (tracks,) and (seeds, tracks)"
            )
    if not true.size:
        return {model: {name: np.zeros(draws) for name in SCORES} for model in models}
    is_true = _indicator(true, n_classes)
    # rows: the tracks that are rightly predicted as each class, then those that are wrongly predicted as it
    outcomes = {
        model: [_indicator(run + n_classes * (run != true), 2 * n_classes) for run in runs]
        for model, runs in models.items()
    }
    drawn: dict[Key, dict[str, list[Float64]]] = {model: {name: [] for name in SCORES} for model in models}
    for weights in _resamples(len(true), groups, draws, seed):
        support = (is_true @ weights).T
        for model, runs_of_model in outcomes.items():
            by_run = [_scores_of_run(each @ weights, support) for each in runs_of_model]
            for name in SCORES:
                drawn[model][name].append(np.mean([scores[name] for scores in by_run], axis=0))
    return {model: {name: np.concatenate(blocks) for name, blocks in scores.items()} for model, scores in drawn.items()}


def _indicator(classes: Ints, n_classes: int) -> csr_array:
    """Return (n_classes, tracks), 1 in the row of each track's class. Sparse: a track costs one addition."""
    ones, tracks = np.ones(len(classes), np.float32), np.arange(len(classes), dtype=np.int32)
    return csr_array((ones, (classes, tracks)), shape=(n_classes, len(classes)))


def _scores_of_run(counts: Float32, support: Float32) -> dict[str, Float64]:
    """Return the scores of one run on each resampled test set: (draws,).

    `counts` is (2 * classes, draws), the tracks predicted rightly and wrongly as each class; `support` is
    (draws, classes).
    """
    right, wrong = np.split(counts, 2)
    return macro_scores(right.T, support, (right + wrong).T)


def interval(drawn: Float64, observed: float, level: float = 0.95) -> tuple[float, float]:
    """Return the bias-corrected percentile interval of the score `observed` from its replicates `drawn`, (draws,).

    The percentiles are shifted by the distance of `observed` from the median replicate; ties count half.
    """
    normal, draws = NormalDist(), len(drawn)
    below = (drawn < observed - _ROUNDING).sum() + 0.5 * (np.abs(drawn - observed) <= _ROUNDING).sum()
    bias = normal.inv_cdf(min(max(float(below) / draws, 1 / (draws + 1)), draws / (draws + 1)))
    reach = normal.inv_cdf((1 + level) / 2)
    low, high = np.quantile(drawn, [normal.cdf(2 * bias - reach), normal.cdf(2 * bias + reach)])
    return float(low), float(high)


def p_value_of_no_difference(differences: Float64) -> float:
    """Return the two-sided p-value of zero among bootstrapped differences; it is never exactly 0.

    It inverts the percentile interval (Efron and Tibshirani 1993, section 15.4), with one added to both
    counts so that a finite number of draws cannot claim certainty (Davison and Hinkley 1997, section 4.2).
    """
    smaller_tail = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return min(1.0, 2 * (smaller_tail + 1) / (len(differences) + 1))


def max_t(replicates: npt.ArrayLike) -> Float64:
    """Return the p-value of no difference for each pair of models, corrected for all pairs: (models, models).

    `replicates` is (models, draws) of one score, paired. Each pair's difference is divided by its standard error, and
    compared with the largest such statistic of all pairs in replicates that are centred at no difference (Westfall and
    Young, "Resampling-Based Multiple Testing", 1993, step-down algorithm 2.8). Since all pairs are covered, the best
    model may be compared with others although the same tracks made it the best. The diagonal is 1.
    """
    drawn = np.atleast_2d(np.asarray(replicates, dtype=np.float64))
    models, draws = drawn.shape
    p_values = np.ones((models, models))
    first, second = np.triu_indices(models, 1)
    if not len(first):
        return p_values
    differences = drawn[first] - drawn[second]
    mean, error = differences.mean(axis=1), np.maximum(differences.std(axis=1), _ROUNDING)
    statistic = np.abs(mean) / error
    order = np.argsort(-statistic, kind="stable")
    null = np.abs(differences - mean[:, None])[order] / error[order, None]
    largest = np.maximum.accumulate(null[::-1])[::-1]  # statistic of a pair and of all pairs that differ less
    stepped = (1 + (largest >= statistic[order, None]).sum(axis=1)) / (draws + 1)
    p_values[first[order], second[order]] = np.maximum.accumulate(stepped)
    return np.minimum(p_values, p_values.T)


def _group_indices(groups: Groups) -> Ints:
    """Return the index of each track's group among the sorted groups, (tracks,)."""
    names = list(groups)  # not np.unique: an array of strings stores each one as wide as the longest
    indices = {name: index for index, name in enumerate(sorted(set(names)))}
    return np.array([indices[name] for name in names], dtype=np.int64)


def _resamples(tracks: int, groups: Groups | None, draws: int, seed: int) -> Iterator[Float32]:
    """Yield the number of times that each track is in each resampled test set, in blocks of shape (tracks, draws).

    Multinomial counts are equivalent to drawing with replacement, and turn scoring into sparse matrix products.
    """
    unit_of = np.arange(tracks) if groups is None else _group_indices(groups)
    if len(unit_of) != tracks:
        raise ValueError(f"{len(unit_of)} groups for {tracks} tracks; give one for each")
    units = int(unit_of.max()) + 1
    random = np.random.default_rng(seed)
    block = max(1, _BLOCK // tracks)
    for start in range(0, draws, block):
        counts = random.multinomial(units, np.full(units, 1 / units), size=min(block, draws - start))
        yield np.ascontiguousarray(counts.T, dtype=np.float32)[unit_of]
