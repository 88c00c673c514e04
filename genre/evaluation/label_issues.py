"""Labels to check, by confident learning (Northcutt, Jiang and Chuang, arXiv 1911.00068).

The probabilities must come from models that did not learn from these labels. A model is confident that a track has a
genre when the probability of that genre is at least its mean over the tracks with that label. The number of wrong
labels is estimated: it is the number of tracks whose most probable confident genre is not their label. Which labels are
wrong is decided by the probability of the label: among the tracks with another prediction, this many with the lowest
probability are listed (as in the paper's "prune by class", but for all genres together).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genre.arrays import Float64, Ints
from genre.evaluation.metrics import labels


@dataclass(frozen=True, eq=False)
class LabelIssues:
    """Labels that the models doubt, the least probable first; each array is (issues,).

    `tracks` holds indices of tracks, `suggested` the class that the models predict, `p_label` and `p_suggested` the
    probabilities of both.
    """

    tracks: Ints
    suggested: Ints
    p_label: Float64
    p_suggested: Float64


def find_label_issues(truth: npt.ArrayLike, probabilities: npt.ArrayLike) -> LabelIssues:
    """Return the issues among the labels `truth`, (tracks,), given `probabilities`, (tracks, classes).

    The lowest probability of the label comes first. A genre without tracks is never suggested. Raises `ValueError` when
    the lengths differ or a label is no class.
    """
    table = np.asarray(probabilities, dtype=np.float64)
    given = labels(truth, table.shape[1])
    if table.shape[:1] != given.shape:
        raise ValueError(f"truth has shape {given.shape} and probabilities {table.shape}; give a row for each track")
    support = np.bincount(given, minlength=table.shape[1])
    table = np.where(support > 0, table, -np.inf)
    p_label = table[np.arange(len(given)), given]
    answer = table.argmax(axis=1) if table.size else given
    other = np.flatnonzero(table[np.arange(len(given)), answer] > p_label)
    order = np.argsort(p_label[other], kind="stable")[: _count_wrong(given, table, support)]
    tracks = other[order]
    return LabelIssues(tracks, answer[tracks], p_label[tracks], table[tracks, answer[tracks]])


def _count_wrong(given: Ints, table: Float64, support: Ints) -> int:
    """Return the estimated number of wrong labels: the tracks whose most probable confident genre is another one."""
    p_label = table[np.arange(len(given)), given]
    mean = np.bincount(given, weights=p_label, minlength=table.shape[1]) / np.maximum(support, 1)
    confident = np.where(table >= mean, table, -np.inf)
    is_confident = np.isfinite(confident.max(axis=1, initial=-np.inf))
    return int((is_confident & (confident.argmax(axis=1) != given)).sum()) if table.size else 0
