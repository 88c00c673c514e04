"""Rows found in a column."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given
from hypothesis import strategies as st

from genre.features.columns import RowIndex

IDS = st.lists(st.text("ab", max_size=4), max_size=40)


@given(column=IDS, values=IDS)
def test_the_rows_are_those_of_arrow(column: list[str], values: list[str]) -> None:
    long, few = pa.array(column, pa.string()), pa.array(values, pa.string())
    assert RowIndex(long).find(few).to_pylist() == pc.index_in(few, value_set=long).to_pylist()


def test_a_column_longer_than_what_is_hashed_at_a_time() -> None:
    column = pa.array([str(number * 7919 % 100_003) for number in range(100_003)])
    rows = RowIndex(column).find(pa.array(["0", "7919", "absent", "99999"]))
    assert rows.to_pylist()[:3] == [0, 1, None]
    assert column[rows[3].as_py()].as_py() == "99999"
