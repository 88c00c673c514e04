"""Tracks that most models misclassify: hard music, or labels to check."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genre.evaluation.metrics import IntArray, decisions
from genre.report.table import Row, Table

MOST = 25  # tracks listed


@dataclass(frozen=True)
class HardTrack:
    """A track that `wrong` of `models` models misclassify; `answers` holds each predicted genre and by which models."""

    track: str
    truth: str
    wrong: int
    models: int
    answers: list[tuple[str, list[str]]]


def hard_tracks(table: Table) -> list[HardTrack]:
    """Return the tracks that at least half of the networks misclassify, worst first.

    Each network predicts with its probabilities averaged over seeds; without a network the reference rows are used.
    Tracks with as many wrong models are ordered by the mean probability of the true genre.
    """
    rows = table.of("network") or table.of("classical", "ensemble")
    board = table.board
    if not rows or not board.track_ids:
        return []
    answers = np.stack([decisions(row.entry.mean_probabilities) for row in rows])  # (models, tracks)
    of_truth = np.mean([row.entry.mean_probabilities for row in rows], axis=0)[np.arange(len(board.truth)), board.truth]
    wrong = (answers != board.truth).sum(axis=0)
    worst = np.lexsort((of_truth, -wrong))[:MOST]
    return [
        HardTrack(
            track=board.track_ids[index],
            truth=board.classes[board.truth[index]],
            wrong=int(wrong[index]),
            models=len(rows),
            answers=_by_genre(answers[:, index], rows, board.classes),
        )
        for index in worst
        if 2 * wrong[index] >= len(rows)
    ]


def _by_genre(answers: IntArray, rows: list[Row], classes: list[str]) -> list[tuple[str, list[str]]]:
    """Return each predicted genre with the models that predicted it, the most frequent first."""
    models = {
        classes[index]: [row.entry.name for row, answer in zip(rows, answers, strict=True) if answer == index]
        for index in np.unique(answers)
    }
    return sorted(models.items(), key=lambda item: -len(item[1]))
