"""Helpers for columns of Arrow tables."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from genre.arrays import Ints


def combined(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array."""
    array = column.combine_chunks()
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def replaced(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return the table with other values in a column, at the same position and with the same field."""
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)


def last_rows(column: pa.ChunkedArray) -> Ints:
    """Return, for each value of a column, the last row that has it; the rows ascend."""
    codes = combined(column).dictionary_encode()
    last = np.zeros(len(codes.dictionary), np.int64)
    last[codes.indices.to_numpy()] = np.arange(len(codes))  # of several assignments the last one counts
    return np.sort(last)
