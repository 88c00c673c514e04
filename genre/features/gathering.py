"""Rows of Parquet -> one array, each row going straight to its place, so that memory holds them once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from genre.errors import ArtifactError


class Gatherer:
    """Gathers the clips of `tracks` in the order of the tracks and of the clips' numbers.

    `tracks` has the columns track_id, clips (how many) and part (the file that holds them, null: any).
    `where` names them in errors, which are `ArtifactError`.
    """

    def __init__(self, where: str, tracks: pa.Table, bins: int, frames: int) -> None:
        self._where = where
        self.tracks = tracks
        ids = tracks["track_id"].to_pylist()
        self._row = dict(zip(ids, range(len(ids)), strict=True))
        self._parts = tracks["part"].to_pylist()
        self.counts: npt.NDArray[np.int64] = tracks["clips"].to_numpy().astype(np.int64)
        self._first = np.cumsum(self.counts) - self.counts
        total = int(self.counts.sum())
        self.spectrograms = np.empty((total, bins, frames), dtype=np.uint8)
        self.peak_db = np.full(total, np.nan, dtype=np.float32)
        self._filled = np.zeros(total, dtype=bool)

    def take(self, file: str, rows: pa.RecordBatch) -> None:
        """Keep those of the rows that are of these tracks. Rows of a track that has another file are leftovers."""
        for name in ("track_id", "clip", "spectrogram"):
            if rows[name].null_count:
                raise ArtifactError(
                    f"{self._where}: {file} holds nulls in column {name!r}; write one row for each clip that exists"
                )
        found = np.array([self._find(file, track) for track in rows["track_id"].to_pylist()], dtype=np.int64)
        mine = np.flatnonzero(found >= 0)
        if not len(mine):
            return
        track, clip = found[mine], rows["clip"].to_numpy()[mine]
        place = self._first[track] + clip
        beyond = (clip < 0) | (clip >= self.counts[track])
        if beyond.any() or self._filled[place].any() or len(np.unique(place)) < len(place):
            raise ArtifactError(
                f"{self._where}: {file} holds a clip twice, or one that tracks.parquet does not count; "
                "number the clips of a track 0, 1, 2, ..., or prepare it again"
            )
        spectrograms = spectrogram_array(rows, self.spectrograms.shape[1:])
        self.spectrograms[place] = spectrograms if len(mine) == len(rows) else spectrograms[mine]
        self.peak_db[place] = rows["peak_db"].to_numpy(zero_copy_only=False)[mine]
        self._filled[place] = True

    def check(self) -> None:
        """Raises `ArtifactError` unless every clip is there and has a level."""
        missing = len(self._filled) - np.count_nonzero(self._filled)
        if missing:
            raise ArtifactError(
                f"{self._where}: {missing} of {len(self._filled)} clips are missing; prepare the features again"
            )
        if not np.isfinite(self.peak_db).all():
            raise ArtifactError(
                f"{self._where}: peak_db holds NaN or nulls; those spectrograms are unusable, remove them"
            )

    def _find(self, file: str, track: str) -> int:
        row = self._row.get(track, -1)
        return row if row < 0 or self._parts[row] in (None, file) else -1


def spectrogram_array(rows: pa.RecordBatch, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """The spectrogram column of clip rows as (clips, *shape), without a copy."""
    column = rows["spectrogram"]
    width = int(np.prod(shape))
    values = np.frombuffer(column.buffers()[1] or b"", np.uint8)[column.offset * width :][: len(column) * width]
    return values.reshape(len(column), *shape)
