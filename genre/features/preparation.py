"""Tracks -> clips of features on disk, a block at a time. Knows nothing of who runs the blocks.

A block writes `clips/<name>.parquet` and then `outcomes/<name>.parquet` with one row for each of its
tracks. A track is done once its outcome is there, so a killed job loses at most the blocks under way,
and `ledger.finish` turns all outcomes into the folder's final tables.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from genre import features, memory
from genre.audio import recordings
from genre.audio.isolation import IsolatedKernel
from genre.audio.spectrogram import LogMel
from genre.config import AudioSettings, Config, PrepareSettings, Settings, SpectrogramSettings, fingerprint
from genre.errors import AudioError
from genre.storage import Location

# Part of the fingerprint: raise it whenever the same file and settings give other bytes than before.
KERNEL_VERSION = 3


class Recipe(Settings):
    """Everything that decides how a file becomes features."""

    audio: AudioSettings
    spectrogram: SpectrogramSettings
    prepare: PrepareSettings

    @classmethod
    def of(cls, config: Config) -> Recipe:
        return cls(audio=config.audio, spectrogram=config.spectrogram, prepare=config.prepare)

    def fingerprint(self) -> str:
        """Changes with every setting that changes the features; where and how fast they are made is not part."""
        return fingerprint(self.audio, self.spectrogram, {"kernel": KERNEL_VERSION})

    def shape(self) -> features.Shape:
        samples = round(self.audio.clip_seconds * self.audio.sample_rate)
        hop = self.spectrogram.hop_length
        return features.Shape(
            bins=self.spectrogram.n_mels,
            frames=1 + samples // hop,
            range_db=self.spectrogram.range_db,
            frame_seconds=hop / self.audio.sample_rate,
        )


@dataclass(frozen=True)
class PreparedClip:
    start_seconds: float
    peak_db: float
    spectrogram: bytes  # (bins, frames), row by row

    def __reduce_ex__(self, protocol: int) -> tuple[Any, ...]:  # type: ignore[override]
        """Lets the spectrogram travel beside the pickle, through memory that both processes see."""
        whole = pickle.PickleBuffer(self.spectrogram) if protocol >= 5 else self.spectrogram
        return type(self), (self.start_seconds, self.peak_db, whole)


@dataclass(frozen=True)
class PreparedTrack:
    content: str  # SHA-256 of the file
    sound: str  # SHA-256 of the spectrograms
    seconds: float
    sample_rate: int
    channels: int
    truncated: bool
    clips: list[PreparedClip]


class TrackKernel:
    """Address of a file -> `PreparedTrack`, or an `AudioError`. The only thing that touches audio."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._log_mel = LogMel(recipe.spectrogram, recipe.audio.sample_rate)

    def __call__(self, address: str) -> PreparedTrack:
        content = recordings.read(address)
        recording = recordings.load(content, self._recipe.audio, self._recipe.prepare)
        prepared = [self._prepare(clip) for clip in recordings.cut(recording, self._recipe.audio)]
        spectrograms = hashlib.sha256()
        for clip in prepared:
            spectrograms.update(clip.spectrogram)
        return PreparedTrack(
            content=hashlib.sha256(content).hexdigest(),
            sound=spectrograms.hexdigest(),
            seconds=recording.seconds,
            sample_rate=recording.sample_rate,
            channels=recording.channels,
            truncated=recording.truncated,
            clips=prepared,
        )

    def _prepare(self, clip: recordings.Clip) -> PreparedClip:
        values, peak = features.encode(self._log_mel(clip.samples), self._recipe.spectrogram.range_db)
        return PreparedClip(clip.start_seconds, peak, values.tobytes())


def prepare_block(tracks: pa.Table, recipe: Recipe, folder: Location, run: int = 1) -> pa.Table:
    """Features of a table of scanned tracks, written below `folder`; returns one outcome a track.

    The file's name follows from the run and the tracks in it: a block that is given twice in one run is
    done once, and a later run never overwrites what an earlier one left.
    """
    name = f"{run:05d}-{_digest(tracks, recipe)}.parquet"
    written = folder / "outcomes" / name
    if written.exists():
        return written.read_table()
    memory.keep_freed()
    kernel = IsolatedKernel.shared(TrackKernel, recipe, memory_mb=recipe.prepare.max_file_memory_mb)
    outcomes: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        rows = _ClipRows(stack, folder / "clips" / name, recipe.shape())
        for track in tracks.select(["track_id", "path", "size", "modified"]).to_pylist():
            try:
                prepared = kernel(track["path"], recipe.prepare.file_timeout_s)
            except AudioError as error:
                outcomes.append(track | {"reason": error.reason.value, "message": " ".join(str(error).split())})
                continue
            rows.add(track["track_id"], prepared.clips)
            facts = {k: v for k, v in vars(prepared).items() if k != "clips"}
            outcomes.append(track | facts | {"clips": len(prepared.clips), "part": name})
        rows.finish()
    table = pa.Table.from_pylist(outcomes, OUTCOME_SCHEMA)
    written.write_table(table)
    return table


def unchanged(tracks: pa.Table) -> pa.Table:
    """Those of the tracks whose file still has the SHA-256 in the column `content`."""
    same = [_has_content(row["path"], row["content"]) for row in tracks.select(["path", "content"]).to_pylist()]
    return tracks.filter(pa.array(same, pa.bool_()))


class _ClipRows:
    """The clips of one block on their way to Parquet, a row group at a time, so that long tracks do not fill memory.

    The file is opened with the first of them, and appears when `stack` closes without an error.
    """

    def __init__(self, stack: contextlib.ExitStack, target: Location, shape: features.Shape) -> None:
        self._stack, self._target, self._schema = stack, target, shape.clip_schema()
        self._file: pq.ParquetWriter | None = None
        self._waiting: list[tuple[str, int, PreparedClip]] = []

    def add(self, track_id: str, clips: list[PreparedClip]) -> None:
        self._waiting += [(track_id, number, clip) for number, clip in enumerate(clips)]
        while len(self._waiting) >= features.ROW_GROUP:
            self._write(features.ROW_GROUP)

    def finish(self) -> None:
        if self._waiting:
            self._write(len(self._waiting))

    def _write(self, count: int) -> None:
        if self._file is None:
            writer = self._target.table_writer(self._schema, **features.WRITE_OPTIONS)
            self._file = self._stack.enter_context(writer)
        rows = [{"track_id": track, "clip": number} | vars(clip) for track, number, clip in self._waiting[:count]]
        self._file.write_table(pa.Table.from_pylist(rows, self._schema))
        del self._waiting[:count]


# What a block knows of a track; genre, group and split belong to the corpus and are joined at the end.
OUTCOME_SCHEMA = pa.schema([f for f in features.TRACK_SCHEMA if f.name not in ("genre", "group", "split")])


def _has_content(address: str, digest: str) -> bool:
    try:
        return Location.of(address).sha256() == digest
    except OSError:
        return False


def _digest(tracks: pa.Table, recipe: Recipe) -> str:
    listed = tracks.select(["track_id", "size", "modified"]).to_pylist()
    return fingerprint({"tracks": listed, "recipe": recipe.fingerprint()})
