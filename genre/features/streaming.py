"""Read the clips of a folder in extents, in any process, and combine what was computed on them into one row a track.

    extents(features, tracks)  the extents to read: small files, or row groups of large ones
    read(...)                  an extent -> chunks of clips
    TrackMeans                 values of chunks, in any order -> means over the clips of each track

Extents depend on the folder only, and the means on the extents only: results are the same for any number of processes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from genre.arrays import Bytes, Float32, Ints
from genre.features import clips as clip_rows
from genre.features.clips import ClipIndex, Clips
from genre.features.columns import RowIndex, combined
from genre.features.folder import Features
from genre.features.schema import ROW_GROUP

_LARGE_FILE = 64 << 20  # bytes; larger files are divided at their row groups
_GROUPS_PER_EXTENT = 4

Values = npt.NDArray[np.floating[Any]]
_Order = tuple[str, int, int]  # file, first row group of the extent, number within the extent
_Piece = tuple[_Order, int, list[Float32]]  # of a track: order, number of clips, means of its values


@dataclass(frozen=True)
class Extent:
    """A clip file, or some row groups of a large one."""

    file: str
    groups: range | None = None


@dataclass(frozen=True)
class Chunk:
    """Clips of some tracks from one extent. `clips.track` indexes `tracks`; labels and groups are not filled in."""

    order: _Order
    tracks: Ints  # (tracks,) rows in the table of tracks that is read
    numbers: Ints  # (clips,) number of the clip within its track
    clips: Clips

    def means(self, values: Sequence[Values]) -> ChunkMeans:
        """Return `values`, each (tracks, width) means over the clips of this chunk, with the tracks they belong to."""
        return ChunkMeans(
            self.order, self.tracks, self.clips.track, self.numbers, [np.asarray(each, np.float32) for each in values]
        )


@dataclass(frozen=True)
class ChunkMeans:
    """Means over the clips of a chunk; the first four fields are those of the chunk."""

    order: _Order
    tracks: Ints
    track: Ints
    numbers: Ints
    values: list[Float32]  # (tracks, width) each


def extents(features: Features, tracks: pa.Table) -> list[Extent]:
    """Return the extents that may hold clips of `tracks`, in the order of their names.

    Only large files are opened, for the number of their row groups. Raises `ArtifactError` like `Features.open`.
    """
    sizes = {info.base_name: info.size for info in (features.folder / "clips").children()}
    chosen: list[Extent] = []
    for file in features.clip_files(tracks):
        if sizes[file.name] <= _LARGE_FILE:
            chosen.append(Extent(file.name))
            continue
        with file.open_parquet() as reader:
            count = reader.num_row_groups
        firsts = range(0, count, _GROUPS_PER_EXTENT)
        chosen.extend(Extent(file.name, range(first, min(count, first + _GROUPS_PER_EXTENT))) for first in firsts)
    return chosen


def read(features: Features, tracks: pa.Table, extent: Extent) -> Iterator[Chunk]:
    """Yield the clips of `tracks` in an extent, in chunks of `ROW_GROUP` clips to twice as many; the last may be less.

    `tracks` has the columns track_id and part (the file that holds the clips, null: any); rows of a track whose part
    is another file are obsolete and skipped. Raises `ArtifactError` for unusable rows.
    """
    numbers, collected = itertools.count(), list[_Rows]()
    first = extent.groups.start if extent.groups else 0
    for rows in _rows(features, tracks, extent):
        collected.append(rows)
        if sum(len(each.track) for each in collected) >= ROW_GROUP:
            yield _chunk(features, (extent.file, first, next(numbers)), collected)
            collected = []
    if collected:
        yield _chunk(features, (extent.file, first, next(numbers)), collected)


def first_clips(features: Features, tracks: pa.Table, count: int) -> Clips:
    """Return at least `count` clips of `tracks`, or all if there are fewer, from the first extents that hold them."""
    collected: list[_Rows] = []
    for extent in extents(features, tracks):
        for rows in _rows(features, tracks, extent):
            collected.append(rows)
            if sum(len(each.track) for each in collected) >= count:
                return _chunk(features, (extent.file, 0, 0), collected).clips
    return _chunk(features, ("", 0, 0), collected).clips


class TrackMeans:
    """Combines the means of chunks, which arrive in any order, into one row for each track.

    Memory holds the result, and the values of tracks of which some chunks are still missing.
    """

    def __init__(self, source: str, tracks: pa.Table) -> None:
        """Prepare for `tracks`, whose column `clips` is their number of clips; `source` names them in errors."""
        clips = tracks["clips"].to_numpy().astype(np.int64)
        self._counts, self._index = clips, ClipIndex(source, clips)
        self._means: list[Float32] = []
        self._incomplete: dict[int, list[_Piece]] = {}

    def add(self, chunk: ChunkMeans) -> int:
        """Add a chunk and return the number of tracks that it completed. Raises `ArtifactError` for a repeated clip."""
        self._index.mark(chunk.order[0], chunk.tracks[chunk.track], chunk.numbers)
        if not self._means:
            self._means = [np.zeros((len(self._counts), each.shape[1]), np.float32) for each in chunk.values]
        clips = np.bincount(chunk.track, minlength=len(chunk.tracks))
        complete = clips == self._counts[chunk.tracks]
        for mean, values in zip(self._means, chunk.values, strict=True):
            mean[chunk.tracks[complete]] = values[complete]
        done = int(complete.sum())
        for index in np.flatnonzero(~complete):
            row = int(chunk.tracks[index])
            pieces = self._incomplete.setdefault(row, [])
            pieces.append((chunk.order, int(clips[index]), [values[index].copy() for values in chunk.values]))
            if sum(count for _, count, _ in pieces) == self._counts[row]:
                self._complete(row, self._incomplete.pop(row))
                done += 1
        return done

    def result(self) -> list[Float32]:
        """Return each value of all tracks, (tracks, width). Raises `ArtifactError` when a clip is missing."""
        self._index.check_complete()
        return self._means

    def _complete(self, row: int, pieces: list[_Piece]) -> None:
        """Average the pieces of a track in the order of the extents, so that the sum is the same each time."""
        pieces.sort(key=lambda piece: piece[0])
        weights = np.array([clips for _, clips, _ in pieces], np.float64)
        for mean, values in zip(self._means, zip(*(values for _, _, values in pieces), strict=True), strict=True):
            mean[row] = weights @ np.stack(values).astype(np.float64) / weights.sum()


@dataclass(frozen=True)
class _Rows:
    """Rows of a clip file that are used."""

    track: Ints  # (clips,) row in the table of tracks
    number: Ints  # (clips,)
    peak_db: Float32  # (clips,)
    spectrograms: Bytes  # (clips, ...)


def _rows(features: Features, tracks: pa.Table, extent: Extent) -> Iterator[_Rows]:
    """Yield the used rows of each batch of an extent."""
    rows = np.flatnonzero(pc.fill_null(pc.equal(tracks["part"], extent.file), True).to_numpy())
    index = RowIndex(combined(tracks["track_id"]).take(pa.array(rows)))  # of all tracks where no file is known
    source = f"{features.folder}: {extent.file}"
    for batch in features.iter_rows(features.folder / "clips" / extent.file, extent.groups):
        clip_rows.check_no_nulls(source, batch)
        places = index.find(batch["track_id"].cast(pa.string()))
        used = np.flatnonzero(places.is_valid().to_numpy(zero_copy_only=False))
        if not len(used):
            continue
        peak_db = batch["peak_db"].to_numpy(zero_copy_only=False)[used].astype(np.float32)
        clip_rows.check_peaks(source, batch["track_id"].take(pa.array(used)), peak_db)
        yield _Rows(
            track=rows[places.drop_null().to_numpy()],
            number=batch["clip"].to_numpy()[used].astype(np.int64),
            peak_db=peak_db,
            spectrograms=clip_rows.spectrograms_of(batch, features.shape)[used],
        )


def _chunk(features: Features, order: _Order, collected: list[_Rows]) -> Chunk:
    """Return rows as a chunk, in the order of tracks and of the clips' numbers."""
    track, number = (np.concatenate([getattr(rows, name) for rows in collected]) for name in ("track", "number"))
    sequence = np.lexsort((number, track))
    tracks, within = np.unique(track[sequence], return_inverse=True)
    names = pa.array([str(row) for row in tracks], pa.string())
    return Chunk(
        order=order,
        tracks=tracks,
        numbers=number[sequence],
        clips=Clips(
            stored=np.concatenate([rows.spectrograms for rows in collected])[sequence],
            peak_db=np.concatenate([rows.peak_db for rows in collected])[sequence],
            track=within,
            track_ids=names,
            labels=np.zeros(len(tracks), np.int64),
            groups=names,
            shape=features.shape,
        ),
    )
