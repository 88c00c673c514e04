"""The features folder: its schema, how a spectrogram becomes a row, and how rows become arrays.

    features/
      clips/*.parquet     one row a clip: track_id, clip, start_seconds, peak_db, spectrogram
      tracks.parquet      one row a track that has clips: track_id, genre, group, split, ...
      rejects.parquet     one row a track that has none: track_id, path, reason, message, ...
      duplicates.parquet  one row a track whose audio another track has as well
      settings.json       what prepare checks before it goes on in this folder
      manifest.json       schema, settings, fingerprint, counts, versions; written last

A spectrogram of shape (bins, frames) is stored row by row as unsigned bytes q in a fixed-size binary
column. Its level is `peak_db - range_db + q * range_db / 255` dB: the loudest point is 255, everything
`range_db` or more below it is 0. With 80 dB the error is at most 0.16 dB. docs/FEATURES.md describes
how to write such a folder with nothing but pyarrow, and what of it may be left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from genre.config import fingerprint
from genre.errors import ArtifactError
from genre.features.gathering import Gatherer
from genre.storage import Location

SCHEMA_VERSION = 1
ROW_GROUP = 128  # clips: what a writer gathers and a reader takes at a time, 20 MB of the usual ones
# Compressing spectrograms saves an eighth of the space and costs three quarters of the speed (docs/LOG.md).
WRITE_OPTIONS = {"compression": "none", "use_dictionary": ["track_id"], "write_statistics": ["track_id", "clip"]}
# Of a track only these repeat: dictionaries of the others would be most of what writing a long list takes.
TRACK_WRITE_OPTIONS = {"row_group_size": 4096, "use_dictionary": ["genre", "group", "split", "part"]}
SPLITS = ("train", "valid", "test")

Bytes = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
_READ = ("track_id", "clip", "peak_db", "spectrogram")  # the columns of a clip that loading needs

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
    """The manifest of a finished features folder, or an `ArtifactError` that says what is missing.

    What somebody else's folder may leave out is filled in: its settings, counts and fingerprints.
    """
    path = folder / "manifest.json"
    if not path.exists():
        state = "it was not finished, run prepare again" if folder.exists() else "there is no such folder, run prepare"
        raise ArtifactError(f"{folder}: no features here (manifest.json is missing); {state}")
    manifest: dict[str, Any] = path.read_json()
    if manifest.get("stage") != "features" or manifest.get("schema_version") != SCHEMA_VERSION:
        found = f"{manifest.get('stage')} version {manifest.get('schema_version')}"
        raise ArtifactError(f"{folder}: holds {found}, not features version {SCHEMA_VERSION}; prepare it again")
    for key, parts in {"shape": {field.name for field in fields(Shape)}, "classes": set()}.items():
        if key not in manifest or not parts <= set(manifest[key]):
            wanted = f" with {', '.join(sorted(parts))}" if parts else ""
            raise ArtifactError(f"{path}: lacks {key!r}{wanted}; docs/FEATURES.md says what a manifest holds")
    return manifest if "contents" in manifest else _completed(manifest, folder)


def shape_of(manifest: dict[str, Any]) -> Shape:
    return Shape(**{field.name: manifest["shape"][field.name] for field in fields(Shape)})


def read_tracks(folder: Location, split: str | None = None) -> pa.Table:
    """Tracks of a folder that have clips, sorted by track_id; all of them or those of one split."""
    path = folder / "tracks.parquet"
    if not path.exists():
        raise ArtifactError(f"{path} is missing; prepare the features again")
    table = path.read_table()
    for name in ("track_id", "genre", "split"):
        if name not in table.column_names:
            raise ArtifactError(f"{path}: there is no column {name!r}; docs/FEATURES.md lists what it holds")
    for name in ("track_id", "genre", "split", "group", "sound", "part"):
        table = _with_texts(table, name, path)
    if split is not None:
        table = table.filter(pc.equal(table["split"], split))
    return table.sort_by("track_id")


def contents(tracks: pa.Table) -> str:
    """16 hex digits that change whenever a track, its audio, genre, group or split does."""
    columns = [pc.fill_null(tracks[name], "") for name in ("track_id", "sound", "genre", "group", "split")]
    lines = pc.binary_join_element_wise(*columns, "\t")
    digest = hashlib.sha256()
    for begin in range(0, len(lines), 10_000):  # not all of a million at once
        digest.update("\n".join([*lines.slice(begin, 10_000).to_pylist(), ""]).encode())
    return digest.hexdigest()[:16]


def load(folder: Location, split: str) -> Clips:
    """All clips of one split, in memory, in the order of track_id and clip.

    Raises `ArtifactError` when the folder is unfinished, was altered, or lacks clips that it lists.
    """
    return load_splits(folder, [split])[split]


def load_splits(folder: Location, splits: Sequence[str]) -> dict[str, Clips]:
    """Like `load` for several splits, which lie side by side in the files, with one reading."""
    manifest = read_manifest(folder)
    shape = shape_of(manifest)
    tracks = read_tracks(folder)
    tracks = tracks.filter(pc.is_in(tracks["split"], value_set=pa.array(splits, pa.string())))
    labels = _labels(tracks, manifest, folder)
    if "clips" not in tracks.column_names:
        tracks = tracks.append_column("clips", _count_clips(folder, tracks, shape))
    rows = {split: np.flatnonzero(pc.equal(tracks["split"], split).to_numpy()) for split in splits}
    gatherers = {
        split: Gatherer(f"{folder}, split {split!r}", tracks.take(pa.array(rows[split])), shape.bins, shape.frames)
        for split in splits
    }
    for file, batch in iter_clips(folder, tracks, shape):
        for gatherer in gatherers.values():
            gatherer.take(file, batch)
    return {split: _clips(gatherers[split], labels[rows[split]], shape) for split in splits}


def iter_clips(
    folder: Location, tracks: pa.Table, shape: Shape, columns: Sequence[str] = _READ
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Clip rows, `ROW_GROUP` at a time, with the name of their file; only files that may hold clips of `tracks`."""
    named = None if tracks["part"].null_count else set(pc.unique(tracks["part"]).to_pylist())
    for file in (folder / "clips").files(".parquet"):
        if named is not None and file.name not in named:
            continue
        with file.open_parquet() as reader:
            _check_schema(file, reader.schema_arrow, shape)
            for group in range(reader.num_row_groups):
                for batch in reader.iter_batches(ROW_GROUP, row_groups=[group], columns=list(columns)):
                    yield file.name, batch


def _clips(gathered: Gatherer, labels: npt.NDArray[np.int64], shape: Shape) -> Clips:
    gathered.check()
    tracks = gathered.tracks
    return Clips(
        spectrograms=gathered.spectrograms,
        peak_db=gathered.peak_db,
        track=np.repeat(np.arange(len(tracks)), gathered.counts),
        track_ids=np.asarray(tracks["track_id"].to_pylist(), dtype=np.str_),
        labels=labels,
        groups=np.asarray(pc.coalesce(tracks["group"], tracks["track_id"]).to_pylist(), dtype=np.str_),
        shape=shape,
    )


def _completed(manifest: dict[str, Any], folder: Location) -> dict[str, Any]:
    """The manifest of a folder that prepare did not write, with what it may leave out."""
    from genre.features.splits import summary  # which builds on scipy, and only such folders need it

    tracks = read_tracks(folder)
    counts = {"scanned": len(tracks), "tracks": len(tracks), "rejected": 0, "reasons": {}, "splits": summary(tracks)}
    return {
        "settings": {},
        "fingerprint": fingerprint({"shape": manifest["shape"], "settings": manifest.get("settings", {})}),
        "contents": contents(tracks),
        "corpus": {"kind": "features", "root": str(folder), "split": "given"},
        "counts": counts,
    } | manifest


def _count_clips(folder: Location, tracks: pa.Table, shape: Shape) -> pa.Array:
    """Clips of each track, for a tracks.parquet that does not say."""
    ids = pa.chunked_array([b["track_id"] for _, b in iter_clips(folder, tracks, shape, ["track_id"])], pa.string())
    counts = pc.value_counts(ids)
    place = pc.index_in(tracks["track_id"], value_set=pc.struct_field(counts, "values"))
    if place.null_count:
        lost = tracks.filter(pc.is_null(place))["track_id"][0].as_py()
        raise ArtifactError(f"{folder}: track {lost!r} has no clips; write some, or leave it out of tracks.parquet")
    return pc.struct_field(counts, "counts").take(place.combine_chunks())


def _with_texts(table: pa.Table, name: str, path: Location) -> pa.Table:
    """The table with the column as plain strings, whatever kind of text it was written as; null where there is none."""
    if name not in table.column_names:
        return table.append_column(name, pa.nulls(len(table), pa.string()))
    try:
        texts = table[name].cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise ArtifactError(
            f"{path}: column {name!r} should hold texts, found {table[name].type}; convert it"
        ) from None
    return table.set_column(table.schema.get_field_index(name), name, texts)


def _check_schema(file: Location, found: pa.Schema, shape: Shape) -> None:
    width = pa.binary(shape.bins * shape.frames)
    wanted = {
        "track_id": (lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind), "string"),
        "clip": (pa.types.is_integer, "int32"),
        "peak_db": (pa.types.is_floating, "float32"),
        "spectrogram": (lambda kind: kind == width, str(width)),
    }
    for name, (fits, expected) in wanted.items():
        kind = found.field(name).type if name in found.names else "no such column"
        if name not in found.names or not fits(kind):
            raise ArtifactError(f"{file}: column {name!r} should be {expected}, found {kind}; write it anew")


def _labels(tracks: pa.Table, manifest: dict[str, Any], folder: Location) -> npt.NDArray[np.int64]:
    classes = pa.array(manifest["classes"], pa.string())
    labels = pc.index_in(tracks["genre"], classes)
    if labels.null_count:
        stray = tracks.filter(pc.is_null(labels))["genre"][0].as_py()
        raise ArtifactError(f"{folder}: tracks.parquet names genre {stray!r}, which manifest.json does not list")
    found: npt.NDArray[np.int64] = labels.to_numpy().astype(np.int64)
    return found
