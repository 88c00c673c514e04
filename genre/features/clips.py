"""Clips as stored and in memory, and how rows of Parquet are loaded into memory."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from genre.errors import ArtifactError
from genre.features.encoding import Bytes, Float32
from genre.features.schema import Shape

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StoredClip:
    """One clip as a row of Parquet holds it."""

    start_seconds: float
    peak_db: float
    spectrogram: bytes  # (frames, bins), one frame after the other

    def __reduce_ex__(self, protocol: int) -> tuple[Any, ...]:  # type: ignore[override]
        """Pickle the spectrogram out of band, so that `genre.audio.channel` sends it through shared memory."""
        content = pickle.PickleBuffer(self.spectrogram) if protocol >= 5 else self.spectrogram
        return type(self), (self.start_seconds, self.peak_db, content)


@dataclass(frozen=True)
class Clips:
    """Clips with the tracks that they come from. Arrays only, so that processes can share them."""

    spectrograms: Bytes  # (clips, frames, bins)
    peak_db: Float32  # (clips,)
    track: Ints  # (clips,) row in the arrays below
    track_ids: npt.NDArray[np.str_]  # (tracks,)
    labels: Ints  # (tracks,) index into the folder's classes
    groups: npt.NDArray[np.str_]  # (tracks,) the track_id where no group is known
    shape: Shape

    def __len__(self) -> int:
        return len(self.spectrograms)

    def clip_labels(self) -> Ints:
        """Return (clips,) indices into the folder's classes."""
        labels: Ints = self.labels[self.track]
        return labels

    @classmethod
    def unlabelled(cls, tracks: Sequence[Sequence[StoredClip]], shape: Shape) -> Clips:
        """Return the clips of tracks in their order. Tracks are named by their number, and every label is 0."""
        clips = [clip for track in tracks for clip in track]
        content = np.frombuffer(b"".join(clip.spectrogram for clip in clips), np.uint8)
        names = np.arange(len(tracks)).astype(np.str_)
        return cls(
            spectrograms=content.reshape(len(clips), shape.frames, shape.bins),
            peak_db=np.array([clip.peak_db for clip in clips], np.float32),
            track=np.repeat(np.arange(len(tracks)), np.array([len(track) for track in tracks], np.int64)),
            track_ids=names,
            labels=np.zeros(len(tracks), np.int64),
            groups=names,
            shape=shape,
        )


class Gatherer:
    """Copies rows of Parquet into one array, in the order of the tracks and of the clips' numbers.

    Each row is copied straight to its position, so that memory holds the clips only once. `tracks` has the columns
    track_id, group, clips (how many) and part (the file that holds them, null: any); `source` names them in errors.
    All methods raise `ArtifactError`.
    """

    def __init__(self, source: str, tracks: pa.Table, shape: Shape) -> None:
        self._source, self._tracks, self._shape = source, tracks, shape
        ids = tracks["track_id"].to_pylist()
        self._row = dict(zip(ids, range(len(ids)), strict=True))
        self._parts = tracks["part"].to_pylist()
        self._counts: Ints = tracks["clips"].to_numpy().astype(np.int64)
        self._first = np.cumsum(self._counts) - self._counts
        total = int(self._counts.sum())
        self._spectrograms = np.empty((total, shape.frames, shape.bins), dtype=np.uint8)
        self._peak_db = np.full(total, np.nan, dtype=np.float32)
        self._filled = np.zeros(total, dtype=bool)

    def take(self, file: str, rows: pa.RecordBatch) -> None:
        """Copy the rows of these tracks. Rows of a track whose part is another file are obsolete and skipped."""
        for name in ("track_id", "clip", "spectrogram"):
            if rows[name].null_count:
                raise ArtifactError(
                    f"{self._source}: {file} holds nulls in column {name!r}; write one row for each clip that exists"
                )
        tracks = np.array([self._find(file, track) for track in rows["track_id"].to_pylist()], dtype=np.int64)
        used = np.flatnonzero(tracks >= 0)
        if not len(used):
            return
        track, clip = tracks[used], rows["clip"].to_numpy()[used]
        position = self._first[track] + clip
        beyond = (clip < 0) | (clip >= self._counts[track])
        if beyond.any() or self._filled[position].any() or len(np.unique(position)) < len(position):
            raise ArtifactError(
                f"{self._source}: {file} holds a clip twice, or more clips of a track than tracks.parquet counts; "
                "number the clips of a track 0, 1, 2, ..., or prepare it again"
            )
        spectrograms = _spectrograms(rows, self._shape)
        self._spectrograms[position] = spectrograms if len(used) == len(rows) else spectrograms[used]
        self._peak_db[position] = rows["peak_db"].to_numpy(zero_copy_only=False)[used]
        self._filled[position] = True

    def clips(self, labels: Ints) -> Clips:
        """Return the clips, given the label of each track. Checks that every clip was copied and has a peak level."""
        missing = len(self._filled) - np.count_nonzero(self._filled)
        if missing:
            raise ArtifactError(
                f"{self._source}: {missing} of {len(self._filled)} clips are missing; prepare the features again"
            )
        if not np.isfinite(self._peak_db).all():
            raise ArtifactError(
                f"{self._source}: peak_db holds NaN or nulls; those spectrograms are unusable, remove them"
            )
        ids, groups = self._tracks["track_id"], self._tracks["group"]
        return Clips(
            spectrograms=self._spectrograms,
            peak_db=self._peak_db,
            track=np.repeat(np.arange(len(self._tracks)), self._counts),
            track_ids=np.asarray(ids.to_pylist(), dtype=np.str_),
            labels=labels,
            groups=np.asarray(pc.coalesce(groups, ids).to_pylist(), dtype=np.str_),
            shape=self._shape,
        )

    def _find(self, file: str, track: str) -> int:
        row = self._row.get(track, -1)
        return row if row < 0 or self._parts[row] in (None, file) else -1


def _spectrograms(rows: pa.RecordBatch, shape: Shape) -> Bytes:
    """Return the spectrogram column as (clips, frames, bins), without a copy."""
    column = rows["spectrogram"]
    width = shape.bins * shape.frames
    values = np.frombuffer(column.buffers()[1] or b"", np.uint8)[column.offset * width :][: len(column) * width]
    return values.reshape(len(column), shape.frames, shape.bins)
