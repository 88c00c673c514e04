"""Write the four files of a leaderboard, and read a board from its JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from genre.errors import ArtifactError
from genre.report.board import Board, Entry, Run
from genre.report.columns import records
from genre.report.facts import DIGITS, Compared, ComparedRow, CorpusFacts
from genre.report.leaderboard_page import html
from genre.report.markdown import markdown
from genre.report.search import Search, Trial
from genre.report.table import RANK_RULE, Table, tabulate
from genre.report.text import csv_text
from genre.storage import Location

SCHEMA = 1  # of leaderboard.json; increased when older versions could no longer read it correctly
NAME = "leaderboard"


def write(board: Board, folder: Location) -> Table:
    """Write `leaderboard.json`, `.csv`, `.md` and `.html` into `folder`, each atomically; return the table."""
    table = tabulate(board)
    contents = {"json": json_text(table), "csv": csv_text(table), "md": markdown(table), "html": html(table)}
    for suffix, content in contents.items():
        (folder / f"{NAME}.{suffix}").write_text(content)
    return table


def read_board(folder: Location) -> Board:
    """Return the board of `leaderboard.json` in `folder`. Raises `ArtifactError` when it is missing or invalid."""
    file = folder / f"{NAME}.json"
    if not file.exists():
        raise ArtifactError(f"{file}: no such file; run `genre tune` or `genre evaluate` with this output first")
    return from_json(file.read_json(), str(file))


def json_text(table: Table) -> str:
    """Return the board and its rows as JSON: objects with a key per line, lists of numbers and strings on one line."""
    content = {"schema": SCHEMA, "rank_rule": RANK_RULE, "rows": records(table), "board": to_json(table.board)}
    return "".join(_pretty(content)) + "\n"


def to_json(board: Board) -> dict[str, Any]:
    """Return `board` in plain JSON types; measured numbers have `DIGITS` decimals, settings are unchanged."""
    content = {f.name: getattr(board, f.name) for f in fields(board)} | {"corpus": asdict(board.corpus)}
    content["search"] = asdict(board.search) if board.search else None
    content["compared"] = [asdict(other) for other in board.compared]
    content["entries"] = [
        {f.name: getattr(entry, f.name) for f in fields(entry)}
        | {"runs": [{f.name: getattr(run, f.name) for f in fields(run)} for run in entry.runs]}
        for entry in board.entries
    ]
    plain: dict[str, Any] = _plain(content)
    return plain


def from_json(content: Any, source: str = "leaderboard") -> Board:
    """Return the board in the content of a leaderboard.json. Raises `ArtifactError` that names `source`."""
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        schema = content.get("schema") if isinstance(content, dict) else None
        raise ArtifactError(f"{source}: schema {schema}, this version reads {SCHEMA}; make the leaderboard again")
    try:
        board = dict(content["board"])
        board["corpus"] = CorpusFacts(**board["corpus"])
        board["entries"] = [_entry(entry, len(board["classes"])) for entry in board["entries"]]
        board["search"] = _search(board["search"]) if board.get("search") else None
        board["compared"] = [
            Compared(**other | {"rows": [ComparedRow(**row) for row in other["rows"]]})
            for other in board.get("compared", [])
        ]
        return Board(**board)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{source}: damaged or incomplete ({error}); make the leaderboard again") from None


def _entry(content: dict[str, Any], n_classes: int) -> Entry:
    runs = []
    for run in content["runs"]:
        rows = run["probabilities"]
        runs.append(Run(**run | {"probabilities": np.array(rows, dtype=np.float32).reshape(len(rows), n_classes)}))
    return Entry(**content | {"runs": runs})


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
    """Yield the pieces of indented JSON in which a list of plain values, such as probabilities, is a single line."""
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
