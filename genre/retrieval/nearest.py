"""Exact search: the vectors with the highest cosine to a query, as matrix products over blocks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from genre.features import Float32
from genre.features.clips import Ints

_DIGITS = 6  # of a cosine; products of equal rows differ in the last bits by the place of the row in its block


def nearest(blocks: Iterable[Float32], query: Float32, count: int) -> tuple[Ints, Float32]:
    """Return the rows with the highest cosines to `query`, best first, and these cosines.

    `blocks` are (rows, size) of norm 1, `query` is (size,) of norm 1. Of equal cosines the lower row comes first.
    Products are summed in float32. Memory holds one block and the best `count` rows.
    """
    rows, cosines, begin = np.zeros(0, np.int64), np.zeros(0, np.float32), 0
    for block in blocks:
        found = np.round(block @ query, _DIGITS)
        numbers = np.arange(begin, begin + len(block))
        begin += len(block)
        if len(rows) == count and count:  # most rows of most blocks are worse than all that are kept
            better = found > cosines[-1]
            numbers, found = numbers[better], found[better]
        rows, cosines = _best(np.concatenate([rows, numbers]), np.concatenate([cosines, found]), count)
    return rows, cosines


def _best(rows: Ints, cosines: npt.NDArray[np.float32], count: int) -> tuple[Ints, Float32]:
    """Return the `count` highest cosines, sorted; `rows` ascend where cosines are equal."""
    order = np.argsort(-cosines, kind="stable")[:count]
    return rows[order], cosines[order]
