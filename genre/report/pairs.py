"""Every pair of ranked rows: the difference in macro F1, its interval, and whether it is significant."""

from __future__ import annotations

import itertools

import numpy as np

from genre.evaluation import bootstrap
from genre.report.facts import DIGITS
from genre.report.table import LEVEL, Table
from genre.report.text import csv_file

COLUMNS = ("better", "worse", "f1_difference", "f1_difference_low", "f1_difference_high", "p_value")


def csv_text(table: Table) -> str:
    """Return a line for each pair of rows that have a rank, in the order of the table.

    The p-values are those by which the rows are ranked, corrected for all pairs. An interval is that of its pair alone.
    """
    ranked = [row for row in table.rows if row.rank is not None]
    p_values = bootstrap.max_t([row.f1_draws for row in ranked]) if ranked else np.ones((0, 0))
    lines: list[list[str | float]] = []
    for (first, better), (second, worse) in itertools.combinations(enumerate(ranked), 2):
        difference = better.f1.mean - worse.f1.mean
        limits = bootstrap.interval(better.f1_draws - worse.f1_draws, difference, LEVEL)
        numbers = (difference, *limits, float(p_values[first, second]))
        lines.append([better.entry.name, worse.entry.name, *(round(number, DIGITS) for number in numbers)])
    return csv_file(COLUMNS, lines)
