"""Rows of several Parquet files in any order, read a few at a time, so that memory never holds the files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from genre.arrays import Ints
from genre.storage import Location


class RowFiles:
    """Parquet files that have the columns of `schema`. Their row groups should be small: they are read as a whole."""

    def __init__(self, schema: pa.Schema, files: Sequence[Location] = ()) -> None:
        self._schema = schema
        self._files = list(files)

    def add(self, file: Location) -> int:
        """Add a file, and return its number."""
        self._files.append(file)
        return len(self._files) - 1

    def take(self, file: Ints, row: Ints) -> pa.Table:
        """Return the rows with these numbers of these files, in this order."""
        tables, places = [self._schema.empty_table()], [np.zeros(0, np.int64)]
        for number in np.unique(file):
            place = np.flatnonzero(file == number)
            tables.append(self._read(self._files[number], row[place]))
            places.append(place)
        return pa.concat_tables(tables).take(np.argsort(np.concatenate(places)))

    def _read(self, file: Location, rows: Ints) -> pa.Table:
        """Return these rows of a file, from the row groups that hold them."""
        with file.open_parquet() as reader:
            sizes = [reader.metadata.row_group(number).num_rows for number in range(reader.num_row_groups)]
            starts = np.cumsum([0, *sizes])
            groups, which = np.unique(np.searchsorted(starts, rows, side="right") - 1, return_inverse=True)
            table = reader.read_row_groups(groups.tolist(), columns=self._schema.names)
        begins = np.cumsum([0, *(sizes[group] for group in groups)])
        return table.take(begins[which] + rows - starts[groups[which]]).cast(self._schema)
