"""The tables of a tagged collection that people and other programs read, made from rows of the tag table."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from genre.features import Float32
from genre.model.calibration import UNKNOWN, Calibration
from genre.spreadsheet import FORMULA


def tags_table(rows: pa.Table, classes: list[str], calibration: Calibration, top_k: int) -> pa.Table:
    """Return path, genre (or unknown), its probability, best (always a genre), the next best genres, seconds."""
    probabilities = np.array(rows["probabilities"].to_pylist(), np.float32).reshape(len(rows), len(classes))
    ranked = _ranked_columns(probabilities, classes, top_k)
    best = ranked.pop("genre")
    probability = ranked.pop("probability")
    accepted = [calibration.accepts(value) for value in probability.to_pylist()]
    genres = [genre if accept else UNKNOWN for genre, accept in zip(best.to_pylist(), accepted, strict=True)]
    first = {"path": rows["path"], "genre": pa.array(genres, pa.string()), "probability": probability}
    return pa.table(first | {"best": best} | ranked | {"seconds": rows["seconds"]})


def timeline_table(rows: pa.Table, classes: list[str], top_k: int) -> pa.Table:
    """Return path, start and end in seconds, and the best genres of each clip."""
    moments = [
        (row["path"], moment) for row in rows.select(["path", "timeline"]).to_pylist() for moment in row["timeline"]
    ]
    probabilities = np.array([moment["probabilities"] for _, moment in moments], np.float32)
    columns = {
        "path": pa.array([path for path, _ in moments], pa.string()),
        "start": pa.array([moment["start"] for _, moment in moments], pa.float32()),
        "end": pa.array([moment["end"] for _, moment in moments], pa.float32()),
    }
    return pa.table(columns | _ranked_columns(probabilities.reshape(len(moments), len(classes)), classes, top_k))


def csv_bytes(table: pa.Table) -> bytes:
    """Return `table` as CSV, with an apostrophe before each text that a spreadsheet would run as a formula."""
    for number, column in enumerate(table.columns):
        if pa.types.is_string(column.type):
            is_formula = pc.match_substring_regex(column, FORMULA)
            inert = pc.if_else(is_formula, pc.binary_join_element_wise("'", column, ""), column)
            table = table.set_column(number, table.field(number), inert)
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(table, buffer)
    return buffer.getvalue()


def _ranked_columns(probabilities: Float32, classes: list[str], top_k: int) -> dict[str, pa.Array]:
    """Return genre, probability, genre_2, probability_2, ... of rows of `probabilities` (rows, classes)."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    columns: dict[str, pa.Array] = {}
    for rank in range(min(top_k, len(classes))):
        suffix = "" if rank == 0 else f"_{rank + 1}"
        indices = order[:, rank]
        columns[f"genre{suffix}"] = pa.array([classes[index] for index in indices], pa.string())
        columns[f"probability{suffix}"] = pa.array(probabilities[np.arange(len(indices)), indices], pa.float32())
    return columns
