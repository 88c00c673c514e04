"""The nearest training tracks of the most certain wrong predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genre.evaluation.metrics import decisions
from genre.report.table import Table
from genre.retrieval.neighbours import Neighbour, Neighbours

MOST = 8  # tracks in the report


@dataclass(frozen=True)
class Mistake:
    """A track with its label `genre`, the wrong prediction of the networks with its probability, and its neighbours."""

    track_id: str
    genre: str
    predicted: str
    probability: float
    neighbours: tuple[Neighbour, ...]


def neighbours_of(table: Table) -> Neighbours | None:
    """Return the nearest training tracks of each track by the best row that has them, None without such a row."""
    return next((row.entry.runs[0].neighbours for row in table.of("neighbours")), None)


def mistakes(table: Table) -> list[Mistake]:
    """Return the tracks whose wrong prediction has the highest probability, at most `MOST`, where neighbours are known.

    The networks' probabilities are averaged over seeds, then over networks.
    """
    board, rows, nearest = table.board, table.of("network"), neighbours_of(table)
    if not rows or nearest is None:
        return []
    probabilities = np.mean([row.entry.mean_probabilities for row in rows], axis=0)
    predicted, highest = decisions(probabilities), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != board.truth)
    return [
        Mistake(
            track_id=board.track_ids[track],
            genre=board.classes[board.truth[track]],
            predicted=board.classes[predicted[track]],
            probability=round(float(highest[track]), 3),
            neighbours=nearest.of(track, board.classes),
        )
        for track in wrong[np.argsort(-highest[wrong], kind="stable")][:MOST]
    ]
