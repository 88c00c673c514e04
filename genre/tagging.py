"""Audio -> ranked genres with a saved model or several, through the same functions as training.

from genre import Tagger

tagger = Tagger.load("outputs/gtzan/models/resnet")
tags = tagger("song.mp3")
print(tags.genre, tags.genres[:3])
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from genre import calibration, checkpoint
from genre.calibration import UNKNOWN, Calibration
from genre.checkpoint import ModelCard
from genre.classifier import Classifier, predict
from genre.config import PrepareSettings
from genre.decoding import Decoder, clips_of, recipe_of
from genre.errors import ArtifactError, AudioError, ConfigError
from genre.features import Clips, Float32
from genre.preparation import PreparedTrack
from genre.storage import Location

PRECISION = 0.8
_BATCH_CPU, _BATCH_GPU = 16, 128  # windows: on a CPU more of them only take more memory


@dataclass(frozen=True)
class Moment:
    """One clip of a track: from `start` to `end` in seconds of the file, every genre with its probability."""

    start: float
    end: float
    genres: list[tuple[str, float]]


@dataclass(frozen=True)
class Tags:
    """What one piece of music turned out to be, or why it could not be read (`reason`, `message`)."""

    path: str
    genre: str = UNKNOWN  # the best genre, or UNKNOWN when the model is not sure enough
    genres: list[tuple[str, float]] = field(default_factory=list)  # all, with calibrated probabilities, best first
    timeline: list[Moment] = field(default_factory=list)
    seconds: float = 0.0
    content: str | None = None  # SHA-256 of the file
    reason: str | None = None
    message: str | None = None


@dataclass(frozen=True)
class _Member:
    classifier: Classifier
    card: ModelCard


class Tagger:
    """One saved model or several that answer together; names the genres of files and of arrays."""

    def __init__(self, members: Sequence[tuple[ModelCard, Classifier]], correct: Calibration, decoder: Decoder) -> None:
        self._members = [_Member(classifier, card) for card, classifier in members]
        self.calibration = correct
        self._decoder = decoder

    @classmethod
    def load(
        cls,
        models: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        precision: float = PRECISION,
        limits: PrepareSettings = PrepareSettings(),
        device: str = "cpu",
    ) -> Tagger:
        """The model saved in a folder, or in several folders (or addresses), whose probabilities are then averaged.

        `precision` is the share of right answers on validation tracks that a named genre must promise; a less
        sure answer is `UNKNOWN`. With 0 every piece gets a genre.

        Raises `ArtifactError` when a model is missing, altered, takes no audio, or does not fit the others.
        """
        if not 0 <= precision < 1:
            raise ConfigError(f"precision: found {precision}; must be at least 0 and less than 1")
        folders = [Location.of(one) for one in ([models] if isinstance(models, str | os.PathLike) else models)]
        if not folders:
            raise ConfigError("no model was named; give the folder of one, as Tagger.load('outputs/run/models/cnn')")
        loaded = [checkpoint.load(folder) for folder in folders]
        calibration.require_same_genres(folders, [card.classes for card, _ in loaded])
        for folder, (card, classifier) in zip(folders, loaded, strict=True):
            _check_fits(folders[0], loaded[0][0], folder, card)
            classifier.to(device)
        answers = [
            calibration.load(folder, len(card.classes)) for folder, (card, _) in zip(folders, loaded, strict=True)
        ]
        first = loaded[0][0]
        recipe = recipe_of(first.features, first.fingerprint, first.shape, limits)
        return cls(loaded, calibration.fit(answers, precision), Decoder(recipe))

    @property
    def classes(self) -> list[str]:
        """The genres that can be answered, in the order of the model's outputs."""
        return self._members[0].card.classes

    @property
    def cards(self) -> list[ModelCard]:
        """What each model knows about itself."""
        return [member.card for member in self._members]

    @property
    def classifiers(self) -> list[Classifier]:
        """The models themselves, in the order of `cards`."""
        return [member.classifier for member in self._members]

    def __call__(self, path: str | os.PathLike[str]) -> Tags:
        """Genres of one file. Raises `AudioError` when it cannot be read."""
        return self.name(os.fspath(path), self.decode(path))

    def decode(self, path: str | os.PathLike[str]) -> PreparedTrack:
        """The spectrograms that the models take, of one file. Raises `AudioError`."""
        return self._decoder(os.fspath(path))

    def tag(self, paths: Sequence[str | os.PathLike[str]]) -> list[Tags]:
        """Genres of several files, in their order; a file that cannot be read costs only itself."""
        results: dict[int, Tags] = {}
        tracks: dict[int, PreparedTrack] = {}
        for number, path in enumerate([os.fspath(path) for path in paths]):
            try:
                tracks[number] = self._decoder(path)
            except AudioError as error:
                message = " ".join(str(error).split())
                results[number] = Tags(path, reason=error.reason.value, message=message)
        named = self._name([os.fspath(paths[number]) for number in tracks], list(tracks.values()))
        results |= dict(zip(tracks, named, strict=True))
        return [results[number] for number in range(len(paths))]

    def tag_arrays(self, waveforms: Sequence[Float32], sample_rate: int) -> list[Tags]:
        """Genres of waveforms (frames,) or (frames, channels) at `sample_rate` Hz.

        Raises `AudioError` for one that is silent, too short or not finite.
        """
        tracks = [self._decoder.waveform(np.asarray(wave), sample_rate) for wave in waveforms]
        return self._name([""] * len(tracks), tracks)

    def name(self, path: str, track: PreparedTrack) -> Tags:
        """Genres of a track that was decoded with this model's recipe."""
        return self._name([path], [track])[0]

    def probabilities(self, clips: Clips) -> Float32:
        """Mean over the models, not calibrated, of each of `clips`' tracks: (tracks, classes)."""
        batch = _BATCH_CPU if self.classifiers[0].mean.device.type == "cpu" else _BATCH_GPU
        answers = [predict(m.classifier, clips, m.card.frames(), m.card.eval_windows, batch) for m in self._members]
        mean: Float32 = np.mean(answers, axis=0, dtype=np.float32)
        return mean

    def _name(self, paths: Sequence[str], tracks: list[PreparedTrack]) -> list[Tags]:
        if not tracks:
            return []
        by_clip = self.probabilities(clips_of(tracks, self.cards[0].shape))
        ends = np.cumsum([len(track.clips) for track in tracks])
        groups = np.split(by_clip, ends[:-1])
        return [self._tags(*one) for one in zip(paths, tracks, groups, strict=True)]

    def _tags(self, path: str, track: PreparedTrack, by_clip: Float32) -> Tags:
        genres = self._ranked(self.calibration(by_clip.mean(axis=0)))
        clip_seconds = self._decoder.recipe.audio.clip_seconds
        timeline = [
            Moment(clip.start_seconds, min(clip.start_seconds + clip_seconds, track.seconds), self._ranked(row))
            for clip, row in zip(track.clips, self.calibration(by_clip), strict=True)
        ]
        best, probability = genres[0]
        sure = self.calibration.believes(probability)
        return Tags(path, best if sure else UNKNOWN, genres, timeline, track.seconds, track.content or None)

    def _ranked(self, row: Float32) -> list[tuple[str, float]]:
        order = np.argsort(-row, kind="stable")
        return [(self.classes[index], float(row[index])) for index in order]


def _check_fits(first: Location, expected: ModelCard, folder: Location, found: ModelCard) -> None:
    """Models that answer together must mean the same by their inputs."""
    if found.fingerprint != expected.fingerprint:
        different = next(iter(checkpoint.differences(expected.features, found.features)), "made by another version")
        raise ArtifactError(
            f"{folder} takes other features than {first}: {different}; only models of the same features answer together"
        )
