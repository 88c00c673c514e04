"""Exact search compared with a search that sorts everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from genre.arrays import Float32
from genre.retrieval.nearest import nearest, nearest_to_each

# products of small integers are exact in float32, so that equal cosines are equal
_INTEGERS = st.integers(-3, 3)


@st.composite
def searches(draw: st.DrawFn) -> tuple[Float32, Float32, list[int], int]:
    """Return vectors, a query, the ends of the blocks, and how many rows to find."""
    rows, size = draw(st.integers(0, 40)), draw(st.integers(1, 4))
    vectors = draw(hnp.arrays(np.float32, (rows, size), elements=_INTEGERS))
    query = draw(hnp.arrays(np.float32, size, elements=_INTEGERS))
    ends = sorted(draw(st.lists(st.integers(0, rows), max_size=5)))
    return vectors, query, ends, draw(st.integers(0, 45))


@given(searches())
def test_the_rows_are_those_of_a_search_that_sorts_everything(
    search: tuple[Float32, Float32, list[int], int],
) -> None:
    """Of equal cosines the lower row is first, however the rows are cut into blocks."""
    vectors, query, ends, count = search
    rows, cosines = nearest(iter(np.split(vectors, ends)), query, count)
    products = [float(sum(a * b for a, b in zip(vector, query, strict=True))) for vector in vectors]
    expected = sorted(range(len(vectors)), key=lambda row: (-products[row], row))[:count]
    assert rows.tolist() == expected
    assert cosines.tolist() == [products[row] for row in expected]


@given(searches(), st.integers(1, 4))
def test_the_search_for_many_is_the_search_for_each(
    search: tuple[Float32, Float32, list[int], int], repeats: int
) -> None:
    vectors, query, _, count = search
    count = min(count, len(vectors))
    if not count:
        with pytest.raises(ValueError, match="0 neighbours"):
            nearest_to_each(vectors, query[None], count)
        return
    queries = np.stack([number * query for number in range(repeats)])  # among them one of zeros
    for row, cosines, each in zip(*nearest_to_each(vectors, queries, count), queries, strict=True):
        rows, expected = nearest(iter([vectors]), each, count)
        assert row.tolist() == rows.tolist()
        assert cosines.tolist() == expected.tolist()


def test_copies_of_a_track_come_in_their_order_wherever_they_are() -> None:
    """The last bits of a product depend on the place of a row in its block, which must not decide the order."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(3000, 61)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    copies = [5, 17, 1001, 1002, 2047, 2999]
    vectors[copies] = vectors[5]
    for size in (7, 1000, 3000):
        blocks = [vectors[begin : begin + size] for begin in range(0, 3000, size)]
        rows, _ = nearest(blocks, vectors[5], 6)
        assert rows.tolist() == copies
    rows, _ = nearest_to_each(vectors, np.repeat(vectors[[5, 17]], 300, axis=0), 6)
    assert (rows == copies).all()
