"""Decode music to the clips that a model takes. Imports neither torch nor OpenCV: it can start while torch loads.

A model in a folder takes the spectrograms of `features.preparation.TrackPreparer`, an exported one, which may be in a
light install, the waveforms of `WaveformPreparer`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from genre.arrays import Float32
from genre.audio import recordings
from genre.audio.isolation import IsolatedFunction
from genre.audio.recordings import Clip, Recording
from genre.features.recipe import Recipe


class Preparer(Protocol):
    """Maps the address of a file to a track, which has `content` (SHA-256 of the file), `seconds` and `clips`."""

    def __call__(self, address: str) -> Any:
        """Decode a file. Raises `AudioError`, and `StorageError` when it cannot be reached."""

    def track(self, recording: Recording, content: str = "") -> Any:
        """Cut a recording into clips. Raises `AudioError` (too_short)."""


@dataclass(frozen=True)
class WaveformTrack:
    """A decoded track: its clips of one length, scaled to a peak of 1 over the track."""

    content: str  # SHA-256 of the file
    seconds: float
    clips: list[Clip]


class WaveformPreparer:
    """Decodes the file at an address to a `WaveformTrack`."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def __call__(self, address: str) -> WaveformTrack:
        content = recordings.read(address, self._recipe.decoding.file_timeout_s)
        recording = recordings.load(content, self._recipe.audio, self._recipe.decoding)
        return self.track(recording, hashlib.sha256(content).hexdigest())

    def track(self, recording: Recording, content: str = "") -> WaveformTrack:
        return WaveformTrack(content, recording.seconds, recordings.cut(recording, self._recipe.audio))


class Decoder:
    """Decodes files in a child process, where a bad file can do no harm, and arrays in this process."""

    def __init__(self, preparer: Callable[[Recipe], Preparer], recipe: Recipe) -> None:
        self.recipe = recipe
        self._preparer = preparer
        self._child = IsolatedFunction.shared(preparer, recipe, memory_mb=recipe.decoding.max_file_memory_mb)

    def __call__(self, path: str) -> Any:
        """Return the track in a file. Raises `AudioError`, or `StorageError`."""
        return self._child(path, self.recipe.decoding.file_timeout_s)

    def waveform(self, samples: Float32, sample_rate: int) -> Any:
        """Return the track of samples (frames,) or (frames, channels) at `sample_rate` Hz. Raises `AudioError`."""
        return self._preparer(self.recipe).track(recordings.of_samples(samples, sample_rate, self.recipe.audio))
