"""Files -> the spectrograms that a saved model takes. Imports no torch, so that it can start while torch loads."""

from __future__ import annotations

from typing import Any

import numpy as np

from genre.audio import recordings
from genre.audio.isolation import IsolatedKernel
from genre.config import PrepareSettings
from genre.errors import ArtifactError
from genre.features import Clips, Float32, Shape
from genre.features.preparation import ClipEncoder, PreparedTrack, TrackKernel
from genre.features.recipe import KERNEL_VERSION, Recipe
from genre.model.saved_model import ModelCard


class Decoder:
    """Decodes files in a process of its own, where a bad one can do no harm, and arrays in this one."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._kernel = IsolatedKernel.shared(TrackKernel, recipe, memory_mb=recipe.prepare.max_file_memory_mb)

    def __call__(self, path: str) -> PreparedTrack:
        """Clips of one file. Raises `AudioError`."""
        track: PreparedTrack = self._kernel(path, self.recipe.prepare.file_timeout_s)
        return track

    def waveform(self, samples: Float32, sample_rate: int) -> PreparedTrack:
        """Clips of samples (frames,) or (frames, channels) at `sample_rate` Hz. Raises `AudioError`."""
        frames = samples.reshape(len(samples), -1).astype(np.float32, copy=False)
        recording = recordings.of_samples(frames, sample_rate, self.recipe.audio)
        return PreparedTrack(
            content="",
            sound="",
            seconds=recording.seconds,
            sample_rate=sample_rate,
            channels=recording.channels,
            truncated=False,
            clips=ClipEncoder(self.recipe)(recording),
        )


def decoder(card: ModelCard, limits: PrepareSettings) -> Decoder:
    """Return what decodes files for a model with this card. Raises `ArtifactError` like `recipe_of`."""
    return Decoder(recipe_of(card.features, card.fingerprint, card.shape, limits))


def recipe_of(settings: dict[str, Any], expected: str, shape: Shape, limits: PrepareSettings) -> Recipe:
    """The feature settings that a model was trained with.

    Raises `ArtifactError` when it knows none for audio, or when they are not those of its `expected`
    fingerprint and `shape`: it would answer, and be wrong.
    """
    recipe = Recipe.from_settings(settings, limits)
    if recipe is None:
        raise ArtifactError(
            "the model was trained on spectrograms that prepare did not make, so it cannot take audio; "
            "train one on prepared features"
        )
    known = {recipe.fingerprint(version) for version in range(1, KERNEL_VERSION + 1)}
    if recipe.shape() != shape or expected not in known:
        raise ArtifactError(
            f"the feature settings in model.json do not fit the model ({recipe.shape()}, its weights take {shape}); "
            "the file was altered or is of a newer version, copy the whole folder again"
        )
    return recipe


def clips_of(tracks: list[PreparedTrack], shape: Shape) -> Clips:
    """Prepared tracks as clips in memory, each clip a track of its own without a label, so that each gets an answer."""
    return Clips.unlabelled([[clip] for track in tracks for clip in track.clips], shape)
