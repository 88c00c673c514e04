"""Files -> the waveforms that an exported model takes. Imports neither torch nor OpenCV: a light install has none."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from genre.audio import recordings
from genre.audio.isolation import IsolatedKernel
from genre.audio.recordings import Clip, Samples
from genre.config import AudioSettings, PrepareSettings


@dataclass(frozen=True)
class WaveTrack:
    """A decoded track: its clips of one length, scaled to a peak of 1 over the track."""

    content: str  # SHA-256 of the file
    seconds: float
    clips: list[Clip]


class WaveKernel:
    """Address of a file -> `WaveTrack`, or an `AudioError`."""

    def __init__(self, settings: AudioSettings, limits: PrepareSettings) -> None:
        self._settings, self._limits = settings, limits

    def __call__(self, address: str) -> WaveTrack:
        content = recordings.read(address)
        recording = recordings.load(content, self._settings, self._limits)
        clips = recordings.cut(recording, self._settings)
        return WaveTrack(hashlib.sha256(content).hexdigest(), recording.seconds, clips)


class WaveDecoder:
    """Decodes files in a process of its own, where a bad one can do no harm, and arrays in this one."""

    def __init__(self, settings: AudioSettings, limits: PrepareSettings) -> None:
        self._settings, self._limits = settings, limits
        self._kernel = IsolatedKernel.shared(WaveKernel, settings, limits, memory_mb=limits.max_file_memory_mb)

    def __call__(self, path: str) -> WaveTrack:
        """Clips of one file. Raises `AudioError`."""
        track: WaveTrack = self._kernel(path, self._limits.file_timeout_s)
        return track

    def waveform(self, samples: Samples, sample_rate: int) -> WaveTrack:
        """Clips of samples (frames,) or (frames, channels) at `sample_rate` Hz. Raises `AudioError`."""
        frames = samples.reshape(len(samples), -1).astype(np.float32, copy=False)
        recording = recordings.of_samples(frames, sample_rate, self._settings)
        return WaveTrack("", recording.seconds, recordings.cut(recording, self._settings))
