"""The files of a copy of clips on a machine: written in one pass over the features, and mapped as clips.

header.json  statistics and number of tracks of each split, sizes and times of the files below, and a digest of these;
             written last
clips        (clips, frames, bins) bytes, in the order of splits, tracks and clips
peaks        (clips,) float32, dB
levels       (clips, 2, bins) int64, as `statistics.clip_levels`
tracks       Arrow: track_id, group, label, clips, here (whether the clips are in the copy)
"""

from __future__ import annotations

import fcntl
import json
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from genre.arrays import Bools, Bytes, Ints
from genre.config import fingerprint
from genre.features.cache.cache_folder import HEADER
from genre.features.clips import ClipIndex, Clips, check_no_nulls, check_peaks, spectrograms_of
from genre.features.columns import RowIndex, combined
from genre.features.folder import Features, prepared_again
from genre.features.mapped import MappedFile
from genre.features.schema import Shape
from genre.features.statistics import LevelStatistics, clip_levels
from genre.storage import sync

BYTES_PER_BIN, BYTES_PER_CLIP = 16, 4  # of `levels` and `peaks`
_CHUNK = 4096  # clips whose levels are summed at a time


class CopyWriter:
    """Writes the clips of some tracks of `features`, each to its position.

    `splits` are the tracks of each split, and `here` says which of all of them have their clips in the copy, (tracks,).
    """

    def __init__(self, target: Path, features: Features, splits: dict[str, pa.Table], here: Bools) -> None:
        self._target, self._features, self._here = target, features, here
        self._tracks = pa.concat_tables(splits.values())
        self._sizes = {split: len(tracks) for split, tracks in splits.items()}
        self._source = str(features.folder)
        copied = self._tracks.filter(pa.array(here))
        self._rows, self._parts = RowIndex(combined(copied["track_id"])), combined(copied["part"])
        counts = self._tracks["clips"].to_numpy().astype(np.int64) * here
        self._index = ClipIndex(self._source, counts[here])
        self._peaks = np.full(len(self._index), np.nan, dtype=np.float32)
        self._statistics = {split: LevelStatistics(features.shape) for split in splits}
        self._ends = _edges(counts)[np.cumsum(list(self._sizes.values()))]  # of the clips of each split

    def write(self) -> None:
        """Write all files. Raises `ArtifactError` when a clip is missing or repeated."""
        with (
            (self._target / "clips").open("wb", buffering=0) as clips,
            (self._target / "levels").open("wb", buffering=0) as levels,
        ):
            self._write_clips(clips, levels)
        self._index.check_complete()
        (self._target / "peaks").write_bytes(self._peaks.tobytes())
        self._write_tracks()
        self._write_header()

    def _write_clips(self, clips: IO[bytes], levels: IO[bytes]) -> None:
        # While this thread reads a row group, others write the last one, sum its levels, and wait for the disk, which
        # begins to write only when it is asked.
        tasks: list[Future[None]] = []
        flushes: list[Future[None]] = []
        with ThreadPoolExecutor(max_workers=3) as threads:
            for file, rows in self._features.iter_clips(self._tracks):
                spectrograms, chosen, positions = self._take(file, rows)
                _wait(tasks)
                tasks = [
                    threads.submit(_write_runs, clips, spectrograms, chosen, positions),
                    threads.submit(self._write_levels, levels, spectrograms, chosen, positions),
                ]
                if all(flush.done() for flush in flushes):
                    _wait(flushes)
                    flushes = [threads.submit(os.fdatasync, clips.fileno())]
            _wait(tasks + flushes)

    def _take(self, file: str, rows: pa.RecordBatch) -> tuple[Bytes, Ints, Ints]:
        """Return the spectrograms of `rows`, which of them are to be copied, and their positions.

        Rows of a track whose part is another file, which are obsolete, are left out. Keep the peaks. Raises
        `ArtifactError` when one is unknown, or a clip is repeated.
        """
        check_no_nulls(f"{self._source}: {file}", rows)
        track = self._rows.find(rows["track_id"].cast(pa.string()))
        is_here = pc.and_(track.is_valid(), pc.fill_null(pc.equal(self._parts.take(track), file), True))
        chosen = np.flatnonzero(is_here.to_numpy(zero_copy_only=False))
        tracks, numbers = track.take(pa.array(chosen)).to_numpy(), rows["clip"].to_numpy()[chosen].astype(np.int64)
        positions = self._index.mark(file, tracks, numbers)
        peaks = rows["peak_db"].to_numpy(zero_copy_only=False)[chosen]
        check_peaks(self._source, rows["track_id"].take(pa.array(chosen)), peaks)
        self._peaks[positions] = peaks
        return spectrograms_of(rows, self._features.shape), chosen, positions

    def _write_levels(self, file: IO[bytes], spectrograms: Bytes, chosen: Ints, positions: Ints) -> None:
        """Write the levels of the chosen clips, and add them to the statistics of their splits."""
        if not len(chosen):
            return
        peaks, shape = self._peaks[positions].tolist(), self._features.shape
        levels = np.stack(
            [clip_levels(spectrograms[row], peak, shape) for row, peak in zip(chosen.tolist(), peaks, strict=True)]
        )
        split = np.searchsorted(self._ends, positions, side="right")
        for number, statistics in enumerate(self._statistics.values()):
            statistics.add_levels(levels[split == number])
        _write_runs(file, levels, np.arange(len(levels)), positions)

    def _write_tracks(self) -> None:
        ids, groups = combined(self._tracks["track_id"]), combined(self._tracks["group"])
        labels, counts = self._features.labels(self._tracks), combined(self._tracks["clips"]).cast(pa.int64())
        tracks = pa.record_batch(
            [ids, pc.coalesce(groups, ids), labels, counts, pa.array(self._here)],
            ["track_id", "group", "label", "clips", "here"],
        )
        with pa.ipc.new_file(str(self._target / "tracks"), tracks.schema) as writer:
            writer.write_batch(tracks)

    def _write_header(self) -> None:
        """Write the header, from which a reader sees whether the other files are complete and unchanged.

        It has their sizes and times and not their content, so the disk has to hold them before.
        """
        for file in self._target.iterdir():
            sync(str(file))
        header = {
            "tracks": self._sizes,
            "statistics": {split: statistics.to_json() for split, statistics in self._statistics.items()},
            "files": _files(self._target),
        }
        text = json.dumps({"digest": fingerprint(header), "content": header})
        (self._target / HEADER).write_text(text, encoding="utf-8")
        sync(str(self._target / HEADER))


class MappedCopy:
    """The files of a copy, mapped into memory."""

    def __init__(self, folder: Path, header: dict[str, Any], shape: Shape, lock: object) -> None:
        self._folder, self._shape = folder, shape
        self._sizes: dict[str, int] = header["tracks"]  # of each split, in the order of the files
        self._known: dict[str, dict[str, Any]] = header["statistics"]
        self._tracks = pa.ipc.open_file(pa.memory_map(str(folder / "tracks"))).get_batch(0)
        self._here: Bools = self._tracks["here"].to_numpy(zero_copy_only=False)
        self._edges = _edges(self._tracks["clips"].to_numpy() * self._here)
        clips = int(self._edges[-1])
        self._source = MappedFile(folder / "clips", lock)
        self._spectrograms = self._source.array(np.uint8, (clips, shape.frames, shape.bins))
        self._peaks = MappedFile(folder / "peaks").array(np.float32, (clips,))

    @classmethod
    def open(cls, folder: Path, shape: Shape) -> MappedCopy | None:
        """Return the copy in `folder`; None where it does not exist, or is not as its header says.

        It is not deleted as long as the result, or clips of it, exist.
        """
        try:
            lock = (folder / HEADER).open(encoding="utf-8")
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # denied while it is being deleted
            match json.load(lock):
                case {"digest": digest, "content": dict(header)} if digest == fingerprint(header):
                    is_unchanged = header["files"] == _files(folder)
                case _:
                    is_unchanged = False
        except (OSError, ValueError):  # absent, in use, or cut
            return None
        if not is_unchanged:
            return None
        os.utime(folder)  # the time of its last use
        return cls(folder, header, shape, lock)

    def split(self, name: str) -> Clips:
        """Return the clips of a split: neighbours in the files, so that no array but `track` is copied."""
        tracks = self._tracks_of(name)
        begin, end = self._edges[[tracks.start, tracks.stop]].tolist()
        return self._clips(
            self._tracks.slice(tracks.start, self._sizes[name]),
            self._here[tracks],
            stored=self._spectrograms[begin:end],
            peak_db=self._peaks[begin:end],
            source=self._source.after(begin * self._shape.bytes),
        )

    def selection(self, tracks: Ints) -> Clips:
        """Return the clips of these rows of tracks, in their order."""
        rows = self._clip_rows(tracks)
        return self._clips(
            self._tracks.take(pa.array(tracks)),
            self._here[tracks],
            stored=self._spectrograms,
            peak_db=self._peaks[rows],
            source=self._source,
            rows=rows,
        )

    def _clips(self, tracks: pa.RecordBatch, here: Bools, **stored: Any) -> Clips:
        counts, own = tracks["clips"].to_numpy(), np.flatnonzero(here)
        return Clips(
            track=np.repeat(own, counts[own]),
            track_ids=tracks["track_id"],
            labels=tracks["label"].to_numpy(),
            groups=tracks["group"],
            shape=self._shape,
            everywhere=None if here.all() else counts,
            **stored,
        )

    def rows_of(self, tracks: pa.Table, features: Features) -> Ints:
        """Return the rows of these `tracks` of `features`, (tracks,). Raises `ArtifactError` when one is not here."""
        rows = pc.index_in(tracks["track_id"], value_set=self._tracks["track_id"])
        if rows.null_count:
            raise prepared_again(features.folder)
        return np.asarray(rows.to_numpy(), np.int64)

    def split_statistics(self, name: str) -> LevelStatistics:
        """Return the statistics of the clips of a split."""
        return LevelStatistics.merged(self._shape, [self._known[name]])

    def statistics(self, tracks: Ints) -> LevelStatistics:
        """Return the statistics of the clips of these rows of tracks."""
        rows, parts = np.sort(self._clip_rows(tracks)), []
        for name, known in self._known.items():
            of_split = self._tracks_of(name)
            begin, end = self._edges[[of_split.start, of_split.stop]]
            part = rows[np.searchsorted(rows, begin) : np.searchsorted(rows, end)]
            parts.append(known if len(part) == end - begin else self._summed(part))
        return LevelStatistics.merged(self._shape, parts)

    def _tracks_of(self, split: str) -> slice:
        """Return the rows of the tracks of a split."""
        names = list(self._sizes)
        begin = sum(self._sizes[name] for name in names[: names.index(split)])
        return slice(begin, begin + self._sizes[split])

    def _summed(self, rows: Ints) -> dict[str, Any]:
        levels = MappedFile(self._folder / "levels").array(np.int64, (len(self._peaks), 2, self._shape.bins))
        statistics = LevelStatistics(self._shape)
        for begin in range(0, len(rows), _CHUNK):
            statistics.add_levels(levels[rows[begin : begin + _CHUNK]])
        return statistics.to_json()

    def _clip_rows(self, tracks: Ints) -> Ints:
        """Return the rows of the clips of these rows of tracks, in their order, (clips,)."""
        first, counts = self._edges[tracks], self._edges[tracks + 1] - self._edges[tracks]
        rows: Ints = np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        return rows


def _edges(counts: Ints) -> Ints:
    """Return where the clips of each track begin, and where the last ones end, (tracks + 1,)."""
    return np.append(0, np.cumsum(counts))


def _wait(tasks: list[Future[None]]) -> None:
    for task in tasks:
        task.result()


def _write_runs(file: IO[bytes], values: npt.NDArray[Any], chosen: Ints, positions: Ints) -> None:
    """Write the `chosen` rows of `values` to their positions, neighbours with one call."""
    ends = np.flatnonzero((np.diff(chosen) != 1) | (np.diff(positions) != 1)) + 1
    for run in np.split(np.arange(len(chosen)), ends):
        if len(run):
            content = values[chosen[run[0]] : chosen[run[-1]] + 1]
            _write_at(file, int(positions[run[0]]) * content[0].nbytes, content.reshape(-1).view(np.uint8).data)


def _write_at(file: IO[bytes], offset: int, content: memoryview) -> None:
    while content:
        written = os.pwrite(file.fileno(), content, offset)
        offset, content = offset + written, content[written:]


def _files(folder: Path) -> dict[str, list[int]]:
    """Return size and modification time of each file of a copy but its header."""
    files = [file for file in folder.iterdir() if file.name != HEADER]
    return {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(files)}
