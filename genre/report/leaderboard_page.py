"""The leaderboard as a single HTML file that loads nothing from the network."""

from __future__ import annotations

from typing import Any

import numpy as np

from genre.report import promises
from genre.report.advice import Advice, advise
from genre.report.charts import COSTS, cost_plot, interval_mark
from genre.report.columns import (
    COST_COLUMNS,
    KINDS,
    SCORE_COLUMNS,
    Record,
    lost,
    rank_text,
    records,
    robustness_columns,
)
from genre.report.comparison import comparison_rows, mean_gaps
from genre.report.formats import DASH, difference, p_value, score, seconds
from genre.report.label_issues import MOST, label_issues
from genre.report.learning_curves import learning_curves
from genre.report.neighbours import mistakes
from genre.report.rendering import html_page
from genre.report.search import STATUS_TEXT
from genre.report.search_plots import budgets, by_architecture, last_part, setting_text
from genre.report.table import RANK_RULE, Row, Table
from genre.report.tuning import NOTE, versions
from genre.wording import plural

_FORMATS = {
    "dash": DASH,
    "difference": difference,
    "last_part": last_part,
    "lost": lost,
    "p_value": p_value,
    "plural": plural,
    "score": score,
    "seconds": seconds,
    "setting_text": setting_text,
    "status_text": STATUS_TEXT,
    "versions_note": NOTE,
}


def html(table: Table) -> str:
    """Return the page."""
    content = _content(table.without_defaults(), advise(table)) | {"versions": versions(table)}
    return html_page("leaderboard", content | _FORMATS)


def _content(table: Table, advice: Advice) -> dict[str, Any]:
    """Return what the templates show."""
    rows, board, promised = records(table), table.board, promises.promises(table)
    return {
        "board": board,
        "advice": advice,
        "rows": [
            _leaderboard_row(row, record, table, row is advice.pick)
            for row, record in zip(table.rows, rows, strict=True)
        ],
        "score_columns": [column for column in SCORE_COLUMNS if column.is_known(rows)],
        "cost_columns": [column for column in COST_COLUMNS if column.is_known(rows)],
        "robustness_columns": robustness_columns(table),
        "rank_rule": RANK_RULE,
        "support": np.bincount(board.truth, minlength=len(board.classes)).tolist(),
        "models": [_model(row, row is advice.pick) for row in table.rows],
        "cost_plots": [plot for cost in COSTS if (plot := cost_plot(table.rows, cost))],
        "curves": learning_curves(row.entry for row in table.rows),
        "promises": promises.lines(promised),
        "way_out": promises.way_out(promised),
        "label_issues": label_issues(table),
        "most_issues": MOST,
        "mean_error": 1 - float(np.mean([row.accuracy.mean for row in table.of("network")] or [0.0])),
        "mistakes": mistakes(table),
        "comparison": comparison_rows(table),
        "mean_gaps": list(mean_gaps(table)),
        "search_summary": board.search.summary() if board.search else [],
        "searches": by_architecture(board.search) if board.search else [],
        "budgets": budgets(board.search) if board.search else [],
    }


def _leaderboard_row(row: Row, record: Record, table: Table, picked: bool) -> dict[str, Any]:
    ceiling = max(other.f1.high for other in table.rows) or 1.0
    best = next((other for other in table.rows if other.rank is not None), row)
    return {
        "name": row.entry.name,
        "record": record,
        "rank": rank_text(row),
        "note": KINDS[row.entry.kind],
        "picked": picked,
        "mark": interval_mark(row.f1, ceiling, best.f1.mean),
        "f1_by_genre": row.per_class.f1.tolist(),
    }


def _model(row: Row, picked: bool) -> dict[str, Any]:
    """Return the details of a row; `shares` holds the confusion matrix divided by the tracks of each true genre."""
    totals = row.confusion.sum(axis=1, keepdims=True)
    shares = np.divide(row.confusion, totals, out=np.zeros_like(row.confusion), where=totals > 0)
    per_class = row.per_class
    return {
        "name": row.entry.name,
        "note": KINDS[row.entry.kind],
        "open": picked,
        "f1": row.f1.mean,
        "seeds": [run.seed for run in row.entry.runs],
        "settings": row.entry.settings,
        "per_genre": list(
            zip(*(a.tolist() for a in (per_class.precision, per_class.recall, per_class.f1)), strict=True)
        ),
        "shares": shares.tolist(),
        "counts": row.confusion.tolist(),
    }
