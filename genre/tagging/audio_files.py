"""The audio files to tag: one file, or every audio file of a collection."""

from __future__ import annotations

import itertools
import os
from typing import Any

import pyarrow as pa

from genre import corpora
from genre.storage import Location

FILES = pa.schema([("path", pa.string()), ("size", pa.int64()), ("modified", pa.float64())])
_BATCH = 10_000  # files that are objects at a time


def list_files(inputs: str) -> pa.Table:
    """Return every audio file below `inputs`, or `inputs` itself when it is a file: a row of `FILES` each.

    Raises `ConfigError` when there is none.
    """
    if (song := single_file(inputs)) is not None:
        return pa.Table.from_pylist([file_row(song)], FILES)
    files = iter(corpora.walk(corpora.open_folder(inputs, "inputs"), "inputs"))
    batches = []
    while some := list(itertools.islice(files, _BATCH)):
        columns = [[getattr(file, name) for file in some] for name in FILES.names]
        batches.append(pa.record_batch(columns, schema=FILES))
    return pa.Table.from_batches(batches, FILES)


def single_file(inputs: str) -> Location | None:
    """Return the location that `inputs` names when it is a file, None when it is a folder or missing."""
    location = corpora.open_root(inputs, "inputs")
    return location if location.exists() and not location.is_folder() else None


def file_row(location: Location) -> dict[str, Any]:
    """Return the row of `FILES` of an existing file, the same as listing its folder gives."""
    if location.is_local:
        status = os.stat(location.path)
        return {"path": str(location), "size": status.st_size, "modified": status.st_mtime}
    size, modified = corpora.size_and_time(location.filesystem.get_file_info(location.path))
    return {"path": str(location), "size": size, "modified": modified}


def block_size(files: int, limit: int, processes: int) -> int:
    """Return the number of files in a block: at most `limit`, fewer in a small collection, so that all processes work.

    Each process has several blocks, so that all end at about the same time.
    """
    return min(limit, max(1, -(-files // (4 * processes))))
