"""Clips as stored and in memory, and the position of each among the clips of many tracks."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from genre.arrays import Bytes, Float32, Ints
from genre.errors import ArtifactError
from genre.features.mapped import MappedFile
from genre.features.schema import Shape


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
    """Clips with the tracks that they come from; in memory, or mapped from a file of this machine."""

    stored: Bytes  # (stored clips, frames, bins), contiguous; the clips are all of these, or a selection of them
    peak_db: Float32  # (clips,)
    track: Ints  # (clips,) row in the arrays below
    track_ids: pa.StringArray  # (tracks,)
    labels: Ints  # (tracks,) index into the folder's classes
    groups: pa.StringArray  # (tracks,) the track_id where no group is known
    shape: Shape
    source: MappedFile | None = None  # of the spectrograms, where they are mapped from a file
    everywhere: Ints | None = None  # (tracks,) clips of each track on all machines; None: all are here
    rows: Ints | None = None  # (clips,) row of each clip in `stored`; None: all in order

    def __len__(self) -> int:
        return len(self.track)

    @property
    def total(self) -> int:
        """The number of clips on all machines."""
        return len(self) if self.everywhere is None else int(self.everywhere.sum())

    def class_counts(self, classes: int) -> Ints:
        """Return the number of clips of each class on all machines, (classes,)."""
        if self.everywhere is None:
            return np.bincount(self.clip_labels(), minlength=classes)
        return np.bincount(self.labels, self.everywhere, classes).astype(np.int64)

    def clip_labels(self) -> Ints:
        """Return (clips,) indices into the folder's classes."""
        labels: Ints = self.labels[self.track]
        return labels

    @property
    def spectrograms(self) -> Bytes:
        """The spectrograms of the clips, (clips, frames, bins): a copy in memory where they are a selection."""
        return self.stored if self.rows is None else self.stored[self.rows]

    def rows_of(self, clips: Ints) -> Ints:
        """Return the rows of these clips in `stored`, (clips,) both."""
        return clips if self.rows is None else self.rows[clips]

    def prefetch(self, clips: Ints, starts: Ints, frames: int) -> None:
        """Start to read the windows that `windows.cut` takes with these arguments, unless they are in memory."""
        if self.source is not None:
            rows = self.rows_of(clips)
            self.source.prefetch((rows * self.shape.frames + starts) * self.shape.bins, frames * self.shape.bins)

    @classmethod
    def unlabelled(cls, tracks: Sequence[Sequence[StoredClip]], shape: Shape) -> Clips:
        """Return the clips of tracks in their order. Tracks are named by their number, and every label is 0."""
        clips = [clip for track in tracks for clip in track]
        content = np.frombuffer(b"".join(clip.spectrogram for clip in clips), np.uint8)
        names = pa.arange(0, len(tracks)).cast(pa.string())  # pa.array would import pandas
        return cls(
            stored=content.reshape(len(clips), shape.frames, shape.bins),
            peak_db=np.array([clip.peak_db for clip in clips], np.float32),
            track=np.repeat(np.arange(len(tracks)), np.array([len(track) for track in tracks], np.int64)),
            track_ids=names,
            labels=np.zeros(len(tracks), np.int64),
            groups=names,
            shape=shape,
        )


class ClipIndex:
    """Gives each clip a position, in the order of tracks and clip numbers, and accepts each clip once.

    `clips` (tracks,) counts the clips of each track; `source` names them in errors. Methods raise `ArtifactError`.
    """

    def __init__(self, source: str, clips: Ints) -> None:
        self._source, self._counts = source, clips
        self._first = np.cumsum(clips) - clips
        self._found = np.zeros(int(clips.sum()), dtype=bool)

    def __len__(self) -> int:
        return len(self._found)

    def mark(self, file: str, track: Ints, clip: Ints) -> Ints:
        """Accept clips, given by row of their track and number in it, and return their positions, (clips,) each."""
        beyond = (clip < 0) | (clip >= self._counts[track])
        position = self._first[track] + clip
        if beyond.any() or self._found[position].any() or len(np.unique(position)) < len(position):
            raise ArtifactError(
                f"{self._source}: {file} holds a clip twice, or more clips of a track than tracks.parquet counts; "
                "number the clips of a track 0, 1, 2, ..., or prepare it again"
            )
        self._found[position] = True
        return position

    def check_complete(self) -> None:
        """Check that `mark` was called with every clip."""
        missing = len(self._found) - np.count_nonzero(self._found)
        if missing:
            raise ArtifactError(
                f"{self._source}: {missing} of {len(self._found)} clips are missing; prepare the features again"
            )


def check_no_nulls(source: str, rows: pa.RecordBatch) -> None:
    """Raise `ArtifactError` when one of the columns of clip rows, in which every clip needs a value, holds nulls."""
    for name in {"track_id", "clip", "spectrogram"} & set(rows.schema.names):
        if rows[name].null_count:
            raise ArtifactError(f"{source} holds nulls in column {name!r}; write one row for each clip that exists")


def check_peaks(source: str, track_ids: pa.Array, peak_db: Float32) -> None:
    """Raise `ArtifactError` when a peak level is unknown; both are (clips,)."""
    unknown = np.flatnonzero(~np.isfinite(peak_db))
    if len(unknown):
        track = track_ids[int(unknown[0])].as_py()
        raise ArtifactError(
            f"{source}: peak_db holds NaN or nulls, first in track {track!r}; those spectrograms are unusable, remove "
            "them"
        )


def spectrograms_of(rows: pa.RecordBatch, shape: Shape) -> Bytes:
    """Return the spectrogram column of clip rows as (clips, frames, bins), without a copy."""
    column = rows["spectrogram"]
    width = shape.bytes
    values = np.frombuffer(column.buffers()[1] or b"", np.uint8)[column.offset * width :][: len(column) * width]
    return values.reshape(len(column), shape.frames, shape.bins)
