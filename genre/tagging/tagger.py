"""Audio -> ranked genres with a saved model or several, through the same functions as training.

from genre import Tagger

tagger = Tagger.load("outputs/gtzan/models/resnet")
tags = tagger("song.mp3")
print(tags.genre, tags.genres[:3])
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from genre.config import PrepareSettings
from genre.errors import AudioError, ConfigError
from genre.features import Float32
from genre.model import calibration, saved_model
from genre.model.calibration import UNKNOWN, Calibration
from genre.model.saved_model import ModelCard, SavedModel
from genre.storage import Location

if TYPE_CHECKING:
    from genre.model.classifier import Classifier

PRECISION = 0.8

# Neither torch nor onnxruntime is imported above: each kind of model needs one of them.


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


class Ensemble(Protocol):
    """Models that answer together, whatever computes them. A decoded track has `content`, `seconds` and `clips`."""

    cards: list[ModelCard]

    def decode(self, path: str) -> Any: ...

    def waveform(self, samples: Float32, sample_rate: int) -> Any: ...

    def probabilities(self, tracks: Sequence[Any]) -> Float32: ...


class Tagger:
    """One saved model or several that answer together; names the genres of files and of arrays."""

    def __init__(self, models: Ensemble, correct: Calibration) -> None:
        self._ensemble = models
        self.calibration = correct

    @classmethod
    def load(
        cls,
        models: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        precision: float = PRECISION,
        limits: PrepareSettings = PrepareSettings(),
        device: str = "cpu",
        threads: int = 0,
    ) -> Tagger:
        """Load a model's folder or its exported `.onnx` file, or several of a kind, whose probabilities are averaged.

        `precision` is the share of right answers on validation tracks that a named genre must promise; a less
        sure answer is `UNKNOWN`. With 0 every piece gets a genre. `device` is that of folders; exported files
        answer on the CPU. `threads` of a CPU: 0 leaves them to the library; torch has one number for the process.

        Raises `ArtifactError` when a model is missing, altered, takes no audio, or does not fit the others, and
        `ConfigError` when a folder is given and torch is not installed.
        """
        if not 0 <= precision < 1:
            raise ConfigError(f"precision: found {precision}; must be at least 0 and less than 1")
        places = [Location.of(one) for one in ([models] if isinstance(models, str | os.PathLike) else models)]
        if not places:
            raise ConfigError("no model was named; give the folder of one, as Tagger.load('outputs/run/models/cnn')")
        found = saved_model.read_together(places)
        correct = calibration.fit([model.answers for model in found], precision)
        return cls(ensemble(found, limits, device, threads), correct)

    @property
    def classes(self) -> list[str]:
        """The genres that can be answered, in the order of the model's outputs."""
        return self.cards[0].classes

    @property
    def cards(self) -> list[ModelCard]:
        """What each model knows about itself."""
        return self._ensemble.cards

    @property
    def classifiers(self) -> list[Classifier]:
        """The networks themselves, in the order of `cards`. Raises `ConfigError` for exported files."""
        found: list[Classifier] | None = getattr(self._ensemble, "classifiers", None)
        if found is None:
            raise ConfigError("an exported file holds no network that torch can ask; name the model's folder")
        return found

    def __call__(self, path: str | os.PathLike[str]) -> Tags:
        """Genres of one file. Raises `AudioError` when it cannot be read."""
        return self.name(os.fspath(path), self.decode(path))

    def decode(self, path: str | os.PathLike[str]) -> Any:
        """Decode one file into the clips that the models take. Raises `AudioError`."""
        return self._ensemble.decode(os.fspath(path))

    def tag(self, paths: Sequence[str | os.PathLike[str]]) -> list[Tags]:
        """Genres of several files, in their order; a file that cannot be read costs only itself."""
        results: dict[int, Tags] = {}
        tracks: dict[int, Any] = {}
        for number, path in enumerate([os.fspath(path) for path in paths]):
            try:
                tracks[number] = self._ensemble.decode(path)
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
        tracks = [self._ensemble.waveform(np.asarray(wave), sample_rate) for wave in waveforms]
        return self._name([""] * len(tracks), tracks)

    def name(self, path: str, track: Any) -> Tags:
        """Genres of a track that these models, or others of the same features, decoded."""
        return self._name([path], [track])[0]

    def probabilities(self, tracks: Sequence[Any]) -> Float32:
        """Mean over the models, not calibrated, for each clip of decoded tracks: (clips, classes)."""
        return self._ensemble.probabilities(tracks)

    def _name(self, paths: Sequence[str], tracks: list[Any]) -> list[Tags]:
        if not tracks:
            return []
        by_clip = self.probabilities(tracks)
        ends = np.cumsum([len(track.clips) for track in tracks])
        groups = np.split(by_clip, ends[:-1])
        return [self._tags(*one) for one in zip(paths, tracks, groups, strict=True)]

    def _tags(self, path: str, track: Any, by_clip: Float32) -> Tags:
        genres = self._ranked(self.calibration(by_clip.mean(axis=0)))
        clip_seconds: float = self.cards[0].features["audio"]["clip_seconds"]
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


def decoder(model: SavedModel, limits: PrepareSettings) -> Callable[[str], Any]:
    """Return what decodes files into what `Tagger.name` takes, without loading the model's weights."""
    if model.is_exported:
        from genre.model import exported

        return exported.decoder(model.card, limits)
    with _full_install(model):
        from genre.model import decoding
    return decoding.decoder(model.card, limits)


def ensemble(models: Sequence[SavedModel], limits: PrepareSettings, device: str = "cpu", threads: int = 0) -> Ensemble:
    """Load the weights of models that fit each other. Raises as `Tagger.load` does."""
    if models[0].is_exported:
        from genre.model.exported import ExportedModels

        return ExportedModels(models, limits, threads)
    with _full_install(models[0]):
        from genre.model.networks import Networks
    return Networks(models, limits, device, threads)


@contextmanager
def _full_install(model: SavedModel) -> Iterator[None]:
    """Say what imports within `with` lack, and what does without them."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{model.place}: the folder of a model needs {error.name}, which is not installed; "
            "pip install 'genre[train]', or use the .onnx file that export makes of it"
        ) from None
