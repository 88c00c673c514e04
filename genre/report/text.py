"""The table as CSV, and as plain text for a terminal."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterable, Iterator
from itertools import pairwise

from genre.report.advice import advise
from genre.report.columns import COST_COLUMNS, SCORE_COLUMNS, Column, rank_text, records
from genre.report.comparison import mean_gaps
from genre.report.formats import DASH, number, score, seconds
from genre.report.table import Table
from genre.report.tuning import versions
from genre.spreadsheet import inert

TEXT_WIDTH = 110  # columns of text that is not for a terminal
NAME_WIDTH = 20
TERMINAL = {  # column: its short heading
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "parameters": "params",
    "train_seconds": "training",
    "clips_per_second": "clips/s",
}
VERSIONS = (  # column, its two headings and its text in the table of versions
    ("default_valid_f1", "valid F1", "default", score),
    ("tuned_valid_f1", "valid F1", "tuned", score),
    ("default_f1", "macro F1", "default", score),
    ("f1", "macro F1", "tuned", score),
    ("seeds_f1", "macro F1", "ensembled", score),
    ("trials", "search", "trials", number),
    ("search_seconds", "search", "time", seconds),
)


def csv_text(table: Table) -> str:
    """Return a line per row with every number of `columns.records`; unknown values are empty."""
    rows = records(table)
    return csv_file(rows[0] if rows else ("rank", "name"), (record.values() for record in rows))


def csv_file(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return the content of a CSV file.

    Text is made `inert`, so that a spreadsheet runs nothing in it, and is on one line; numbers are unchanged.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for cells in (headings, *rows):
        # on one line, since Python 3.11 does not quote a carriage return
        writer.writerow([inert(" ".join(cell.split())) if isinstance(cell, str) else cell for cell in cells])
    return out.getvalue()


def text_table(table: Table, width: int = TEXT_WIDTH) -> str:
    """Return the advice and the table in lines of at most `width` columns, at least 80.

    The last columns of the leaderboard are left out where they do not fit.
    """
    width = max(width, 80)
    advised = advise(table)
    advice = "\n".join(textwrap.fill(text, width) for text in (advised.sentence, *advised.on_terminal))
    missing = [textwrap.fill(sentence, width) for sentence in table.board.missing_notes]
    if not table.rows:
        return "\n".join([advice, *missing])
    legend = ["= tied: no significant difference on these tracks", "* reference row, not a candidate"]
    gaps = [textwrap.fill(sentence, width) for sentence in mean_gaps(table)]
    ranking = _ranking(table.without_defaults(), width)
    return "\n".join([advice, "", *ranking, "", *legend, *_versions(table), *missing, *gaps])


def _ranking(table: Table, width: int) -> Iterator[str]:
    by_key = {column.key: column for column in (*SCORE_COLUMNS, *COST_COLUMNS)}
    columns: list[Column] = [by_key[key] for key in TERMINAL]
    lines = [["rank", "model", "macro F1 [95 %]", *TERMINAL.values()]]
    for row, record in zip(table.rows, records(table), strict=True):
        name = textwrap.shorten(row.entry.name, NAME_WIDTH, placeholder="…") + "*" * row.entry.is_reference
        f1 = f"{by_key['f1'].text(record)} [{row.f1.low:.2f} {row.f1.high:.2f}]"
        lines.append([rank_text(row), name, f1, *(column.text(record) for column in columns)])
    while len(next(_aligned(lines, left=(1, 2)))) > width:
        lines = [line[:-1] for line in lines]
    yield from _aligned(lines, left=(1, 2))


def _versions(table: Table) -> Iterator[str]:
    """Yield a line for each network as configured, tuned and ensembled; nothing where no network has two versions."""
    if not versions(table):
        return
    networks = [record for record in records(table) if record["kind"] == "network"]
    was_searched = any(record["tuned_valid_f1"] is not None for record in networks)
    columns = [
        column
        for column in VERSIONS
        if any(record[column[0]] is not None for record in networks)
        and (was_searched or column[0] != "default_f1")  # which would be the column of the single seeds again
    ]
    above = ["", *(group for _, group, _, _ in columns)]
    repeated = [group == before for before, group in pairwise(above)]
    lines = [["", *("" if again else group for again, group in zip(repeated, above[1:], strict=True))]]
    headings = [heading for _, _, heading, _ in columns]
    if not was_searched:
        headings = [heading.replace("tuned", "single") for heading in headings]
    lines.append(["model", *headings])
    for record in networks:
        name = textwrap.shorten(str(record["name"]), NAME_WIDTH, placeholder="…")
        values = [(record[key], show) for key, _, _, show in columns]
        lines.append([name, *(show(value) if isinstance(value, int | float) else DASH for value, show in values)])
    yield ""
    yield from _aligned(lines, left=(0,))
    yield ""


def _aligned(lines: list[list[str]], left: tuple[int, ...]) -> Iterator[str]:
    """Yield the lines with aligned columns: those numbered in `left` to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
