"""The features folder: its schema, how a spectrogram becomes a row, and how rows become arrays.

    features/
      clips/*.parquet   one row a clip: track_id, clip, start_seconds, peak_db, spectrogram
      tracks.parquet    one row a track that has clips: track_id, genre, group, split, ...
      rejects.parquet   one row a track that has none: track_id, path, reason, message, ...
      manifest.json     schema, settings, fingerprint, counts, versions; written last

A spectrogram of shape (bins, frames) is stored row by row as unsigned bytes q in a fixed-size binary
column. Its level is `peak_db - range_db + q * range_db / 255` dB: the loudest point is 255, everything
`range_db` or more below it is 0. With 80 dB the error is at most 0.16 dB. docs/FEATURES.md describes
how to write such a folder with nothing but pyarrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genre.errors import ArtifactError
from genre.storage import Location

SCHEMA_VERSION = 1
SPLITS = ("train", "valid", "test")

Bytes = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

TRACK_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("path", pa.string()),
        ("genre", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("size", pa.int64()),
        ("modified", pa.float64()),
        ("content", pa.string()),  # SHA-256 of the file
        ("sound", pa.string()),  # SHA-256 of the spectrograms: equal for the same audio in two containers' copies
        ("seconds", pa.float64()),
        ("sample_rate", pa.int32()),
        ("channels", pa.int32()),
        ("truncated", pa.bool_()),
        ("clips", pa.int32()),
        ("part", pa.string()),  # the file in clips/ that holds them
        ("reason", pa.string()),  # null: the track has clips
        ("message", pa.string()),
    ]
)


@dataclass(frozen=True)
class Shape:
    """What every spectrogram of a folder has in common."""

    bins: int
    frames: int
    range_db: float
    frame_seconds: float  # from one frame to the next

    def clip_schema(self) -> pa.Schema:
        return pa.schema(
            [
                ("track_id", pa.string()),
                ("clip", pa.int32()),
                ("start_seconds", pa.float32()),
                ("peak_db", pa.float32()),
                ("spectrogram", pa.binary(self.bins * self.frames)),
            ],
            metadata={"bins": str(self.bins), "frames": str(self.frames), "range_db": str(self.range_db)},
        )


@dataclass(frozen=True)
class Clips:
    """Clips in memory, with the tracks they come from. Arrays only, so that processes can share them."""

    spectrograms: Bytes  # (clips, bins, frames)
    peak_db: Float32  # (clips,)
    track: npt.NDArray[np.int64]  # (clips,) row in the arrays below
    track_ids: npt.NDArray[np.str_]  # (tracks,)
    labels: npt.NDArray[np.int64]  # (tracks,) index into the folder's classes
    groups: npt.NDArray[np.str_]  # (tracks,) the track_id where no group is known
    shape: Shape

    def __len__(self) -> int:
        return len(self.spectrograms)

    def clip_labels(self) -> npt.NDArray[np.int64]:
        """(clips,) index into the folder's classes."""
        labels: npt.NDArray[np.int64] = self.labels[self.track]
        return labels


def encode(spectrogram: Float32, range_db: float) -> tuple[Bytes, float]:
    """(bins, frames) in dB -> the same shape in bytes, and the level of its loudest point."""
    peak = float(spectrogram.max())
    scaled = (spectrogram - np.float32(peak - range_db)) * np.float32(255 / range_db)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8), peak


def decode(spectrogram: Bytes, peak_db: Float32 | float, range_db: float) -> Float32:
    """Inverse of `encode`, for (bins, frames) or, with one peak each, (clips, bins, frames)."""
    floor = np.asarray(peak_db, dtype=np.float32)[..., None, None] - np.float32(range_db)
    return spectrogram.astype(np.float32) * np.float32(range_db / 255) + floor


def read_manifest(folder: Location) -> dict[str, Any]:
    """The manifest of a finished features folder, or an `ArtifactError` that says what is missing."""
    path = folder / "manifest.json"
    if not path.exists():
        state = "it was not finished, run prepare again" if folder.exists() else "there is no such folder, run prepare"
        raise ArtifactError(f"{folder}: no features here (manifest.json is missing); {state}")
    manifest: dict[str, Any] = path.read_json()
    if manifest.get("stage") != "features" or manifest.get("schema_version") != SCHEMA_VERSION:
        found = f"{manifest.get('stage')} version {manifest.get('schema_version')}"
        raise ArtifactError(f"{folder}: holds {found}, not features version {SCHEMA_VERSION}; prepare it again")
    return manifest


def shape_of(manifest: dict[str, Any]) -> Shape:
    return Shape(**manifest["shape"])


def read_tracks(folder: Location, split: str | None = None) -> pa.Table:
    """Tracks of a folder that have clips, sorted by track_id; all of them or those of one split."""
    table = (folder / "tracks.parquet").read_table()
    if split is not None:
        table = table.filter(pc.equal(table["split"], split))
    return table.sort_by("track_id")


def load(folder: Location, split: str) -> Clips:
    """All clips of one split, in memory.

    Raises `ArtifactError` when the folder is unfinished, was altered, or lacks clips that it lists.
    """
    manifest = read_manifest(folder)
    shape = shape_of(manifest)
    tracks = read_tracks(folder, split)
    index = {track: row for row, track in enumerate(tracks["track_id"].to_pylist())}
    wanted = _count(tracks)
    spectrograms = np.empty((wanted, shape.bins, shape.frames), dtype=np.uint8)
    peaks = np.empty(wanted, dtype=np.float32)
    rows = np.empty(wanted, dtype=np.int64)
    order = np.empty(wanted, dtype=np.int64)
    filled = 0
    for table in iter_clips(folder, tracks, shape):
        end = filled + len(table)
        if end > wanted:
            raise ArtifactError(f"{folder}: holds more clips than tracks.parquet lists; prepare it again")
        spectrograms[filled:end] = spectrogram_array(table, shape)
        peaks[filled:end] = table["peak_db"].to_numpy()
        rows[filled:end] = [index[track] for track in table["track_id"].to_pylist()]
        order[filled:end] = table["clip"].to_numpy()
        filled = end
    if filled != wanted:
        raise ArtifactError(
            f"{folder}: {wanted - filled} of {wanted} clips of split {split!r} are missing; prepare it again"
        )
    if not np.isfinite(peaks).all():
        raise ArtifactError(
            f"{folder}: peak_db holds NaN in split {split!r}; those spectrograms are unusable, remove them"
        )
    by_track = np.lexsort((order, rows))
    if not np.array_equal(by_track, np.arange(filled)):
        spectrograms, peaks, rows = spectrograms[by_track], peaks[by_track], rows[by_track]
    ids, labels = np.asarray(tracks["track_id"].to_pylist(), dtype=np.str_), _labels(tracks, manifest, folder)
    groups = np.asarray(_groups(tracks), dtype=np.str_)
    return Clips(spectrograms, peaks, rows, ids, labels, groups, shape)


def iter_clips(folder: Location, tracks: pa.Table, shape: Shape) -> Iterator[pa.Table]:
    """Tables of clip rows that belong to `tracks`, one Parquet row group at a time.

    Rows that `tracks` assigns to another file are leftovers of a changed track and are passed over.
    """
    has_part = "part" in tracks.column_names
    parts = set(tracks["part"].to_pylist()) if has_part else None
    schema = shape.clip_schema()
    for file in (folder / "clips").files(".parquet"):
        if parts is not None and file.name not in parts:
            continue
        live = tracks.filter(pc.equal(tracks["part"], file.name)) if has_part else tracks
        with file.filesystem.open_input_file(file.path) as stream:
            reader = pq.ParquetFile(stream)
            _check_schema(file, reader.schema_arrow, schema)
            for group in range(reader.num_row_groups):
                table = reader.read_row_group(group)
                mask = pc.is_in(table["track_id"], live["track_id"])
                yield table if pc.all(mask).as_py() else table.filter(mask)


def spectrogram_array(table: pa.Table, shape: Shape) -> Bytes:
    """The spectrogram column of a table of clips as (clips, bins, frames), without copying where it is whole."""
    column = table["spectrogram"].combine_chunks()
    if column.null_count:
        raise ArtifactError("the spectrogram column holds nulls; write one row for each clip that exists")
    width = shape.bins * shape.frames
    values = np.frombuffer(column.buffers()[1] or b"", np.uint8)[column.offset * width :][: len(column) * width]
    return values.reshape(len(column), shape.bins, shape.frames)


def _check_schema(file: Location, found: pa.Schema, wanted: pa.Schema) -> None:
    for field in wanted:
        if field.name not in found.names or found.field(field.name).type != field.type:
            got = found.field(field.name).type if field.name in found.names else "no such column"
            raise ArtifactError(f"{file}: column {field.name!r} should be {field.type}, found {got}; prepare it again")


def _count(tracks: pa.Table) -> int:
    return int(pc.sum(tracks["clips"]).as_py() or 0)


def _groups(tracks: pa.Table) -> list[str]:
    groups = tracks["group"] if "group" in tracks.column_names else pa.nulls(len(tracks), pa.string())
    found: list[str] = pc.coalesce(groups, tracks["track_id"]).to_pylist()
    return found


def _labels(tracks: pa.Table, manifest: dict[str, Any], folder: Location) -> npt.NDArray[np.int64]:
    classes = pa.array(manifest["classes"], pa.string())
    labels = pc.index_in(tracks["genre"], classes)
    if labels.null_count:
        stray = tracks.filter(pc.is_null(labels))["genre"][0].as_py()
        raise ArtifactError(f"{folder}: tracks.parquet names genre {stray!r}, which manifest.json does not list")
    return labels.to_numpy().astype(np.int64)
