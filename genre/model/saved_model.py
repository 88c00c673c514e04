"""Saved models before their weights are loaded: card and calibration. Imports neither torch nor onnxruntime.

A saved model is a folder (`card`, `checkpoint`, `calibration`) or an exported file (`onnx_file`). Several models are an
ensemble: their probabilities are averaged, and the mean is calibrated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from genre.arrays import Float32
from genre.config import differences
from genre.errors import ArtifactError, ConfigError, install
from genre.model import calibration, onnx_file
from genre.model.calibration import Calibration, ValidationPredictions
from genre.model.card import CARD, ModelCard, is_exported, read_card
from genre.model.decoder import Decoder, WaveformPreparer
from genre.settings import DecodingSettings
from genre.storage import Location

WEIGHTS = "weights.safetensors"


class Ensemble(Protocol):
    """One or several loaded models whose predictions are averaged: `TorchEnsemble` or `OnnxEnsemble`."""

    decoder: Decoder

    @property
    def cards(self) -> list[ModelCard]: ...

    def predict(self, tracks: Sequence[Any]) -> tuple[Float32, Float32 | None]:
        """Return the mean probabilities over the models for each clip of `tracks`, not calibrated, and embeddings.

        (clips, classes) and (clips, size). Only one model in a folder has embeddings.
        """


@dataclass(frozen=True)
class SavedModel:
    """A saved model without its weights."""

    location: Location
    card: ModelCard
    weights: str  # SHA-256 of the weights; for an exported file, of those that were exported
    validation: ValidationPredictions | None

    @classmethod
    def read(cls, location: Location) -> SavedModel:
        """Read the model at `location`. Raises `ArtifactError` when it is missing, altered or from another version."""
        if is_exported(location):
            return cls(location, *onnx_file.read(location))
        card, weights = read_card(location)
        return cls(location, card, weights, calibration.load(location, weights, len(card.classes)))

    @property
    def is_exported(self) -> bool:
        return is_exported(self.location)


@dataclass(frozen=True)
class SavedEnsemble:
    """One or several saved models whose predictions are averaged, and the calibration of the mean; no weights."""

    models: list[SavedModel]
    calibration: Calibration

    @classmethod
    def read(cls, locations: Sequence[Location], precision: float) -> SavedEnsemble:
        """Read the models' cards, and calibrate for `precision`.

        Raises `ArtifactError` when a model is missing or altered, or does not fit the others.
        """
        models: list[SavedModel] = []
        for location in locations:
            models.append(SavedModel.read(location))
            _check_fits(models[0], models[-1])
        return cls(models, calibration.fit([model.validation for model in models], precision))

    @property
    def classes(self) -> list[str]:
        return self.models[0].card.classes

    @property
    def architectures(self) -> list[str]:
        return [model.card.architecture for model in self.models]

    @property
    def weights(self) -> list[str]:
        """SHA-256 of each model's weights."""
        return [model.weights for model in self.models]

    @property
    def addresses(self) -> list[str]:
        return [str(model.location) for model in self.models]

    @property
    def is_exported(self) -> bool:
        return self.models[0].is_exported

    def for_workers(self) -> SavedEnsemble:
        """Return the same without the validation predictions, which are large and no longer needed."""
        return replace(self, models=[replace(model, validation=None) for model in self.models])

    def check_weights(self) -> None:
        """Raise `ArtifactError` when weights are missing or altered. To be called before a cluster is started."""
        for model in self.models:
            if not model.is_exported:  # an exported file was read completely
                read_weights(model.location, model.weights)

    def decoder(self, limits: DecodingSettings) -> Decoder:
        """Return the decoder of the models, without loading the weights.

        Raises `ArtifactError` when the models take no audio.
        """
        recipe = self.models[0].card.recipe(limits)
        if self.is_exported:
            return Decoder(WaveformPreparer, recipe)
        with self._full_install():
            from genre.features.preparation import TrackPreparer
        return Decoder(TrackPreparer, recipe)

    def load(self, limits: DecodingSettings, device: str = "cpu", threads: int = 0) -> Ensemble:
        """Load the weights to `device`; exported models always compute on the CPU. `threads` 0: the library's default.

        Raises `ArtifactError` when weights are missing or altered or the models take no audio, and `ConfigError` when
        a model is a folder and torch is not installed.
        """
        if self.is_exported:
            from genre.model.onnx_ensemble import OnnxEnsemble

            return OnnxEnsemble(self.models, self.decoder(limits), threads)
        with self._full_install():
            from genre.model.torch_ensemble import TorchEnsemble
        return TorchEnsemble(self.models, self.decoder(limits), device, threads)

    @contextmanager
    def _full_install(self) -> Iterator[None]:
        """Raise `ConfigError` with the extra to install when an import in the block fails."""
        try:
            yield
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{self.models[0].location}: the folder of a model needs {error.name}, which is not installed; "
                f"{install('train')}, or use the .onnx file that export makes of it"
            ) from None


def read_weights(folder: Location, digest: str) -> bytes:
    """Return the weights of the model in `folder`. Raises `ArtifactError` unless `digest` is their SHA-256."""
    path = folder / WEIGHTS
    if not path.exists():
        raise ArtifactError(f"{folder}: {WEIGHTS} is missing; train the model again or copy the complete folder")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise ArtifactError(f"{path}: not the weights that {CARD} lists; copy the complete folder again")
    return content


def _check_fits(first: SavedModel, other: SavedModel) -> None:
    """Raise `ArtifactError` unless both models have the same kind, genres and features."""
    if other.is_exported != first.is_exported:
        raise ArtifactError(
            f"{other.location} and {first.location}: a folder and an exported file cannot be combined; "
            "name only folders or only files"
        )
    if other.card.classes != first.card.classes:
        raise ArtifactError(
            f"{other.location} knows the genres {', '.join(other.card.classes)}, {first.location} "
            f"{', '.join(first.card.classes)}; only models of the same genres can be combined"
        )
    if other.card.fingerprint != first.card.fingerprint:
        changes = differences(first.card.features, other.card.features)
        raise ArtifactError(
            f"{other.location} takes other features than {first.location}: "
            f"{next(iter(changes), 'made by another version')}; only models of the same features can be combined"
        )
