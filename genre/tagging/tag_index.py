"""The index of a tag table: what memory holds of each row, and where the row is."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre.features.columns import last_rows, replaced
from genre.tagging.audio_files import FILES
from genre.tagging.tag_rows import SCHEMA

KEYS = [*FILES.names, "content", "reason", "is_embedded", "has_clips"]
INDEX = pa.schema([*(SCHEMA.field(name) for name in KEYS), ("file", pa.int32()), ("row", pa.int64())])


def index_of(rows: pa.Table, file: int) -> pa.Table:
    """Return the index of the rows of a file, given its number."""
    count = len(rows)
    keys = rows.select(KEYS)
    for name in ("is_embedded", "has_clips"):
        keys = replaced(keys, name, pc.fill_null(rows[name], False))
    return (
        keys.append_column("file", pa.array(np.full(count, file, np.int32)))
        .append_column("row", pa.array(np.arange(count)))
        .cast(INDEX)
    )


def newest(index: pa.Table) -> pa.Table:
    """Return the last row of each path."""
    last = last_rows(index["path"])
    return index if len(last) == len(index) else index.take(last)
