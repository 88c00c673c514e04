"""The leaderboard as Markdown that is readable unrendered too: everything but the charts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from markupsafe import Markup

from genre.report import promises
from genre.report.advice import advise
from genre.report.columns import (
    COST_COLUMNS,
    KINDS,
    SCORE_COLUMNS,
    Column,
    Record,
    lost,
    rank_text,
    records,
    robustness_columns,
)
from genre.report.comparison import comparison_rows, mean_gaps
from genre.report.facts import CorpusFacts
from genre.report.formats import DASH, difference, p_value, score, seconds
from genre.report.neighbours import mistakes
from genre.report.rendering import markdown_text
from genre.report.search import Search
from genre.report.search_plots import by_architecture
from genre.report.table import RANK_RULE, Table
from genre.report.tuning import NOTE, Version, versions
from genre.retrieval.neighbours import Neighbour
from genre.wording import plural

Lines = list[list[str]]  # a table: its headings, then its rows


def markdown(table: Table) -> str:
    """Return the report."""
    content = _content(table.without_defaults())
    content |= {"advice": advise(table), "versions": _versions(table), "versions_note": Markup(NOTE)}
    return markdown_text("leaderboard", content)


def _content(table: Table) -> dict[str, Any]:
    """Return what the template shows of the rows."""
    rows, board, promised = records(table), table.board, promises.promises(table)
    return {
        "board": board,
        "rank_rule": Markup(RANK_RULE),
        "scores": _scores(table, rows),
        "costs": _columns(rows, [column for column in COST_COLUMNS if column.is_known(rows)], Column.text),
        "robustness": _columns(rows, robustness_columns(table), _changed_text),
        "genres": _genres(table),
        "promises": promises.lines(promised),
        "way_out": promises.way_out(promised),
        "mistakes": _mistakes(table),
        "comparison": _comparison(table),
        "mean_gaps": mean_gaps(table),
        "search": _search(board.search) if board.search and board.search.trials else None,
        "tracks": track_counts(board.corpus, board.classes),
    }


def track_counts(corpus: CorpusFacts, classes: Iterable[str]) -> Lines:
    """Return the number of tracks by genre and split, with a row of totals."""
    splits = corpus.tracks.values()
    counts = [[genre, *(str(split.get(genre, 0)) for split in splits)] for genre in classes]
    return [["Genre", *corpus.tracks], *counts, ["all", *(str(sum(split.values())) for split in splits)]]


def _scores(table: Table, rows: list[Record]) -> Lines:
    columns = [column for column in SCORE_COLUMNS if column.is_known(rows)]
    lines = [["Rank", "Model", *(column.heading for column in columns)]]
    for row, record in zip(table.rows, rows, strict=True):
        name = f"{row.entry.name} ({KINDS[row.entry.kind]})" if row.entry.is_reference else row.entry.name
        lines.append([rank_text(row), name, *(_with_note(c.text(record), c.note(record)) for c in columns)])
    return lines


def _versions(table: Table) -> Lines:
    headings = ["Model", "Version", "Macro F1", "Change", "p", "Accuracy", "Valid F1", "Trained", "Time"]
    lines = [_version(version) for version in versions(table)]
    return [headings, *lines] if lines else []


def _version(version: Version) -> list[str]:
    f1, accuracy = version.f1, version.accuracy
    return [
        version.network,
        version.name,
        f"{score(f1.mean)} ({score(f1.low)}–{score(f1.high)})" if f1 else DASH,
        _known(difference, version.change),
        _known(p_value, version.p_value),
        score(accuracy.mean) if accuracy else DASH,
        _with_note(_known(score, version.valid_f1), _known(difference, version.valid_change, "")),
        version.trained,
        _known(seconds, version.seconds),
    ]


def _known(show: Callable[[float], str], value: float | None, unknown: str = DASH) -> str:
    return unknown if value is None else show(value)


def _columns(rows: list[Record], columns: list[Column], text_of: Callable[[Column, Record], str]) -> Lines:
    headings = ["Model", *(column.heading for column in columns)]
    lines = [[str(record["name"]), *(text_of(column, record) for column in columns)] for record in rows]
    return [headings, *lines] if columns else []


def _changed_text(column: Column, record: Record) -> str:
    return _with_note(column.text(record), lost(record, column))


def _genres(table: Table) -> Lines:
    board = table.board
    support = np.bincount(board.truth, minlength=len(board.classes))
    lines = [["Genre", "Tracks", *(row.entry.name for row in table.rows)]]
    for index, genre in enumerate(board.classes):
        scores = [f"{row.per_class.f1[index]:.2f}" if support[index] else DASH for row in table.rows]
        lines.append([genre, str(support[index]), *scores])
    return lines


def _mistakes(table: Table) -> Lines:
    """Return the most certain wrong predictions with the nearest training tracks; nothing where these are unknown."""
    items = mistakes(table)
    if not items:
        return []
    lines = [["Track", "Genre", "Predicted", *(f"Neighbour {place + 1}" for place in range(len(items[0].neighbours)))]]
    for item in items:
        predicted = f"{item.predicted} ({score(item.probability)})"
        lines.append([item.track_id, item.genre, predicted, *map(_neighbour, item.neighbours)])
    return lines


def _neighbour(neighbour: Neighbour) -> str:
    return f"{neighbour.track_id} ({neighbour.genre}, {neighbour.cosine:.2f})"


def _comparison(table: Table) -> Lines:
    """Return macro F1 on this board and on the others."""
    others = [f"{other.split} split, {other.label}" for other in table.board.compared]
    lines = [["Model", f"{table.board.corpus.split} split, this board", *others]]
    for line in comparison_rows(table):
        scores = [_with_note(score(row.f1), line.gap(n)) if row else DASH for n, row in enumerate(line.others)]
        lines.append([line.name, score(line.here.f1.mean) if line.here else DASH, *scores])
    return lines if others else []


def _search(search: Search) -> dict[str, Any]:
    errors = Counter(f"{trial.architecture}: {trial.error}" for trial in search.trials if trial.error)
    searches = by_architecture(search)
    return {
        "summary": search.summary(),
        "errors": [f"{error} ({plural(n, 'time')})" if n > 1 else error for error, n in errors.items()],
        "architectures": [
            ["Model", "Best valid F1", "Trials"],
            *([item.name, DASH if item.best is None else score(item.best), item.status_counts] for item in searches),
        ],
    }


def _with_note(text: str, note: str) -> str:
    return f"{text} ({note})" if note else text
