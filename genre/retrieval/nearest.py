"""Exact search: the vectors with the highest cosine to one query or to each of many, as matrix products over blocks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from genre.arrays import Float32, Ints

_DIGITS = 6  # of a cosine; products of equal rows differ in the last bits by the place of the row in its block
_QUERIES = 256  # at a time: with 20,000 vectors their cosines and keys are 60 MB


def nearest(blocks: Iterable[Float32], query: Float32, count: int) -> tuple[Ints, Float32]:
    """Return the rows with the highest cosines to `query`, best first, and these cosines.

    `blocks` are (rows, size) of norm 1, `query` is (size,) of norm 1. Of equal cosines the lower row comes first.
    Products are summed in float32. Memory holds one block and the best `count` rows.
    """
    rows, cosines, begin = np.zeros(0, np.int64), np.zeros(0, np.float32), 0
    for block in blocks:
        block_cosines = np.round(block @ query, _DIGITS)
        block_rows = np.arange(begin, begin + len(block))
        begin += len(block)
        if len(rows) == count and count:  # most rows of most blocks are worse than all that are kept
            better = block_cosines > cosines[-1]
            block_rows, block_cosines = block_rows[better], block_cosines[better]
        rows, cosines = _best(np.concatenate([rows, block_rows]), np.concatenate([cosines, block_cosines]), count)
    return rows, cosines


def nearest_to_each(vectors: Float32, queries: Float32, count: int) -> tuple[Ints, Float32]:
    """Return the rows and cosines of `nearest` for each query, (queries, count) each.

    `vectors` (rows, size) and `queries` (queries, size) have norm 1 or 0. Raises `ValueError` unless 0 < count <= rows.
    """
    if not 0 < count <= len(vectors):
        raise ValueError(f"{count} neighbours of {len(vectors)} vectors")
    rows, cosines = np.zeros((len(queries), count), np.int64), np.zeros((len(queries), count), np.float32)
    for begin in range(0, len(queries), _QUERIES):
        block = slice(begin, begin + _QUERIES)
        products = queries[block] @ vectors.T
        # one number that sorts by cosine and then by row, so that equal cosines have one order on every machine
        keys = np.rint(products * 10**_DIGITS).astype(np.int64) * len(vectors) - np.arange(len(vectors))
        best = np.argpartition(-keys, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(keys, best, axis=1), axis=1)
        rows[block] = np.take_along_axis(best, order, axis=1)
        cosines[block] = np.round(np.take_along_axis(products, rows[block], axis=1), _DIGITS)
    return rows, cosines


def _best(rows: Ints, cosines: Float32, count: int) -> tuple[Ints, Float32]:
    """Return the `count` highest cosines, sorted; `rows` ascend where cosines are equal."""
    order = np.argsort(-cosines, kind="stable")[:count]
    return rows[order], cosines[order]
