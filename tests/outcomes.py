"""Helpers to write the outcomes of prepare without decoding anything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from genre.features.schema import OUTCOME_SCHEMA, SCAN_SCHEMA
from genre.storage import Location

Row = dict[str, Any]
_PART = b"clips"  # the content of each part


def scanned(names: Iterable[str], modified: float = 1.0) -> pa.Table:
    """Return a scan with a track for each name, of genre a and b in turn."""
    rows = [
        {"track_id": name, "path": f"/{name}", "genre": "ab"[i % 2], "size": 10, "modified": modified}
        for i, name in enumerate(names)
    ]
    return pa.Table.from_pylist(rows, SCAN_SCHEMA)


def outcome(name: str, part: str | None = "00001-x.parquet", modified: float = 1.0, **facts: object) -> Row:
    """Return the outcome of a track whose clips are in `part`; of a reject without a part."""
    done = {"content": f"c{name}", "sound": f"s{name}", "seconds": 1.0, "truncated": False, "clips": 1}
    done |= {"part": part, "part_bytes": len(_PART)}
    base = {"track_id": name, "path": f"/{name}", "size": 10, "modified": modified}
    return base | (done if part else {"reason": "empty", "message": "the file has no bytes"}) | facts


def write_outcomes(folder: Location, name: str, *rows: Row, with_part: bool = True) -> None:
    """Write a file of outcomes, and the part of the same name."""
    (folder / "outcomes" / name).write_table(pa.Table.from_pylist(list(rows), OUTCOME_SCHEMA))
    if with_part:
        (folder / "clips" / name).write_bytes(_PART)


def ids(table: pa.Table) -> str:
    """Return the track ids of a table, sorted and joined."""
    return "".join(sorted(table["track_id"].to_pylist()))
