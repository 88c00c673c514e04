"""Labels that are probably wrong, by confident learning (Northcutt, Jiang and Chuang, arXiv 1911.00068).

The probabilities must come from models that did not learn from these labels. A model is confident that a track has a
genre when the probability of that genre is at least its mean over the tracks with that label. How many labels are wrong
is estimated by the tracks of which the models are confident of other genres only, or more of another one. Which labels
these are is told better by the probability of the label alone: of the tracks with another answer, those with the lowest
are listed (as in the paper's "prune by class", but for all genres together).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genre.evaluation.metrics import FloatArray, IntArray, labels


@dataclass(frozen=True, eq=False)
class LabelIssues:
    """Labels that are probably wrong, the most certain first; each array is (issues,).

    `tracks` holds indices of tracks, `suggested` the class that the models answer. `p_label` and `p_suggested` are the
    probabilities of both classes.
    """

    tracks: IntArray
    suggested: IntArray
    p_label: FloatArray
    p_suggested: FloatArray


def find_label_issues(truth: npt.ArrayLike, probabilities: npt.ArrayLike) -> LabelIssues:
    """Return the issues among the labels `truth`, (tracks,), given `probabilities`, (tracks, classes).

    They are ordered by the probability of the label. A genre without tracks is never suggested.
    """
    table = np.asarray(probabilities, dtype=np.float64)
    given = labels(truth, table.shape[1])
    if table.shape[:1] != given.shape:
        raise ValueError(f"truth has shape {given.shape} and probabilities {table.shape}; give a row for each track")
    tracks = np.bincount(given, minlength=table.shape[1])
    table = np.where(tracks > 0, table, -np.inf)
    of_label = table[np.arange(len(given)), given]
    answer = table.argmax(axis=1) if table.size else given
    other = np.flatnonzero(table[np.arange(len(given)), answer] > of_label)
    order = np.argsort(of_label[other], kind="stable")[: _wrong(given, table, tracks)]
    found = other[order]
    return LabelIssues(found, answer[found], of_label[found], table[found, answer[found]])


def _wrong(given: IntArray, table: FloatArray, tracks: IntArray) -> int:
    """Return how many labels are wrong: of the tracks that a genre is confident of, those with another label."""
    of_label = table[np.arange(len(given)), given]
    mean = np.bincount(given, weights=of_label, minlength=table.shape[1]) / np.maximum(tracks, 1)
    confident = np.where(table >= mean, table, -np.inf)
    is_confident = np.isfinite(confident.max(axis=1, initial=-np.inf))
    return int((is_confident & (confident.argmax(axis=1) != given)).sum()) if table.size else 0
