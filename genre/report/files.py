"""Write the files of a leaderboard, and read a board from its JSON and its predictions.

leaderboard.json holds everything but what grows with the number of tracks, which is in `predictions/*.parquet`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from genre.errors import ArtifactError
from genre.model.calibration import Calibration
from genre.report import label_issues, pairs, prediction_files
from genre.report.board import Board, Entry, SeedRun
from genre.report.columns import records
from genre.report.facts import DIGITS, Compared, ComparedRow, CorpusFacts
from genre.report.leaderboard_page import html
from genre.report.markdown import markdown
from genre.report.prediction_files import StoredFile, StoredFiles
from genre.report.search import Search, Trial
from genre.report.table import RANK_RULE, Table, tabulate
from genre.report.text import csv_text
from genre.storage import Location

SCHEMA = 3  # of leaderboard.json; increased when older versions could no longer read it correctly
NAME = "leaderboard"
_OF_TRACKS = ("track_ids", "truth", "groups")  # fields of a board that are in prediction files
_OF_RUN = ("probabilities", "neighbours")  # fields of a run that are there as well


def write(board: Board, folder: Location) -> Table:
    """Write predictions, `label_issues.csv`, `pairs.csv`, `leaderboard.csv`, `.md`, `.html` and, last, `.json`.

    Each file is written atomically. Predictions of models that have left the board are deleted. Returns the table.
    """
    table = tabulate(board)
    files = prediction_files.write(board, folder)
    contents = {
        "label_issues.csv": label_issues.csv_text(label_issues.label_issues(table)),
        "pairs.csv": pairs.csv_text(table),
        f"{NAME}.csv": csv_text(table),
        f"{NAME}.md": markdown(table),
        f"{NAME}.html": html(table),
        f"{NAME}.json": json_text(table, files),
    }
    for name, content in contents.items():
        (folder / name).write_text(content)
    prediction_files.delete_others(folder, files)
    return table


def read_board(folder: Location) -> Board:
    """Return the board in `folder`. Raises `ArtifactError` when a file of it is missing or invalid."""
    content, source = _read_json(folder)
    try:
        return _from_json(content["board"], folder)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{source}: damaged or incomplete ({error}); make the leaderboard again") from None


def best_network(folder: Location) -> str | None:
    """Return the name of the best network on the leaderboard in `folder`, None where it has none.

    No predictions are read. Raises `ArtifactError` like `read_board`.
    """
    content, source = _read_json(folder)
    try:
        return next((str(row["name"]) for row in content["rows"] if row["kind"] == "network"), None)
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{source}: damaged or incomplete ({error}); make the leaderboard again") from None


def json_text(table: Table, files: StoredFiles) -> str:
    """Return the board and its rows as JSON: objects with a key per line, lists of numbers and strings on one line."""
    board = facts_of(table.board)
    board["tracks"] = asdict(files.tracks)
    for entry, runs in zip(board["entries"], files.runs, strict=True):
        for run, file in zip(entry["runs"], runs, strict=True):
            run["predictions"] = asdict(file)
    content = {"schema": SCHEMA, "rank_rule": RANK_RULE, "rows": records(table), "board": board}
    return "".join(_pretty(content)) + "\n"


def facts_of(board: Board) -> dict[str, Any]:
    """Return everything but the tracks and their predictions in plain JSON types.

    Measured numbers have `DIGITS` decimals, settings are unchanged.
    """
    content = {f.name: getattr(board, f.name) for f in fields(board) if f.name not in _OF_TRACKS}
    content["part"] = content.pop("judged_on")  # its name in files of every version
    content["corpus"] = asdict(board.corpus)
    content["search"] = asdict(board.search) if board.search else None
    content["compared"] = [asdict(other) for other in board.compared]
    content["entries"] = [
        {f.name: getattr(entry, f.name) for f in fields(entry)} | {"runs": [_facts_of_run(run) for run in entry.runs]}
        for entry in board.entries
    ]
    plain: dict[str, Any] = _plain(content)
    return plain


def _facts_of_run(run: SeedRun) -> dict[str, Any]:
    facts = {f.name: getattr(run, f.name) for f in fields(run) if f.name not in _OF_RUN}
    return facts | {"correction": asdict(run.correction) if run.correction else None}


def _read_json(folder: Location) -> tuple[dict[str, Any], Location]:
    """Return the content of leaderboard.json and its address. Raises `ArtifactError`."""
    file = folder / f"{NAME}.json"
    if not file.exists():
        raise ArtifactError(f"{file}: no such file; run `genre tune` or `genre evaluate` with this output first")
    content = file.read_json()
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise ArtifactError(f"{file}: schema {schema}, this version reads {SCHEMA}; make the leaderboard again")
    return content, file


def _from_json(content: dict[str, Any], folder: Location) -> Board:
    board = dict(content)
    tracks = StoredFile(**board.pop("tracks"))
    board["track_ids"], board["truth"], board["groups"] = prediction_files.read_tracks(folder, tracks, board["classes"])
    board["judged_on"] = board.pop("part", "test")
    board["corpus"] = CorpusFacts(**board["corpus"])
    board["entries"] = [
        Entry(**entry | {"runs": [_run(run, folder, board["classes"]) for run in entry["runs"]]})
        for entry in board["entries"]
    ]
    board["search"] = _search(board["search"]) if board.get("search") else None
    board["compared"] = [
        Compared(**other | {"rows": [ComparedRow(**row) for row in other["rows"]]})
        for other in board.get("compared", [])
    ]
    return Board(**board)


def _run(content: dict[str, Any], folder: Location, classes: list[str]) -> SeedRun:
    facts = {name: value for name, value in content.items() if name not in ("predictions", "correction")}
    probabilities, neighbours = prediction_files.read_run(folder, StoredFile(**content["predictions"]), classes)
    correction = _correction(content.get("correction"))
    return SeedRun(**facts, probabilities=probabilities, neighbours=neighbours, correction=correction)


def _correction(content: dict[str, Any] | None) -> Calibration | None:
    return Calibration(**content | {"thresholds": tuple(content["thresholds"])}) if content else None


def _search(content: dict[str, Any]) -> Search:
    return Search(**content | {"trials": [Trial(**trial) for trial in content["trials"]]})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.astype(np.float64).round(DIGITS).tolist() if value.dtype.kind == "f" else value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def _pretty(value: Any, indent: str = "") -> Iterator[str]:
    """Yield the pieces of indented JSON in which a list of plain values is a single line."""
    nested = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    is_row = isinstance(value, list) and not any(isinstance(item, list | dict) for item in nested)
    if not nested or is_row:
        yield json.dumps(value, allow_nan=False)
        return
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    deeper = indent + " "
    keys = [f"{json.dumps(key)}: " for key in value] if isinstance(value, dict) else [""] * len(nested)
    for number, (key, item) in enumerate(zip(keys, nested, strict=True)):
        yield f"{',' if number else opening}\n{deeper}{key}"
        yield from _pretty(item, deeper)
    yield f"\n{indent}{closing}"
