"""Scores of predictions.

Conventions:

- Scores are per track: the probabilities of its windows and clips were averaged before.
- `truth` and `predicted` are class indices of shape (tracks,). Where `predicted` may hold several runs (seeds) of one
  model it is (seeds, tracks), and a score is the mean over the runs.
- The predicted class is the argmax of the probabilities; a tie goes to the lower class index.
- Confusion counts are (classes, classes), rows truth, columns predicted. They add up over parts.
- Accuracy is the share of correct tracks. The precision of a class that is never predicted is 0. The F1 of a class is
  2 hits / (support + predictions), which is 0 where precision and recall are 0.
- Macro scores are unweighted means over the classes that have support in the truth at hand (in a bootstrap draw: in
  that draw). Macro F1 is the mean of the F1 of each class, not the harmonic mean of macro precision and macro recall;
  the two differ (Opitz and Burst, "Macro F1 and Macro F1", arXiv 1911.03347).
- Every score of zero tracks is 0.

Intervals and tests are in `bootstrap.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from genre.arrays import Float64, Ints

Counts = npt.NDArray[Any]

SCORES = ("accuracy", "precision", "recall", "f1")


@dataclass(frozen=True, eq=False)
class PerClass:
    """One value per class, each of shape (classes,)."""

    precision: Float64
    recall: Float64
    f1: Float64
    support: Ints


@dataclass(frozen=True, eq=False)
class Scores:
    """Accuracy, macro precision, macro recall and macro F1 in 0..1, and the scores of each class."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    per_class: PerClass


def confusion_counts(truth: npt.ArrayLike, predicted: npt.ArrayLike, n_classes: int) -> Ints:
    """Return the number of tracks of each true class (row) and predicted class (column), (n_classes, n_classes).

    Raises `ValueError` for labels outside 0..n_classes-1 or lengths that differ.
    """
    true, answer = labels(truth, n_classes), labels(predicted, n_classes)
    if true.shape != answer.shape or true.ndim != 1:
        raise ValueError(f"truth has shape {true.shape} and predicted {answer.shape}; both must be (tracks,)")
    flat = np.bincount(true * n_classes + answer, minlength=n_classes * n_classes)
    return flat.reshape(n_classes, n_classes).astype(np.int64)


def scores(counts: npt.ArrayLike) -> Scores:
    """Return the scores of confusion counts (classes, classes), rows truth. Raises `ValueError` for another shape."""
    table = np.asarray(counts, dtype=np.int64)
    if table.ndim != 2 or table.shape[0] != table.shape[1]:
        raise ValueError(f"counts have shape {table.shape}; must be (classes, classes)")
    hits, support, predictions = np.diagonal(table), table.sum(axis=1), table.sum(axis=0)
    macro = macro_scores(hits, support, predictions)
    return Scores(
        **{name: float(macro[name]) for name in SCORES},
        per_class=PerClass(**_per_class(hits, support, predictions), support=support),
    )


def mean_scores(truth: npt.ArrayLike, predicted: npt.ArrayLike, n_classes: int) -> dict[str, float]:
    """Return each of `SCORES`, averaged over the runs of `predicted`, (tracks,) or (seeds, tracks)."""
    runs = [scores(confusion_counts(truth, run, n_classes)) for run in np.atleast_2d(np.asarray(predicted))]
    return {name: float(np.mean([getattr(run, name) for run in runs])) for name in SCORES}


def macro_scores(hits: Counts, support: Counts, predictions: Counts) -> dict[str, Float64]:
    """Return each of `SCORES`, of shape (...), from counts per class of shape (..., classes)."""
    present = support > 0
    macro = {
        name: _ratio((value * present).sum(axis=-1), present.sum(axis=-1))
        for name, value in _per_class(hits, support, predictions).items()
    }
    return macro | {"accuracy": _ratio(hits.sum(axis=-1), support.sum(axis=-1))}


def expected_calibration_error(truth: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = 15) -> float:
    """Return the mean gap between confidence and accuracy in 0..1, over `bins` bins of equal width.

    The confidence of a track is the largest of its `probabilities`, (tracks, classes). Bins are open on the left,
    closed on the right and weighted by their tracks (Guo et al., "On Calibration of Modern Neural Networks", 2017).
    """
    table = np.asarray(probabilities, dtype=np.float64)
    true = labels(truth, table.shape[1])
    if not true.size:
        return 0.0
    confidence, correct = table.max(axis=1), decisions(table) == true
    bin_of = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(true))


def decisions(probabilities: npt.ArrayLike) -> Ints:
    """Return the class of the largest probability along the last axis; a tie goes to the lower index."""
    largest: Ints = np.argmax(np.asarray(probabilities), axis=-1).astype(np.int64)
    return largest


def labels(values: npt.ArrayLike, n_classes: int) -> Ints:
    """Return `values` as class indices. Raises `ValueError` when they are not whole numbers in 0..n_classes-1."""
    array = np.asarray(values)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"labels have type {array.dtype}; must be integer class indices")
    if array.size and (array.min() < 0 or array.max() >= n_classes):
        raise ValueError(f"labels range from {array.min()} to {array.max()}; must be in 0..{n_classes - 1}")
    return array.astype(np.int64)


def _per_class(hits: Counts, support: Counts, predictions: Counts) -> dict[str, Float64]:
    """Return the scores of each class from its counts, all (..., classes)."""
    return {
        "precision": _ratio(hits, predictions),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, support + predictions),
    }


def _ratio(numerator: Counts, denominator: Counts) -> Float64:
    """Divide elementwise; the result is 0 where the denominator is 0."""
    out = np.zeros(np.shape(denominator), dtype=np.float64)
    np.divide(numerator, denominator, out=out, where=np.asarray(denominator) > 0)
    return out
