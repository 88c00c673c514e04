"""The tables of a tagged collection that people and other programs read, made from rows of the tag table."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from genre.arrays import Float32, Ints
from genre.features.columns import combined
from genre.model.calibration import UNKNOWN, Calibration
from genre.spreadsheet import inert_table
from genre.storage import Location
from genre.tagging.albums import Albums

_SHARE = 0.5  # of the probability of the reported genre, from which a further genre is written


@dataclass(frozen=True)
class Predictions:
    """What is reported for the readable files of a collection."""

    probabilities: Float32  # (files, classes), calibrated
    genre: Ints  # (files,) index of the class, or -1: unknown
    album: list[str | None] | None = None  # how it relates to the album's, see `Albums.decide`

    @classmethod
    def of(cls, probabilities: Float32, calibration: Calibration) -> Predictions:
        """Return the predictions of the files by themselves."""
        return cls(probabilities, calibration.reported(probabilities))

    def with_albums(self, albums: Albums, tracks: Ints) -> Predictions:
        """Return the predictions combined with the albums'; `tracks` (files,) are indices in the list of `albums`."""
        return Predictions(self.probabilities, *albums.decide(tracks, self.genre))

    def genres(self, classes: list[str], most: int) -> list[list[str]]:
        """Return what to write into each file: the reported genre, then others, at most `most`; none when unknown.

        Others have at least half of its probability. With a genre from the album there are none.
        """
        result = []
        for genre, row in zip(self.genre.tolist(), self.probabilities, strict=True):
            order = np.argsort(-row, kind="stable")[:most]
            chosen = order[row[order] >= _SHARE * row[genre]].tolist() if genre == order[0] else [genre]
            result.append([classes[index] for index in chosen] if genre >= 0 else [])
        return result


def tags_table(rows: pa.Table, classes: list[str], predictions: Predictions, top_k: int) -> pa.Table:
    """Return path, genre (or unknown), probability of best, best (always a genre), next best, seconds, own genre.

    With albums, the last column says how the genre relates to that of the album.
    """
    ranked = _ranked_columns(predictions.probabilities, classes, top_k)
    best, probability = ranked.pop("genre"), ranked.pop("probability")
    names = pa.array([*classes, UNKNOWN], pa.string()).take(pa.array(predictions.genre % (len(classes) + 1)))
    first = {"path": rows["path"], "genre": names, "probability": probability, "best": best}
    album = {} if predictions.album is None else {"album": pa.array(predictions.album, pa.string())}
    return pa.table(first | ranked | {"seconds": rows["seconds"], "own_genre": rows["own_genre"]} | album)


def timeline_table(rows: pa.Table, classes: list[str], top_k: int) -> pa.Table:
    """Return path, start and end in seconds, and the best genres of each clip."""
    timelines = combined(rows["timeline"])
    moments = pc.list_flatten(timelines)
    probabilities = matrix(pc.struct_field(moments, "probabilities"), len(classes))
    columns = {
        "path": combined(rows["path"]).take(pc.list_parent_indices(timelines)),
        "start": pc.struct_field(moments, "start"),
        "end": pc.struct_field(moments, "end"),
    }
    return pa.table(columns | _ranked_columns(probabilities, classes, top_k))


class ResultFiles:
    """Writes tags (Parquet, CSV, JSON Lines), timeline (Parquet, CSV) and failures (CSV), some rows at a time.

    The files appear when `stack` closes without an error.
    """

    def __init__(self, stack: contextlib.ExitStack, folder: Location, classes: list[str], top_k: int) -> None:
        self._stack, self._folder = stack, folder
        self._classes, self._top_k = classes, top_k
        self._writers: dict[str, Any] = {}

    def write(self, tagged: pa.Table, predictions: Predictions, failed: pa.Table) -> None:
        """Write rows of the tag table: those of readable files with their predictions, and the others."""
        tags = tags_table(tagged, self._classes, predictions, self._top_k)
        tables = {"tags": tags, "timeline": timeline_table(tagged, self._classes, self._top_k)}
        for name, table in tables.items():
            self._write_table(f"{name}.parquet", table)
            self._write_csv(f"{name}.csv", table)
        self._write_lines("tags.jsonl", tags)
        self._write_csv("failures.csv", failed.select(["path", "reason", "message"]))

    def _write_table(self, name: str, table: pa.Table) -> None:
        if name not in self._writers:
            self._writers[name] = self._stack.enter_context((self._folder / name).table_writer(table.schema))
        self._writers[name].write_table(table)

    def _write_lines(self, name: str, table: pa.Table) -> None:
        if name not in self._writers:
            self._writers[name] = self._stack.enter_context((self._folder / name).open_output())
        self._writers[name].write(json_lines(table))

    def _write_csv(self, name: str, table: pa.Table) -> None:
        if name not in self._writers:
            stream = self._stack.enter_context((self._folder / name).open_output())
            self._writers[name] = self._stack.enter_context(pyarrow.csv.CSVWriter(stream, table.schema))
        self._writers[name].write_table(inert_table(table))


def json_lines(table: pa.Table) -> bytes:
    """Return an object for each row, in a line each; probabilities with six decimals."""
    for number, column in enumerate(table.columns):
        if pa.types.is_float32(column.type):
            table = table.set_column(number, table.column_names[number], pc.round(column.cast(pa.float64()), 6))
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in table.to_pylist()).encode()


def matrix(probabilities: pa.ListArray, classes: int) -> Float32:
    """Return a column of lists as (rows, classes)."""
    values: Float32 = pc.list_flatten(probabilities).to_numpy(zero_copy_only=False)
    return values.reshape(-1, classes)


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
