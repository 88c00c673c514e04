"""Labels that are probably wrong, by confident learning (Northcutt, Jiang and Chuang, arXiv 1911.00068).

The probabilities must come from models that did not learn from these labels. A model is confident that a track has a
genre when the probability of that genre is at least its mean over the tracks with that label. A label is an issue when
the models are confident of other genres only, or more of another one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genre.evaluation.metrics import FloatArray, IntArray, labels


@dataclass(frozen=True, eq=False)
class LabelIssues:
    """Labels that are probably wrong, the most certain first; each array is (issues,).

    `tracks` holds indices of tracks, `suggested` the class that the models are confident of. `p_label` and
    `p_suggested` are the probabilities of both classes.
    """

    tracks: IntArray
    suggested: IntArray
    p_label: FloatArray
    p_suggested: FloatArray


def find_label_issues(truth: npt.ArrayLike, probabilities: npt.ArrayLike) -> LabelIssues:
    """Return the issues among the labels `truth`, (tracks,), given `probabilities`, (tracks, classes).

    They are ordered by the probability of the label minus that of the suggested genre. A genre without tracks is never
    suggested.
    """
    table = np.asarray(probabilities, dtype=np.float64)
    given = labels(truth, table.shape[1])
    if table.shape[:1] != given.shape:
        raise ValueError(f"truth has shape {given.shape} and probabilities {table.shape}; give a row for each track")
    of_label = table[np.arange(len(given)), given]
    tracks = np.bincount(given, minlength=table.shape[1])
    mean = np.bincount(given, weights=of_label, minlength=table.shape[1]) / np.maximum(tracks, 1)
    confident = np.where((table >= mean) & (tracks > 0), table, -np.inf)
    suggested = confident.argmax(axis=1)
    found = np.flatnonzero(np.isfinite(confident.max(axis=1, initial=-np.inf)) & (suggested != given))
    of_suggested = table[found, suggested[found]]
    order = np.argsort(of_label[found] - of_suggested, kind="stable")
    found = found[order]
    return LabelIssues(found, suggested[found], of_label[found], of_suggested[order])
