"""Tracks -> clips of features on disk, a block at a time. Knows nothing of who runs the blocks.

A block writes `clips/<name>.parquet` and then `outcomes/<name>.parquet` with one row for each of its
tracks. A track is done once its outcome is there, so a killed job loses at most the blocks under way,
and `finish` turns all outcomes into the folder's final tables.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from genre import audio, features
from genre.config import AudioSettings, Config, PrepareSettings, Settings, SpectrogramSettings, fingerprint
from genre.errors import AudioError, Reason
from genre.isolation import IsolatedKernel
from genre.spectrogram import LogMel
from genre.storage import Location

# Part of the fingerprint: raise it whenever the same file and settings give other bytes than before.
KERNEL_VERSION = 1


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
        content = _read(address)
        sound = audio.decode(content, self._recipe.prepare)
        prepared = [self._prepare(clip) for clip in audio.clips(sound, self._recipe.audio)]
        spectrograms = hashlib.sha256(b"".join(clip.spectrogram for clip in prepared))
        return PreparedTrack(
            content=hashlib.sha256(content).hexdigest(),
            sound=spectrograms.hexdigest(),
            seconds=len(sound.samples) / sound.sample_rate,
            sample_rate=sound.sample_rate,
            channels=sound.samples.shape[1],
            truncated=sound.truncated,
            clips=prepared,
        )

    def _prepare(self, clip: audio.Clip) -> PreparedClip:
        values, peak = features.encode(self._log_mel(clip.samples), self._recipe.spectrogram.range_db)
        return PreparedClip(clip.start_seconds, peak, values.tobytes())


def prepare_block(tracks: pa.Table, recipe: Recipe, folder: Location) -> pa.Table:
    """Features of a table of scanned tracks, written below `folder`; returns one outcome a track.

    The file's name follows from the tracks in it, so a block that runs twice overwrites itself.
    """
    kernel = IsolatedKernel.shared(TrackKernel, recipe)
    name = f"{_digest(tracks, recipe)}.parquet"
    outcomes: list[dict[str, Any]] = []
    clips: list[dict[str, Any]] = []
    for track in tracks.select(["track_id", "path", "size", "modified"]).to_pylist():
        try:
            prepared = kernel(track["path"], recipe.prepare.file_timeout_s)
        except AudioError as error:
            outcomes.append(track | {"reason": error.reason.value, "message": " ".join(str(error).split())})
            continue
        facts = {k: v for k, v in vars(prepared).items() if k != "clips"}
        outcomes.append(track | facts | {"clips": len(prepared.clips), "part": name})
        ids = {"track_id": track["track_id"]}
        clips += [ids | {"clip": i} | vars(clip) for i, clip in enumerate(prepared.clips)]
    if clips:
        table = pa.Table.from_pylist(clips, recipe.shape().clip_schema())
        # spectrogram bytes hardly repeat: a dictionary only costs time, zstd level 1 is nearly free
        options = {"compression": "zstd", "compression_level": 1, "use_dictionary": ["track_id"]}
        (folder / "clips" / name).write_table(table, row_group_size=256, **options)
    table = pa.Table.from_pylist(outcomes, OUTCOME_SCHEMA)
    (folder / "outcomes" / name).write_table(table)
    return table


# What a block knows of a track; genre, group and split belong to the corpus and are joined at the end.
OUTCOME_SCHEMA = pa.schema([f for f in features.TRACK_SCHEMA if f.name not in ("genre", "group", "split")])


def _read(address: str) -> bytes:
    try:
        return Location.of(address).read_bytes()
    except OSError as error:
        raise AudioError(Reason.UNREADABLE, error.strerror or str(error)) from None


def _digest(tracks: pa.Table, recipe: Recipe) -> str:
    listed = tracks.select(["track_id", "size", "modified"]).to_pylist()
    return fingerprint({"tracks": listed, "recipe": recipe.fingerprint()})
