"""Ranked genres of audio from one or several saved models, computed by the same functions as in training.

from genre import Tagger

tagger = Tagger.load("outputs/gtzan/models/resnet")
tags = tagger("song.mp3")
print(tags.genre, tags.genres[:3])
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from genre.arrays import Float32
from genre.audio import members
from genre.audio.recordings import MAX_CHANNELS
from genre.errors import AudioError, ConfigError, Reason
from genre.model.calibration import UNKNOWN, Calibration
from genre.model.card import ModelCard
from genre.model.saved_model import Ensemble, SavedEnsemble
from genre.settings import DEFAULT_PRECISION, DecodingSettings
from genre.storage import Location
from genre.storage.faults import retry

if TYPE_CHECKING:
    from genre.model.checkpoint import LoadedModel

# Neither torch nor onnxruntime is imported above: a folder needs the one, an exported file the other.


@dataclass(frozen=True)
class Moment:
    """One clip of a track, from `start` to `end` in seconds of the file: every genre with its probability."""

    start: float
    end: float
    genres: list[tuple[str, float]]


@dataclass(frozen=True)
class Tags:
    """The genres of one piece of music, or why it could not be read (`reason`, `message`)."""

    path: str
    genre: str = UNKNOWN  # the best genre, or UNKNOWN when its probability is below the threshold
    genres: list[tuple[str, float]] = field(default_factory=list)  # all, with calibrated probabilities, best first
    timeline: list[Moment] = field(default_factory=list)
    seconds: float = 0.0
    content: str | None = None  # SHA-256 of the file
    # (size,) input of the last layer, scaled to norm 1; None where `Ensemble.predict` gives none
    embedding: npt.NDArray[np.float16] | None = field(default=None, compare=False, repr=False)
    clip_embeddings: npt.NDArray[np.float16] | None = field(default=None, compare=False, repr=False)  # (clips, size)
    reason: str | None = None
    message: str | None = None


class Tagger:
    """Names the genres of files and arrays with one saved model, or with several whose probabilities are averaged."""

    def __init__(self, ensemble: Ensemble, calibration: Calibration) -> None:
        self._ensemble = ensemble
        self.calibration = calibration
        self._clip_seconds = ensemble.cards[0].recipe().audio.clip_seconds

    @classmethod
    def load(
        cls,
        models: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        precision: float = DEFAULT_PRECISION,
        limits: DecodingSettings = DecodingSettings(),
        device: str = "cpu",
        threads: int = 0,
    ) -> Tagger:
        """Load a model's folder or its exported `.onnx` file, or several folders or several files.

        `precision` is the required share of correct genres among those that are named, proven with 90 % confidence on
        held-out tracks; a prediction below its genre's threshold is `UNKNOWN`. With 0 every piece gets a genre.
        `device` is for folders; exported files run on the CPU. `threads` is for the CPU: 0 leaves their number to the
        library; torch has one number for the process.

        Raises `ArtifactError` when a model is missing, altered, takes no audio, or does not fit the others, and
        `ConfigError` when a folder is given and torch is not installed.
        """
        if not 0 <= precision < 1:
            raise ConfigError(f"precision: found {precision}; must be at least 0 and less than 1")
        locations = [Location.of(each) for each in ([models] if isinstance(models, str | os.PathLike) else models)]
        if not locations:
            raise ConfigError("no model was named; give the folder of one, as Tagger.load('outputs/run/models/cnn')")
        saved = SavedEnsemble.read(locations, precision)
        return cls(saved.load(limits, device, threads), saved.calibration)

    @property
    def classes(self) -> list[str]:
        """The genres that the models know, in the order of their outputs."""
        return self.cards[0].classes

    @property
    def cards(self) -> list[ModelCard]:
        """The card of each model."""
        return self._ensemble.cards

    @property
    def models(self) -> list[LoadedModel]:
        """The models with their torch networks. Raises `ConfigError` for exported files."""
        models: list[LoadedModel] | None = getattr(self._ensemble, "models", None)
        if models is None:
            raise ConfigError("an exported file holds no torch network; name the model's folder")
        return models

    def __call__(self, path: str | os.PathLike[str]) -> Tags:
        """Return the genres of one file. Raises `AudioError` when it cannot be read."""
        file = Location.of(members.file_of(os.fspath(path)))
        if not retry(file.exists, file):  # a wrong path fails at once; `decode` would wait
            raise AudioError(Reason.UNREADABLE, os.strerror(errno.ENOENT))
        return self.name(os.fspath(path), self.decode(path))

    def decode(self, path: str | os.PathLike[str]) -> Any:
        """Decode one file into the clips that the models take. Raises `AudioError`, or `StorageError`."""
        return self._ensemble.decoder(os.fspath(path))

    def tag(self, paths: Sequence[str | os.PathLike[str]]) -> list[Tags]:
        """Return the genres of several files, in their order; for an unreadable file the reason."""
        results: dict[int, Tags] = {}
        tracks: dict[int, Any] = {}
        for number, path in enumerate([os.fspath(path) for path in paths]):
            try:
                tracks[number] = self._ensemble.decoder(path)
            except AudioError as error:
                results[number] = Tags(path, reason=error.reason.value, message=str(error))
        tags = self.name_all([os.fspath(paths[number]) for number in tracks], list(tracks.values()))
        results |= dict(zip(tracks, tags, strict=True))
        return [results[number] for number in range(len(paths))]

    def tag_arrays(self, waveforms: Sequence[Float32], sample_rate: int) -> list[Tags]:
        """Return the genres of waveforms (frames,) or (frames, channels) at `sample_rate` Hz.

        Raises `AudioError` when a waveform is silent, too short or not finite, and `ConfigError` for other shapes.
        """
        tracks = [self._ensemble.decoder.waveform(wave, sample_rate) for wave in _checked(waveforms)]
        return self.name_all([""] * len(tracks), tracks)

    def name(self, path: str, track: Any) -> Tags:
        """Return the genres of a track that was decoded for these models, or for others with the same features."""
        return self.name_all([path], [track])[0]

    def name_all(self, paths: Sequence[str], tracks: Sequence[Any]) -> list[Tags]:
        """Return the genres of several tracks, like `name`."""
        if not tracks:
            return []
        probabilities, embeddings = self._ensemble.predict(tracks)
        ends = np.cumsum([len(track.clips) for track in tracks])[:-1]
        groups = np.split(probabilities, ends)
        points = [None] * len(tracks) if embeddings is None else np.split(embeddings, ends)
        return [self._tags(*each) for each in zip(paths, tracks, groups, points, strict=True)]

    def _tags(self, path: str, track: Any, by_clip: Float32, points: Float32 | None) -> Tags:
        mean = self.calibration(by_clip.mean(axis=0))
        genres = self._ranked(mean)
        timeline = [
            Moment(clip.start_seconds, min(clip.start_seconds + self._clip_seconds, track.seconds), self._ranked(row))
            for clip, row in zip(track.clips, self.calibration(by_clip), strict=True)
        ]
        genre = UNKNOWN if self.calibration.reported(mean) < 0 else genres[0][0]
        vectors = (None, None) if points is None else (_unit(points.mean(axis=0, dtype=np.float64)), _unit(points))
        return Tags(path, genre, genres, timeline, track.seconds, track.content or None, *vectors)

    def _ranked(self, row: Float32) -> list[tuple[str, float]]:
        order = np.argsort(-row, kind="stable")
        return [(self.classes[index], float(row[index])) for index in order]


def _checked(waveforms: Sequence[Float32]) -> Iterator[Float32]:
    """Yield the waveforms as arrays. Raises `ConfigError` when their shapes cannot be those of waveforms."""
    needed = "give a list of arrays (frames,) or (frames, channels)"
    shape: tuple[int, ...] = getattr(waveforms, "shape", ())
    if len(shape) == 2 and shape[1] <= MAX_CHANNELS:
        raise ConfigError(f"waveforms: found a single array of shape {shape}; {needed}")
    for wave in map(np.asarray, waveforms):
        if wave.ndim not in (1, 2) or (wave.ndim == 2 and 0 < len(wave) < wave.shape[1]):
            raise ConfigError(f"waveforms: found an array of shape {wave.shape}; {needed}")
        yield wave


def _unit(vectors: Float32) -> npt.NDArray[np.float16]:
    """Return vectors (..., size) scaled to a norm of 1.

    A network whose last layer takes only zeros gives zeros, which are similar to nothing.
    """
    norms = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    scaled: npt.NDArray[np.float16] = (vectors / np.maximum(norms, 1e-30)).astype(np.float16)
    return scaled
