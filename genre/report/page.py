"""The report as one HTML file that asks nothing of the network.

Every text from outside (track names, genres, settings) passes jinja2's escaping. What is trusted as it stands is
only what lies in this folder: the templates, the style sheet, the script, and the pictures built with `svg.py`.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from genre.report.advice import advise
from genre.report.beside import beside, in_words
from genre.report.charts import COSTS, cost_plot, interval_mark
from genre.report.columns import (
    COST_COLUMNS,
    DASH,
    KINDS,
    SCORE_COLUMNS,
    Record,
    lost,
    rank_text,
    records,
    robustness_columns,
    score,
    seconds,
)
from genre.report.confused import confused_tracks
from genre.report.curves import learning_curves
from genre.report.slices import MARKS, search_facts, short, shown, slices
from genre.report.table import RANK_RULE, Row, Table

FOLDER = Path(__file__).parent


def html(table: Table) -> str:
    """The whole page."""
    style, script = (FOLDER / "page.css").read_text("utf-8"), (FOLDER / "page.js").read_text("utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"dash": DASH, "score": score, "seconds": seconds, "lost": lost}
    environment.globals |= {"marks": MARKS, "short": short, "shown": shown}
    assets = {"style": Markup(style), "script": Markup(script), "script_hash": _hash(script)}
    return environment.get_template("page.html").render(_content(table) | assets)


def _hash(script: str) -> str:
    """For the content security policy: no other script than this one may run in the page."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _content(table: Table) -> dict[str, Any]:
    """What the templates show."""
    rows = records(table)
    advice = advise(table)
    return {
        "board": table.board,
        "advice": advice,
        "rows": [
            _leaderboard_row(row, record, table, row is advice.pick)
            for row, record in zip(table.rows, rows, strict=True)
        ],
        "score_columns": [column for column in SCORE_COLUMNS if column.present(rows)],
        "cost_columns": [column for column in COST_COLUMNS if column.present(rows)],
        "robustness_columns": robustness_columns(table),
        "rank_rule": RANK_RULE,
        "support": np.bincount(table.board.truth, minlength=len(table.board.classes)).tolist(),
        "models": [_model(row, row is advice.pick) for row in table.rows],
        "cost_plots": [plot for cost in COSTS if (plot := cost_plot(table.rows, cost))],
        "curves": learning_curves(row.entry for row in table.rows),
        "confused": confused_tracks(table),
        "beside": beside(table),
        "beside_in_words": list(in_words(table)),
        "search_facts": search_facts(table.board.search),
        "slices": slices(table.board.search) if table.board.search else [],
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
    """The details of one entry; `shares` are of the tracks of each true genre (row) that got each answer."""
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
