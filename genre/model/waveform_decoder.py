"""Decode files to the waveforms that an exported model takes. Imports neither torch nor OpenCV, for light installs.

The counterpart for models in folders is `spectrogram_decoder`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from genre.arrays import Float32
from genre.audio import recordings
from genre.audio.isolation import IsolatedKernel
from genre.audio.recordings import Clip
from genre.features.recipe import Recipe


@dataclass(frozen=True)
class WaveformTrack:
    """A decoded track: its clips of one length, scaled to a peak of 1 over the track."""

    content: str  # SHA-256 of the file
    seconds: float
    clips: list[Clip]


class WaveformKernel:
    """Maps the address of a file to a `WaveformTrack`, or raises `AudioError`."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def __call__(self, address: str) -> WaveformTrack:
        content = recordings.read(address, self._recipe.decoding.file_timeout_s)
        recording = recordings.load(content, self._recipe.audio, self._recipe.decoding)
        clips = recordings.cut(recording, self._recipe.audio)
        return WaveformTrack(hashlib.sha256(content).hexdigest(), recording.seconds, clips)


class WaveformDecoder:
    """Decodes files in a child process, where a bad file can do no harm, and arrays in this process."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._kernel = IsolatedKernel.shared(WaveformKernel, recipe, memory_mb=recipe.decoding.max_file_memory_mb)

    def __call__(self, path: str) -> WaveformTrack:
        """Return the clips of a file. Raises `AudioError`."""
        track: WaveformTrack = self._kernel(path, self.recipe.decoding.file_timeout_s)
        return track

    def waveform(self, samples: Float32, sample_rate: int) -> WaveformTrack:
        """Return the clips of samples (frames,) or (frames, channels) at `sample_rate` Hz. Raises `AudioError`."""
        recording = recordings.of_samples(samples, sample_rate, self.recipe.audio)
        return WaveformTrack("", recording.seconds, recordings.cut(recording, self.recipe.audio))
