"""The copy of a folder's clips that each machine keeps on a local disk and maps into memory.

All trainings of a machine share one copy through the page cache, so no process holds the clips, and what was copied
once is there for the next job. The first process that needs a copy makes it while the others wait.

    FOLDER/building.lock                locked by the process that makes or deletes a copy
    FOLDER/features-KEY/header.json     statistics, and sizes and times of the files below; written last
    FOLDER/features-KEY/SPLIT.clips     (clips, frames, bins) bytes, in the order of tracks and clips
    FOLDER/features-KEY/SPLIT.peaks     (clips,) float32, dB
    FOLDER/features-KEY/SPLIT.tracks    Arrow: track_id, group, label, clips, here (whether the clips are in the copy)

Where the clips are too many for a machine, it keeps the share of its workers (`Share`); the table of tracks is always
complete. The key changes with everything that decides the clips, and with the names, sizes and times of the files in
`clips/`. Readers hold a shared lock on the header, and a copy whose header is locked is not deleted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre.arrays import Bools, Bytes, Ints
from genre.config import fingerprint
from genre.errors import ArtifactError
from genre.features import cache_folder
from genre.features.cache_folder import Report
from genre.features.clips import ClipIndex, Clips, check_no_nulls, check_peaks, spectrograms_of
from genre.features.columns import combined
from genre.features.folder import Features, prepared_again, reading
from genre.features.mapped import MappedFile
from genre.features.sampling import Share
from genre.features.schema import Shape
from genre.features.statistics import LevelStatistics
from genre.settings import CacheSettings
from genre.storage import sync

_FORMAT = 2  # of the files; part of the key
_WORTH_A_MESSAGE = 1e9  # bytes; copying less takes a few seconds


@dataclass(frozen=True)
class CachedClips:
    """The clips of a copy by split, and the level statistics of the clips of its first split."""

    clips: dict[str, Clips]
    statistics: LevelStatistics


@dataclass(frozen=True)
class ClipCache:
    """The address of the clips of some splits: what travels to the processes that train."""

    features: Features
    settings: CacheSettings
    splits: tuple[str, ...]
    key: str
    share: Share | None = None  # of a machine; None: all tracks

    @classmethod
    def of(cls, features: Features, settings: CacheSettings, splits: tuple[str, ...] = ("train", "valid")) -> ClipCache:
        """Return the address of `splits` of a features folder as it is now. Nothing is copied yet."""
        return cls(features, settings, splits, _key(features, splits))

    def of_share(self, share: Share) -> ClipCache:
        """Return the address of the share of a machine."""
        return replace(self, share=share, key=_key(self.features, self.splits, share))

    def check_size(self) -> None:
        """Raise `ArtifactError` where this machine has no copy, and its disk or cache.max_gb is too small for one.

        Copies of other features do not count, since those that are not in use are deleted. Raises `ConfigError` and
        `StorageError` like `open`.
        """
        folder = cache_folder.of(self.settings)
        with cache_folder.using(folder):
            if not (folder / self._name / cache_folder.HEADER).exists():
                cache_folder.check_size(folder, self._size(), self.settings.max_gb, str(self.features.folder))

    def tracks(self, split: str) -> tuple[pa.Table, Bools]:
        """Return all tracks of a split, and which of them have their clips in the copy, (tracks,)."""
        tracks = self.features.tracks(split)
        return tracks, np.ones(len(tracks), dtype=bool) if self.share is None else self.share.holds(tracks)

    def _size(self) -> int:
        """Return the bytes of the clips."""
        splits = map(self.tracks, self.splits)
        return sum(int(tracks["clips"].to_numpy()[here].sum()) for tracks, here in splits) * self.features.shape.bytes

    @property
    def _name(self) -> str:
        return f"{cache_folder.PREFIX}{self.key}"

    def open(self, report: Report = lambda message: None) -> CachedClips:
        """Return the clips, mapped from this machine's copy, which is made first where it is missing or was altered.

        `report` gets a message before this takes long. Raises `ArtifactError` when the features were prepared again
        since `of` or are damaged, or when the disk is too small, `ConfigError` when `cache.folder` cannot be written,
        and `StorageError` when the storage of the features cannot be reached.
        """
        folder = cache_folder.of(self.settings)
        with cache_folder.using(folder):
            cached = _mapped(folder / self._name, self)
            if cached is None:
                with cache_folder.exclusive(folder, report):
                    cached = _mapped(folder / self._name, self)  # another process may have made it meanwhile
                    if cached is None:
                        self._make(folder, report)
                        cached = _mapped(folder / self._name, self)
        if cached is None:
            raise ArtifactError(f"{folder / self._name}: changed while it was made; see what else writes there")
        return cached

    def _make(self, folder: Path, report: Report) -> None:
        """Copy the clips to `folder`, where this process holds the lock."""
        self._check_unchanged()
        shutil.rmtree(folder / self._name, ignore_errors=True)  # a copy that was altered
        size = self._size()
        cache_folder.make_room(folder, size, self.settings.max_gb, str(self.features.folder))
        if size > _WORTH_A_MESSAGE:
            report(f"copying {size / 1e9:.1f} GB of features to {folder}")
        building = folder / f"{self._name}{cache_folder.UNFINISHED}"
        try:
            building.mkdir()
            statistics = self._copy(building)
            self._check_unchanged()
            _write_header(building, statistics)
            building.rename(folder / self._name)
        except ArtifactError:
            self._check_unchanged()  # clips that are missing were perhaps deleted since
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ArtifactError(
                    f"cache.folder={folder}: the disk is full, {size / 1e9:.1f} GB are needed for the clips of "
                    f"{self.features.folder}; free some, or set cache.folder to a larger disk"
                ) from None
            raise
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _copy(self, target: Path) -> LevelStatistics:
        """Write all files but the header, and return the statistics of the first split."""
        features = self.features
        statistics = LevelStatistics(features.shape)
        with contextlib.ExitStack() as stack:
            writers = [stack.enter_context(_SplitWriter(target, split, self)) for split in self.splits]
            tracks = features.tracks()
            used = tracks.filter(pc.is_in(tracks["split"], value_set=pa.array(self.splits, pa.string())))
            # While this thread reads a row group, others write the last one, sum its levels, and wait for the disk,
            # which begins to write only when it is asked.
            threads = stack.enter_context(ThreadPoolExecutor(max_workers=2 * len(writers) + 1))
            tasks: list[Future[None]] = []
            flushes: list[Future[None]] = []
            for file, rows in features.iter_clips(used):
                taken = [writer.take(file, rows) for writer in writers]
                _wait(tasks)
                tasks = [threads.submit(writer.write, *clips) for writer, clips in zip(writers, taken, strict=True)]
                tasks.append(threads.submit(_add, statistics, rows, *taken[0][:2]))
                if all(flush.done() for flush in flushes):
                    _wait(flushes)
                    flushes = [threads.submit(writer.flush) for writer in writers]
            _wait(tasks + flushes)
            for writer in writers:
                writer.finish()
        return statistics

    def _check_unchanged(self) -> None:
        if _key(self.features.reopened(), self.splits, self.share) != self.key:
            raise prepared_again(self.features.folder)


class _SplitWriter:
    """Writes the clips of one split, each to its position."""

    def __init__(self, target: Path, split: str, cache: ClipCache) -> None:
        features = cache.features
        self._tracks, self._here = cache.tracks(split)
        self._shape = features.shape
        self._labels = features.labels(self._tracks)
        self._source = f"{features.folder}, split {split!r}"
        copied = self._tracks.filter(pa.array(self._here))
        self._ids, self._parts = combined(copied["track_id"]), combined(copied["part"])
        self._index = ClipIndex(self._source, copied["clips"].to_numpy().astype(np.int64))
        self._peaks = np.full(len(self._index), np.nan, dtype=np.float32)
        self._path = target / split

    def __enter__(self) -> _SplitWriter:
        self._file = self._path.with_suffix(".clips").open("wb", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def take(self, file: str, rows: pa.RecordBatch) -> tuple[Bytes, Ints, Ints]:
        """Return the spectrograms of `rows`, which of them belong to the split, and their positions.

        Rows of a track whose part is another file, which are obsolete, are left out. Keep the peaks. Raises
        `ArtifactError` when one is unknown, or a clip is repeated.
        """
        check_no_nulls(f"{self._source}: {file}", rows)
        track = pc.index_in(rows["track_id"].cast(pa.string()), value_set=self._ids)
        is_here = pc.and_(track.is_valid(), pc.fill_null(pc.equal(self._parts.take(track), file), True))
        chosen = np.flatnonzero(is_here.to_numpy(zero_copy_only=False))
        tracks, numbers = track.take(pa.array(chosen)).to_numpy(), rows["clip"].to_numpy()[chosen].astype(np.int64)
        positions = self._index.mark(file, tracks, numbers)
        peaks = rows["peak_db"].to_numpy(zero_copy_only=False)[chosen]
        check_peaks(self._source, peaks)
        self._peaks[positions] = peaks
        return spectrograms_of(rows, self._shape), chosen, positions

    def write(self, spectrograms: Bytes, chosen: Ints, positions: Ints) -> None:
        """Write the chosen spectrograms to their positions, neighbours with one call."""
        ends = np.flatnonzero((np.diff(chosen) != 1) | (np.diff(positions) != 1)) + 1
        for run in np.split(np.arange(len(chosen)), ends):
            if len(run):
                content = spectrograms[chosen[run[0]] : chosen[run[-1]] + 1]
                _write_at(self._file, int(positions[run[0]]) * self._shape.bytes, content.reshape(-1).data)

    def flush(self) -> None:
        """Wait until the disk has what was written so far."""
        os.fdatasync(self._file.fileno())

    def finish(self) -> None:
        """Write the peaks and the tracks. Raises `ArtifactError` when a clip is missing."""
        self._index.check_complete()
        self._path.with_suffix(".peaks").write_bytes(self._peaks.tobytes())
        ids, groups = combined(self._tracks["track_id"]), combined(self._tracks["group"])
        counts = combined(self._tracks["clips"]).cast(pa.int64())
        tracks = pa.record_batch(
            [ids, pc.coalesce(groups, ids), self._labels, counts, pa.array(self._here)],
            ["track_id", "group", "label", "clips", "here"],
        )
        with pa.ipc.new_file(str(self._path.with_suffix(".tracks")), tracks.schema) as writer:
            writer.write_batch(tracks)


def _wait(tasks: list[Future[None]]) -> None:
    for task in tasks:
        task.result()


def _add(statistics: LevelStatistics, rows: pa.RecordBatch, spectrograms: Bytes, chosen: Ints) -> None:
    """Add the chosen clips of a row group."""
    peaks = rows["peak_db"].to_numpy(zero_copy_only=False)
    for row in chosen.tolist():
        statistics.add(spectrograms[row], float(peaks[row]))


def _write_at(file: IO[bytes], offset: int, content: memoryview) -> None:
    while content:
        written = os.pwrite(file.fileno(), content, offset)
        offset, content = offset + written, content[written:]


def _write_header(folder: Path, statistics: LevelStatistics) -> None:
    """Write the header, from which a reader sees whether the other files are complete and unchanged.

    It has their sizes and times and not their content, so the disk has to hold them before.
    """
    for file in folder.iterdir():
        sync(str(file))
    header = {"statistics": statistics.to_json(), "files": _files(folder)}
    target = folder / cache_folder.HEADER
    target.write_text(json.dumps(header), encoding="utf-8")
    sync(str(target))


def _files(folder: Path) -> dict[str, list[int]]:
    """Return size and modification time of each file of a copy but its header."""
    files = [file for file in folder.iterdir() if file.name != cache_folder.HEADER]
    return {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(files)}


def _mapped(folder: Path, cache: ClipCache) -> CachedClips | None:
    """Return the clips of a copy; None where it does not exist, or is not as its header says."""
    try:
        lock = (folder / cache_folder.HEADER).open(encoding="utf-8")
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # denied while it is being deleted
        header = json.load(lock)
        if header["files"] != _files(folder):
            return None
    except (OSError, ValueError, KeyError):
        return None
    os.utime(folder)  # the time of its last use
    clips = {split: _mapped_split(folder / split, cache.features.shape, lock) for split in cache.splits}
    return CachedClips(clips, LevelStatistics.merged(cache.features.shape, [header["statistics"]]))


def _mapped_split(path: Path, shape: Shape, lock: object) -> Clips:
    """Return the mapped clips of a split, which hold `lock` as long as they exist."""
    tracks = pa.ipc.open_file(pa.memory_map(str(path.with_suffix(".tracks")))).get_batch(0)
    counts, here = tracks["clips"].to_numpy(), np.flatnonzero(tracks["here"].to_numpy(zero_copy_only=False))
    source = MappedFile(path.with_suffix(".clips"), lock)
    total = int(counts[here].sum())
    return Clips(
        spectrograms=source.array(np.uint8, (total, shape.frames, shape.bins)),
        peak_db=MappedFile(path.with_suffix(".peaks")).array(np.float32, (total,)),
        track=np.repeat(here, counts[here]),
        track_ids=tracks["track_id"],
        labels=tracks["label"].to_numpy(),
        groups=tracks["group"],
        shape=shape,
        source=source,
        everywhere=None if len(here) == len(counts) else counts,
    )


def _key(features: Features, splits: tuple[str, ...], share: Share | None = None) -> str:
    """Return 16 hex digits that change with the clips, their labels and their order."""
    manifest = features.manifest
    with reading(features.folder / "clips"):
        files = [(info.base_name, info.size, info.mtime_ns) for info in (features.folder / "clips").children()]
    content: dict[str, Any] = {
        "format": _FORMAT,
        "folder": str(features.folder),
        "fingerprint": manifest.fingerprint,
        "contents": manifest.contents,
        "classes": manifest.classes,
        "splits": splits,
        "parts": [part and asdict(part) for part in (*features.views, share)],
        "files": files,
    }
    return fingerprint(content)
