"""Tracks whose label the networks doubt, for people to listen to."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from genre.evaluation.label_issues import find_label_issues
from genre.evaluation.metrics import decisions
from genre.report.neighbours import neighbours_of
from genre.report.prediction_files import neighbour_columns
from genre.report.table import Table
from genre.report.text import csv_file
from genre.retrieval.neighbours import SHOWN, Neighbour

MOST = 25  # tracks on the page; the CSV lists all


@dataclass(frozen=True)
class LabelIssue:
    """A track, its label `genre`, the genre that the networks suggest, and the mean probabilities of both.

    `agreeing` of `networks` networks predict the suggested genre.
    """

    track_id: str
    genre: str
    suggested: str
    p_genre: float
    p_suggested: float
    agreeing: int
    networks: int
    neighbours: tuple[Neighbour, ...] = ()  # the nearest training tracks, where they are known


def label_issues(table: Table) -> list[LabelIssue]:
    """Return the tracks whose label the networks doubt, the least probable label first.

    The networks' probabilities are averaged over seeds, then over networks. There are none for the training split,
    whose labels the networks have learned, and from networks that are worse than a reference row or as bad as guessing.
    """
    board, rows = table.board, table.of("network")
    is_guessing = any(not row.differs for row in table.of("majority"))
    if not rows or board.judged_on == "train" or rows[0].differs or is_guessing:
        return []
    by_network = np.stack([row.entry.mean_probabilities for row in rows])
    answers = decisions(by_network)
    issues = find_label_issues(board.truth, by_network.mean(axis=0))
    nearest = neighbours_of(table)
    return [
        LabelIssue(
            track_id=board.track_ids[track],
            genre=board.classes[board.truth[track]],
            suggested=board.classes[suggested],
            p_genre=round(float(p_label), 3),
            p_suggested=round(float(p_suggested), 3),
            agreeing=int((answers[:, track] == suggested).sum()),
            networks=len(rows),
            neighbours=nearest.of(track, board.classes) if nearest else (),
        )
        for track, suggested, p_label, p_suggested in zip(
            issues.tracks, issues.suggested, issues.p_label, issues.p_suggested, strict=True
        )
    ]


def csv_text(issues: list[LabelIssue]) -> str:
    """Return a line per issue, with its neighbours, whose cells are empty where they are not known."""
    names = [field.name for field in fields(LabelIssue) if field.name != "neighbours"]
    places = [name for place in range(SHOWN) for name in neighbour_columns(place)]
    lines = []
    for issue in issues:
        near = [cell for neighbour in issue.neighbours for cell in neighbour]
        lines.append([*(getattr(issue, name) for name in names), *near, *[""] * (len(places) - len(near))])
    return csv_file([*names, *places], lines)
