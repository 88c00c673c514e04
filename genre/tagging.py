"""Audio files -> ranked genres, through the same functions as training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genre import checkpoint
from genre.checkpoint import ModelCard
from genre.classifier import Classifier, predict
from genre.config import PrepareSettings
from genre.errors import ArtifactError, AudioError
from genre.features import Clips, Float32
from genre.isolation import IsolatedKernel
from genre.preparation import PreparedTrack, Recipe, TrackKernel
from genre.storage import Location


@dataclass(frozen=True)
class Tags:
    """What one file turned out to be: every genre with its probability, best first; or why it could not be read."""

    path: str
    genres: list[tuple[str, float]]
    seconds: float = 0.0
    reason: str | None = None
    message: str | None = None


class Tagger:
    """A saved model that names the genres of audio files."""

    def __init__(self, card: ModelCard, classifier: Classifier, limits: PrepareSettings = PrepareSettings()) -> None:
        self.card = card
        self._classifier = classifier
        self._limits = limits
        self._kernel = IsolatedKernel(TrackKernel, recipe_of(card, limits))

    @classmethod
    def load(cls, folder: str, limits: PrepareSettings = PrepareSettings()) -> Tagger:
        """The model saved in `folder`. Raises `ArtifactError` when it is missing, altered, or takes no audio."""
        return cls(*checkpoint.load(Location.of(folder)), limits)

    def __call__(self, path: str) -> Tags:
        """Genres of one file: probabilities averaged over evenly spaced windows of all of its clips."""
        return self.tag([path])[0]

    def tag(self, paths: Sequence[str]) -> list[Tags]:
        """Genres of several files, in their order; a file that cannot be read costs only itself."""
        results: list[Tags | None] = []
        readable: list[tuple[int, PreparedTrack]] = []
        for number, path in enumerate(paths):
            try:
                readable.append((number, self._kernel(path, self._limits.file_timeout_s)))
                results.append(None)
            except AudioError as error:
                results.append(Tags(path, [], reason=error.reason.value, message=" ".join(str(error).split())))
        if readable:
            probabilities = self._predict([track for _, track in readable])
            for (number, track), row in zip(readable, probabilities, strict=True):
                results[number] = Tags(paths[number], self._ranked(row), track.seconds)
        return [result for result in results if result is not None]

    def _predict(self, tracks: list[PreparedTrack]) -> Float32:
        clips = clips_of(tracks, self.card)
        return predict(self._classifier, clips, self.card.frames(), self.card.eval_windows)

    def _ranked(self, row: Float32) -> list[tuple[str, float]]:
        order = np.argsort(-row, kind="stable")
        return [(self.card.classes[index], float(row[index])) for index in order]


def recipe_of(card: ModelCard, limits: PrepareSettings) -> Recipe:
    """The feature settings that the model was trained with. Raises `ArtifactError` when it knows none for audio."""
    settings: dict[str, Any] = card.features
    if "audio" not in settings:
        raise ArtifactError(
            f"the {card.architecture} model was trained on spectrograms that prepare did not make, "
            "so it cannot take audio; train one on prepared features"
        )
    return Recipe(audio=settings["audio"], spectrogram=settings["spectrogram"], prepare=limits)


def clips_of(tracks: list[PreparedTrack], card: ModelCard) -> Clips:
    """Prepared tracks as clips in memory, one label-less track each."""
    shape = card.shape
    flat = [clip for track in tracks for clip in track.clips]
    content = np.frombuffer(b"".join(clip.spectrogram for clip in flat), np.uint8)
    return Clips(
        spectrograms=content.reshape(len(flat), shape.bins, shape.frames),
        peak_db=np.array([clip.peak_db for clip in flat], np.float32),
        track=np.repeat(np.arange(len(tracks)), [len(track.clips) for track in tracks]),
        track_ids=np.array([track.content for track in tracks]),
        labels=np.zeros(len(tracks), np.int64),
        groups=np.array([track.content for track in tracks]),
        shape=shape,
    )
