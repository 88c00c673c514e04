"""The tables of a tagged collection that people and other programs read, made from rows of the tag table."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from genre.features import Float32
from genre.features.columns import combined
from genre.model.calibration import UNKNOWN, Calibration
from genre.spreadsheet import FORMULA
from genre.storage import Location


def tags_table(rows: pa.Table, classes: list[str], calibration: Calibration, top_k: int) -> pa.Table:
    """Return path, genre (or unknown), its probability, best (always a genre), the next best genres, seconds."""
    probabilities = _matrix(combined(rows["probabilities"]), classes)
    accepted = pa.array([calibration.accepts(int(row.argmax()), float(row.max())) for row in probabilities], pa.bool_())
    ranked = _ranked_columns(probabilities, classes, top_k)
    best = ranked.pop("genre")
    probability = ranked.pop("probability")
    first = {"path": rows["path"], "genre": pc.if_else(accepted, best, UNKNOWN), "probability": probability}
    return pa.table(first | {"best": best} | ranked | {"seconds": rows["seconds"]})


def timeline_table(rows: pa.Table, classes: list[str], top_k: int) -> pa.Table:
    """Return path, start and end in seconds, and the best genres of each clip."""
    timelines = combined(rows["timeline"])
    moments = pc.list_flatten(timelines)
    probabilities = _matrix(pc.struct_field(moments, "probabilities"), classes)
    columns = {
        "path": combined(rows["path"]).take(pc.list_parent_indices(timelines)),
        "start": pc.struct_field(moments, "start"),
        "end": pc.struct_field(moments, "end"),
    }
    return pa.table(columns | _ranked_columns(probabilities, classes, top_k))


class ResultFiles:
    """Writes tags and timeline (Parquet and CSV) and failures (CSV), some rows of the tag table at a time.

    The files appear when `stack` closes without an error.
    """

    def __init__(
        self, stack: contextlib.ExitStack, folder: Location, classes: list[str], calibration: Calibration, top_k: int
    ) -> None:
        self._stack, self._folder = stack, folder
        self._classes, self._calibration, self._top_k = classes, calibration, top_k
        self._writers: dict[str, Any] = {}

    def write(self, rows: pa.Table) -> pa.Array:
        """Write the results of `rows`, and return the genre of each, null where it could not be read."""
        readable = pc.is_null(rows["reason"])
        tagged, failed = rows.filter(readable), rows.filter(pc.invert(readable))
        tags = tags_table(tagged, self._classes, self._calibration, self._top_k)
        tables = {"tags": tags, "timeline": timeline_table(tagged, self._classes, self._top_k)}
        for name, table in tables.items():
            self._write_table(f"{name}.parquet", table)
            self._write_csv(f"{name}.csv", table)
        self._write_csv("failures.csv", failed.select(["path", "reason", "message"]))
        mask = readable.to_numpy()
        return combined(tags["genre"]).take(pa.array(np.cumsum(mask) - 1, mask=~mask))

    def _write_table(self, name: str, table: pa.Table) -> None:
        if name not in self._writers:
            self._writers[name] = self._stack.enter_context((self._folder / name).table_writer(table.schema))
        self._writers[name].write_table(table)

    def _write_csv(self, name: str, table: pa.Table) -> None:
        if name not in self._writers:
            stream = self._stack.enter_context((self._folder / name).open_output())
            self._writers[name] = self._stack.enter_context(pyarrow.csv.CSVWriter(stream, table.schema))
        self._writers[name].write_table(_inert(table))


def csv_bytes(table: pa.Table) -> bytes:
    """Return `table` as CSV, with an apostrophe before each text that a spreadsheet would run as a formula."""
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(_inert(table), buffer)
    return buffer.getvalue()


def _inert(table: pa.Table) -> pa.Table:
    for number, column in enumerate(table.columns):
        if pa.types.is_string(column.type):
            is_formula = pc.match_substring_regex(column, FORMULA)
            inert = pc.if_else(is_formula, pc.binary_join_element_wise("'", column, ""), column)
            table = table.set_column(number, table.field(number), inert)
    return table


def _matrix(probabilities: pa.ListArray, classes: list[str]) -> Float32:
    """Return a column of lists as (rows, classes)."""
    values: Float32 = pc.list_flatten(probabilities).to_numpy(zero_copy_only=False)
    return values.reshape(-1, len(classes))


def _ranked_columns(probabilities: Float32, classes: list[str], top_k: int) -> dict[str, pa.Array]:
    """Return genre, probability, genre_2, probability_2, ... of rows of `probabilities` (rows, classes)."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    columns: dict[str, pa.Array] = {}
    for rank in range(min(top_k, len(classes))):
        suffix = "" if rank == 0 else f"_{rank + 1}"
        indices = order[:, rank]
        columns[f"genre{suffix}"] = pa.array(classes, pa.string()).take(pa.array(indices))
        columns[f"probability{suffix}"] = pa.array(probabilities[np.arange(len(indices)), indices], pa.float32())
    return columns
