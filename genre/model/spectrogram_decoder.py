"""Decode files to the spectrograms that a model in a folder takes. Imports no torch: it can start while torch loads.

The counterpart for exported files is `waveform_decoder`.
"""

from __future__ import annotations

from genre.arrays import Float32
from genre.audio import recordings
from genre.audio.isolation import IsolatedKernel
from genre.features import Clips, Shape
from genre.features.preparation import ClipEncoder, PreparedTrack, TrackKernel
from genre.features.recipe import Recipe


class SpectrogramDecoder:
    """Decodes files in a child process, where a bad file can do no harm, and arrays in this process."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._kernel = IsolatedKernel.shared(TrackKernel, recipe, memory_mb=recipe.decoding.max_file_memory_mb)

    def __call__(self, path: str) -> PreparedTrack:
        """Return the clips of a file. Raises `AudioError`."""
        track: PreparedTrack = self._kernel(path, self.recipe.decoding.file_timeout_s)
        return track

    def waveform(self, samples: Float32, sample_rate: int) -> PreparedTrack:
        """Return the clips of samples (frames,) or (frames, channels) at `sample_rate` Hz. Raises `AudioError`."""
        recording = recordings.of_samples(samples, sample_rate, self.recipe.audio)
        return PreparedTrack(
            content="",
            sound="",
            seconds=recording.seconds,
            sample_rate=sample_rate,
            channels=recording.channels,
            truncated=False,
            clips=ClipEncoder(self.recipe)(recording),
        )


def clips_of(tracks: list[PreparedTrack], shape: Shape) -> Clips:
    """Return the clips of `tracks` in memory, each as a track of its own without a label: each gets a prediction."""
    return Clips.unlabelled([[clip] for track in tracks for clip in track.clips], shape)
