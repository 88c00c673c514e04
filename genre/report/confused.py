"""The tracks that most models get wrong: hard music, or a label worth listening to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genre.evaluation.metrics import IntArray, decisions
from genre.report.table import Row, Table

AT_MOST = 25


@dataclass(frozen=True)
class ConfusedTrack:
    """`wrong` of the `asked` models missed the truth; `answers` holds each genre named, and by which models."""

    track: str
    truth: str
    wrong: int
    asked: int
    answers: list[tuple[str, list[str]]]


def confused_tracks(table: Table) -> list[ConfusedTrack]:
    """Tracks that at least half of the networks miss, worst first, each network answering with its seeds averaged.

    Where there is no network the other rows are asked. Equally often missed tracks are ordered by how little
    probability the truth got.
    """
    rows = table.of("network") or table.of("classical", "ensemble")
    board = table.board
    if not rows or not board.track_ids:
        return []
    answers = np.stack([decisions(row.entry.mean_probabilities) for row in rows])  # (models, tracks)
    of_truth = np.mean([row.entry.mean_probabilities for row in rows], axis=0)[np.arange(len(board.truth)), board.truth]
    wrong = (answers != board.truth).sum(axis=0)
    worst = np.lexsort((of_truth, -wrong))[:AT_MOST]
    return [
        ConfusedTrack(
            track=board.track_ids[index],
            truth=board.classes[board.truth[index]],
            wrong=int(wrong[index]),
            asked=len(rows),
            answers=_by_genre(answers[:, index], rows, board.classes),
        )
        for index in worst
        if 2 * wrong[index] >= len(rows)
    ]


def _by_genre(answers: IntArray, rows: list[Row], classes: list[str]) -> list[tuple[str, list[str]]]:
    """The genres named with the models that named each, the most frequent first."""
    named = {
        classes[index]: [row.entry.name for row, answer in zip(rows, answers, strict=True) if answer == index]
        for index in np.unique(answers)
    }
    return sorted(named.items(), key=lambda item: -len(item[1]))
