"""Decode tracks and store their clips, a block of tracks at a time.

A block writes `clips/<name>.parquet` and then `outcomes/<name>.parquet` with one row for each of its tracks. A track
is done once its outcome exists, so a killed job loses at most the blocks in progress. `finishing.finish` turns all
outcomes into the folder's final tables. Independent of what runs the blocks.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from genre import memory
from genre.audio import recordings
from genre.audio.isolation import IsolatedFunction
from genre.audio.recordings import Recording
from genre.audio.spectrogram import LogMel
from genre.config import fingerprint
from genre.corpora import MISSING
from genre.errors import AudioError, Reason
from genre.features.clips import Clips, StoredClip
from genre.features.encoding import encode
from genre.features.preparing import parts, sketches
from genre.features.recipe import Recipe
from genre.features.schema import OUTCOME_FILE_SCHEMA, ROW_GROUP, WRITE_OPTIONS, Shape
from genre.storage import Location

_COMPARING_SECONDS = 120.0  # that a storage may be unavailable while files are compared with what was prepared


@dataclass(frozen=True)
class PreparedTrack:
    """The result of decoding a file."""

    content: str  # SHA-256 of the file
    sound: str  # SHA-256 of the spectrograms
    seconds: float
    end_seconds: float  # where its sound ends: silence after it is in no clip
    sample_rate: int
    channels: int
    truncated: bool
    clips: list[StoredClip]


class ClipEncoder:
    """Turns recordings into stored clips with one recipe. Build it once and call it for each recording."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._log_mel = LogMel(recipe.spectrogram, recipe.audio.sample_rate)

    def __call__(self, recording: Recording) -> list[StoredClip]:
        """Trim and cut a recording, and encode each clip. Raises `AudioError` (too_short)."""
        return [self._encode(clip) for clip in recordings.cut(recording, self._recipe.audio)]

    def _encode(self, clip: recordings.Clip) -> StoredClip:
        spectrogram, peak_db = encode(self._log_mel(clip.samples), self._recipe.spectrogram.range_db)
        return StoredClip(clip.start_seconds, peak_db, spectrogram.tobytes())


class TrackPreparer:
    """Decodes the file at an address to a `PreparedTrack`. Runs in the isolated child process."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._encoder = ClipEncoder(recipe)

    def __call__(self, address: str) -> PreparedTrack:
        """Decode a file. Raises `AudioError`, and `StorageError` when it cannot be reached."""
        content = recordings.read(address, self._recipe.decoding.file_timeout_s)
        recording = recordings.load(content, self._recipe.audio, self._recipe.decoding)
        return self.track(recording, hashlib.sha256(content).hexdigest())

    def track(self, recording: Recording, content: str = "") -> PreparedTrack:
        """Encode the clips of a recording. Raises `AudioError` (too_short)."""
        clips = self._encoder(recording)
        sound = hashlib.sha256()
        for clip in clips:
            sound.update(clip.spectrogram)
        return PreparedTrack(
            content=content,
            sound=sound.hexdigest(),
            seconds=recording.seconds,
            end_seconds=recordings.end_seconds(recording, self._recipe.audio),
            sample_rate=recording.sample_rate,
            channels=recording.channels,
            truncated=recording.truncated,
            clips=clips,
        )


def clips_of(tracks: Sequence[PreparedTrack], shape: Shape) -> Clips:
    """Return the clips of `tracks` in memory, each as a track of its own without a label: each gets a prediction."""
    return Clips.unlabelled([[clip] for track in tracks for clip in track.clips], shape)


def prepare_block(tracks: pa.Table, recipe: Recipe, folder: Location, run: int = 1) -> pa.Table:
    """Write the clips of scanned tracks below `folder` and return one outcome per track.

    The name of the file follows from the run and the tracks: a block that runs twice in one run is decoded once,
    and a later run never overwrites the files of an earlier one.
    """
    name = f"{run:05d}-{_digest(tracks, recipe)}.parquet"
    target = folder / "outcomes" / name
    if target.exists():
        done: pa.Table = target.read_table()
        if parts.have_parts(folder, done).all():
            return done
    memory.keep_freed()
    preparer = IsolatedFunction.shared(TrackPreparer, recipe, memory_mb=recipe.decoding.max_file_memory_mb)
    outcomes: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        writer = _ClipWriter(stack, folder / "clips" / name, recipe.shape())
        for track in tracks.select(["track_id", "path", "size", "modified"]).to_pylist():
            try:
                prepared = _decode(preparer, track, recipe.decoding.file_timeout_s)
            except AudioError as error:
                outcomes.append(track | {"reason": error.reason.value, "message": str(error)})
                continue
            writer.add(track["track_id"], prepared.clips)
            facts = {key: value for key, value in vars(prepared).items() if key not in ("clips", "end_seconds")}
            sketch = sketches.sketch(prepared.clips, prepared.end_seconds, recipe.shape())
            outcomes.append(track | facts | {"sketch": sketch, "clips": len(prepared.clips), "part": name})
        writer.finish()
    if writer.rows:
        part = {"part_bytes": (folder / "clips" / name).size(), "part_rows": writer.rows}
        outcomes = [outcome | part if outcome.get("part") else outcome for outcome in outcomes]
    table = pa.Table.from_pylist(outcomes, OUTCOME_FILE_SCHEMA)
    target.write_table(table)
    return table


def _decode(preparer: IsolatedFunction, track: dict[str, Any], timeout: float) -> PreparedTrack:
    """Decode a track. Raises `AudioError`, and `StorageError` when a file that was listed cannot be reached."""
    if track["size"] == MISSING:
        raise AudioError(Reason.MISSING, "there was no file when the corpus was listed")
    prepared: PreparedTrack = preparer(track["path"], timeout)
    return prepared


def compare(tracks: pa.Table) -> pa.Table:
    """Return the tracks with a column `is_unchanged`: whether their file still has the SHA-256 in `content`.

    It is null for a file that is denied.
    """
    unchanged = [_has_content(row["path"], row["content"]) for row in tracks.select(["path", "content"]).to_pylist()]
    return tracks.append_column("is_unchanged", pa.array(unchanged, pa.bool_()))


class _ClipWriter:
    """Writes the clips of one block to Parquet, a row group at a time, so that long tracks do not fill memory.

    The file is opened with the first clip, and appears when `stack` closes without an error.
    """

    def __init__(self, stack: contextlib.ExitStack, target: Location, shape: Shape) -> None:
        self.rows = 0  # written so far
        self._stack, self._target, self._schema = stack, target, shape.clip_schema()
        self._file: pq.ParquetWriter | None = None
        self._waiting: list[tuple[str, int, StoredClip]] = []

    def add(self, track_id: str, clips: list[StoredClip]) -> None:
        self._waiting += [(track_id, number, clip) for number, clip in enumerate(clips)]
        while len(self._waiting) >= ROW_GROUP:
            self._write(ROW_GROUP)

    def finish(self) -> None:
        if self._waiting:
            self._write(len(self._waiting))

    def _write(self, count: int) -> None:
        if self._file is None:
            writer = self._target.table_writer(self._schema, **WRITE_OPTIONS)
            self._file = self._stack.enter_context(writer)
        rows = [{"track_id": track, "clip": number} | vars(clip) for track, number, clip in self._waiting[:count]]
        self._file.write_table(pa.Table.from_pylist(rows, self._schema))
        self.rows += count
        del self._waiting[:count]


def _has_content(address: str, digest: str) -> bool | None:
    try:
        return hashlib.sha256(recordings.read(address, _COMPARING_SECONDS)).hexdigest() == digest
    except AudioError as error:  # missing or not readable: decoding it gives the reason
        return None if error.reason is Reason.DENIED else False


def _digest(tracks: pa.Table, recipe: Recipe) -> str:
    rows = tracks.select(["track_id", "size", "modified"]).to_pylist()
    return fingerprint({"tracks": rows, "recipe": recipe.fingerprint()})
