"""Predictions of a board as Parquet, in the folder `predictions` next to its leaderboard.json.

    predictions/tracks.parquet            track_id, genre, group: the tracks of the split, in order
    predictions/<model>-<seed>.parquet    track_id, genre, and a column p_<genre> for each genre: its probability;
                                          where the nearest training tracks voted, also neighbour_<n>,
                                          neighbour_<n>_genre and neighbour_<n>_cosine of the n-th of them

leaderboard.json names each file with its SHA-256, so that predictions are never read with the facts of other ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre.arrays import Float32, Ints
from genre.errors import ArtifactError
from genre.report.board import Board, SeedRun
from genre.retrieval.neighbours import Neighbours
from genre.storage import Location

FOLDER = "predictions"
PREFIX = "p_"  # of a column of probabilities: a genre may be called track_id
_TRACKS = "tracks.parquet"
_LONGEST = 100  # characters of a model's name in that of its file
_OPTIONS: dict[str, Any] = {"compression": "zstd", "use_dictionary": ["genre", "group"]}


@dataclass(frozen=True)
class StoredFile:
    """A file of the folder, and the SHA-256 of its content."""

    name: str
    sha256: str

    def __post_init__(self) -> None:
        if "/" in self.name:
            raise ValueError(f"{self.name} is not in the folder {FOLDER}")


@dataclass(frozen=True)
class StoredFiles:
    """The files of a board."""

    tracks: StoredFile
    runs: list[list[StoredFile]]  # of each entry, one for each of its runs


def write(board: Board, folder: Location) -> StoredFiles:
    """Write the predictions of a board below the `folder` of its leaderboard, each file atomically."""
    genres = _names_of(board.truth, board.classes)
    tracks = pa.table({"track_id": pa.array(board.track_ids, pa.string()), "genre": genres})
    groups = pa.array(board.groups, pa.string()) if board.groups else pa.nulls(len(tracks), pa.string())
    names: set[str] = set()
    return StoredFiles(
        _write_file(tracks.append_column("group", groups), folder, _TRACKS),
        [
            [
                _write_file(_table(tracks, board.classes, run), folder, _file_name(entry.name, run, names))
                for run in entry.runs
            ]
            for entry in board.entries
        ],
    )


def delete_others(folder: Location, files: StoredFiles) -> None:
    """Delete the prediction files that `files` does not name, such as those of models that have left the board."""
    names = {files.tracks.name, *(file.name for runs in files.runs for file in runs)}
    for file in (folder / FOLDER).files(".parquet"):
        if file.name not in names:
            file.delete()


def read_tracks(folder: Location, file: StoredFile, classes: Sequence[str]) -> tuple[list[str], Ints, Any]:
    """Return the ids, the class indices and the groups (None without any) of the tracks. Raises `ArtifactError`."""
    table = _read_file(folder, file)
    truth = _indices(table["genre"], classes)
    groups = None if table["group"].null_count else table["group"].to_pylist()
    return table["track_id"].to_pylist(), truth, groups if len(table) else None


def read_run(folder: Location, file: StoredFile, classes: Sequence[str]) -> tuple[Float32, Neighbours | None]:
    """Return the probabilities (tracks, classes) and the neighbours, if any, of a run. Raises `ArtifactError`."""
    table = _read_file(folder, file)
    columns = [column.to_numpy() for column in table.columns[2 : 2 + len(classes)]]
    probabilities = np.stack(columns, axis=1) if columns else np.zeros((len(table), 0), np.float32)
    return probabilities, _neighbours(table, classes)


def _table(tracks: pa.Table, classes: Sequence[str], run: SeedRun) -> pa.Table:
    """Return the content of the file of a run."""
    columns = [pa.array(column) for column in np.ascontiguousarray(run.probabilities.T)]
    names = [*tracks.column_names, *(f"{PREFIX}{name}" for name in classes)]
    table = pa.Table.from_arrays([*tracks.columns, *columns], names=names)
    nearest = run.neighbours
    if nearest is None:
        return table
    for place in range(nearest.track_ids.shape[1]):
        genres = _names_of(nearest.genres[:, place], classes)
        values = (pa.array(nearest.track_ids[:, place], pa.string()), genres, pa.array(nearest.cosines[:, place]))
        for name, column in zip(neighbour_columns(place), values, strict=True):
            table = table.append_column(name, column)
    return table


def neighbour_columns(place: int) -> tuple[str, str, str]:
    """Return the names of the columns with the track, the genre and the cosine of a neighbour; 0 is the nearest."""
    name = f"neighbour_{place + 1}"
    return name, f"{name}_genre", f"{name}_cosine"


def _neighbours(table: pa.Table, classes: Sequence[str]) -> Neighbours | None:
    """Return the neighbours in the file of a run, None where it has none."""
    count = (table.num_columns - 2 - len(classes)) // 3  # behind track_id, genre and the probabilities, three for each
    if not count:
        return None
    columns = ([table[name] for name in neighbour_columns(place)] for place in range(count))
    tracks, genres, cosines = zip(*columns, strict=True)
    return Neighbours(
        np.stack([column.to_numpy() for column in tracks], axis=1),
        np.stack([_indices(column, classes) for column in genres], axis=1),
        np.stack([column.to_numpy() for column in cosines], axis=1),
    )


def _names_of(indices: Ints, classes: Sequence[str]) -> pa.Array:
    genres = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(classes, pa.string()))
    return genres.cast(pa.string())


def _indices(genres: pa.ChunkedArray, classes: Sequence[str]) -> Ints:
    indices: Ints = pc.index_in(genres, pa.array(classes, pa.string())).to_numpy().astype(np.int64)
    return indices


def _file_name(model: str, run: SeedRun, taken: set[str]) -> str:
    """Return a name that any file system takes and that differs from those `taken`, and add it to them."""
    stem = f"{re.sub(r'[^a-zA-Z0-9_.]+', '-', model).strip('-.')[:_LONGEST] or 'model'}-{run.seed}"
    name, number = stem, 1
    while name.lower() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.lower())
    return f"{name}.parquet"


def _write_file(table: pa.Table, folder: Location, name: str) -> StoredFile:
    file = folder / FOLDER / name
    file.write_table(table, **_OPTIONS)
    return StoredFile(name, file.sha256())


def _read_file(folder: Location, file: StoredFile) -> pa.Table:
    location = folder / FOLDER / file.name
    if not location.exists():
        raise ArtifactError(f"{location}: no such file; make the leaderboard again")
    if location.sha256() != file.sha256:
        raise ArtifactError(f"{location}: not the predictions that leaderboard.json lists; make the leaderboard again")
    return location.read_table()
