"""Helpers for columns of Arrow tables, and for the numbers of their rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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


def connected(pairs: Ints, count: int) -> Ints:
    """Return the lowest number that each of `count` numbers is connected with by `pairs` (pairs, 2)."""
    if not len(pairs):
        return np.arange(count)
    from scipy.sparse import coo_matrix  # takes half a second
    from scipy.sparse.csgraph import connected_components

    edges = coo_matrix((np.ones(len(pairs), bool), pairs.T), shape=(count, count))
    _, component = connected_components(edges, directed=False)
    _, lowest = np.unique(component, return_index=True)
    return np.asarray(lowest[component], np.int64)


class RowIndex:
    """Finds the rows of values in a long column again and again; `pc.index_in` hashes the whole column each time."""

    _IN_BUCKET = 4  # values, on average
    _AT_A_TIME = 65536  # values that are strings of Python at the same time

    def __init__(self, column: pa.Array) -> None:
        """Keep `column`, and its rows sorted by the hashes of their values: 10 bytes a row."""
        self._column = column
        self._buckets = max(1, len(column) // self._IN_BUCKET)
        buckets = self._buckets_of(column)
        self._rows = np.argsort(buckets, kind="stable")
        self._edges = np.searchsorted(buckets[self._rows], np.arange(self._buckets + 1))

    def find(self, values: pa.Array) -> pa.Array:
        """Return the first row of each value like `pc.index_in`, null where the column lacks it: (values,) int64."""
        buckets = np.unique(self._buckets_of(values)).tolist()
        ranges = [self._rows[self._edges[bucket] : self._edges[bucket + 1]] for bucket in buckets]
        rows = pa.array(np.sort(np.concatenate([np.zeros(0, np.int64), *ranges])))
        return rows.take(pc.index_in(values, value_set=self._column.take(rows)))

    def _buckets_of(self, values: pa.Array) -> Ints:
        return np.fromiter(self._hashes(values), np.int64, len(values)) % self._buckets

    def _hashes(self, values: pa.Array) -> Iterator[int]:
        for begin in range(0, len(values), self._AT_A_TIME):
            yield from map(hash, values.slice(begin, self._AT_A_TIME).to_pylist())
