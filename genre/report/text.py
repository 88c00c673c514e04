"""The table as CSV, and as plain lines for a terminal."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterator
from typing import TypeVar

from genre.report.advice import advise
from genre.report.beside import in_words
from genre.report.board import Board
from genre.report.columns import COST_COLUMNS, SCORE_COLUMNS, Column, rank_text, records
from genre.report.table import Table, tabulate
from genre.spreadsheet import inert

V = TypeVar("V")

WIDTH = 110  # columns of a terminal that the plain table fits into
NAME_WIDTH = 20
TERMINAL = {  # column: the short heading
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "parameters": "params",
    "train_seconds": "training",
    "clips_per_second": "clips/s",
}


def csv_text(table: Table) -> str:
    """One line per row with every number of `columns.records`; empty where unknown.

    Text is made `inert`, so that opening the file in a spreadsheet executes nothing; numbers stay as they are.
    """
    rows = [{_cell(key): _cell(value) for key, value in record.items()} for record in records(table)]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]) if rows else ["rank", "name"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _cell(value: V) -> V | str:
    if not isinstance(value, str):
        return value
    return inert(" ".join(value.split()))  # Python 3.11's writer leaves a carriage return unquoted, which ends the row


def text_table(board: Board | Table) -> str:
    """The answer and the table in plain lines of at most `WIDTH` columns, for the end of a job."""
    table = board if isinstance(board, Table) else tabulate(board)
    answer = textwrap.fill(advise(table).sentence, WIDTH)
    absent = [textwrap.fill(sentence, WIDTH) for sentence in table.board.missing_in_words]
    if not table.rows:
        return "\n".join([answer, *absent])
    legend = "= shares its rank: cannot be told apart on these tracks.   * reference row, not a candidate."
    apart = [textwrap.fill(sentence, WIDTH) for sentence in in_words(table)]
    return "\n".join([answer, "", *_lines(table), "", legend, *absent, *apart])


def _lines(table: Table) -> Iterator[str]:
    known = {column.key: column for column in (*SCORE_COLUMNS, *COST_COLUMNS)}
    columns: list[Column] = [known[key] for key in TERMINAL]
    lines = [["rank", "model", "macro F1 [95 %]", *TERMINAL.values()]]
    for row, record in zip(table.rows, records(table), strict=True):
        name = textwrap.shorten(row.entry.name, NAME_WIDTH, placeholder="…") + "*" * row.entry.is_reference
        f1 = f"{row.f1.mean:.3f} [{row.f1.low:.2f} {row.f1.high:.2f}]"
        lines.append([rank_text(row), name, f1, *(column.text(record) for column in columns)])
    yield from _aligned(lines, left=(1, 2))


def _aligned(lines: list[list[str]], left: tuple[int, ...]) -> Iterator[str]:
    """Columns as wide as their widest cell: those in `left` hold words, the others numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
