"""The report as Markdown that also reads well unrendered: everything but the pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np

from genre.report.advice import advise
from genre.report.board import Board
from genre.report.columns import COST_COLUMNS, KINDS, SCORE_COLUMNS, Record, rank_text, records
from genre.report.table import RANK_RULE, Table


def markdown(table: Table) -> str:
    """Answer, scores, costs, genres, data, and how to repeat it. Names are escaped: none can become a tag or a link."""
    advice, rows = advise(table), records(table)
    parts = [f"# {_safe(table.board.title)}", f"**{_safe(advice.sentence)}**", _bullets(advice.reasons)]
    if table.rows:
        parts += ["## Leaderboard", _scores(table, rows), RANK_RULE, *_costs(rows), "## F1 by genre", _genres(table)]
    parts += [*_data(table.board), *_repeat(table.board)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _scores(table: Table, rows: list[Record]) -> str:
    columns = [column for column in SCORE_COLUMNS if column.present(rows)]
    cells = []
    for row, record in zip(table.rows, rows, strict=True):
        name = f"{row.entry.name} ({KINDS[row.entry.kind]})" if row.entry.is_reference else row.entry.name
        scores = [f"{column.text(record)} {_bracketed(column.range(record))}".strip() for column in columns]
        cells.append([rank_text(row), name, *scores])
    return _table(["Rank", "Model", *(column.heading for column in columns)], cells)


def _costs(rows: list[Record]) -> Iterator[str]:
    columns = [column for column in COST_COLUMNS if column.present(rows)]
    if columns:
        yield "## Cost"
        cells = [[str(record["name"]), *(column.text(record) for column in columns)] for record in rows]
        yield _table(["Model", *(column.heading for column in columns)], cells)


def _genres(table: Table) -> str:
    support = np.bincount(table.board.truth, minlength=len(table.board.classes))
    cells = [
        [genre, str(support[index]), *(f"{row.per_class.f1[index]:.2f}" for row in table.rows)]
        for index, genre in enumerate(table.board.classes)
    ]
    return _table(["Genre", "Tracks", *(row.entry.name for row in table.rows)], cells)


def _data(board: Board) -> Iterator[str]:
    corpus = board.corpus
    yield "## Data"
    yield _safe(f"{corpus.name}, split {corpus.split}. {corpus.split_rule} {corpus.leakage}".strip())
    if corpus.tracks:
        counts = [[genre, *(str(split.get(genre, 0)) for split in corpus.tracks.values())] for genre in board.classes]
        total = ["all", *(str(sum(split.values())) for split in corpus.tracks.values())]
        yield _table(["Genre", *corpus.tracks], [*counts, total])
    if corpus.rejects:
        yield _table(["Rejected because", "Files"], [[reason, str(n)] for reason, n in corpus.rejects.items()])
    yield _bullets(board.notes)


def _repeat(board: Board) -> Iterator[str]:
    yield "## Repeat it"
    yield "\n".join(f"    {line}" for command in board.commands for line in command.splitlines())
    facts = {"Made": board.created, "Seed": str(board.seed), "Hardware": board.hardware} | board.versions
    yield _bullets(f"{name}: {value}" for name, value in facts.items() if value)


def _table(headings: Iterable[str], rows: list[list[str]]) -> str:
    """A pipe table whose columns line up unrendered too."""
    cells = [[_safe(cell) for cell in line] for line in (list(headings), *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in cells
    )


def _bracketed(text: str) -> str:
    return f"({text})" if text else ""


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_safe(line)}" for line in lines)


def _safe(text: str) -> str:
    """`text` on one line, with every sign that could start a tag, a link, emphasis or another cell escaped."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*|\[\]])", r"\\\1", flat)
