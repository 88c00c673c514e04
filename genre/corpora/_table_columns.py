"""Which columns of a table may hold the names of artists or albums."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from genre.corpora._table_file import TableFile

_ROWS = 20_000  # that are read; all values of a million titles would need memory for nothing
_SHARE = 0.9  # of values that are no names, from which the column has none
# numbers, durations, dates and times: 12, 3,5 min, 03:45, 2021-03-04T12:00:00Z, 4. März 2021; PT3M45S; Mar 4, 2021
_NO_NAME = (
    r"^\W*\d[^\pL]*(\pL{1,9}[^\pL]*){0,3}$"
    r"|^P(\d+[YMWD])*(T(\d+H)?(\d+M)?([\d.]+S)?)?$"
    r"|^\pL{2,9}[.,]* +\d{1,2}[^\pL]*(\pL{2,9}[^\pL]*)?\d{4}([^\pL]*)$"
)


def columns_of_names(table: TableFile) -> list[str]:
    """Return the other columns of a table that may name artists, by its first rows.

    Columns of numbers, durations or dates are none, nor are those with a value of its own in each row, or one in all.
    """
    return [name for name, values in table.others_begin(_ROWS).items() if _may_name(values)]


def _may_name(values: pa.ChunkedArray) -> bool:
    values = values.drop_null()
    different = pc.count_distinct(values).as_py()
    if different < 2 or different == len(values):
        return False
    no_names = pc.sum(pc.match_substring_regex(values, _NO_NAME)).as_py() or 0
    return bool(no_names < _SHARE * len(values))
