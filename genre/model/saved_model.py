"""Saved models before their weights are loaded: card and calibration. Imports neither torch nor onnxruntime.

A saved model is a folder (`card`, `checkpoint`, `calibration`) or an exported file (`onnx_file`). Several models are an
ensemble: their probabilities are averaged, and the mean is calibrated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from genre.arrays import Float32
from genre.config import differences
from genre.errors import ArtifactError, ConfigError, install
from genre.model import calibration, onnx_file
from genre.model.calibration import Calibration, ValidationPredictions
from genre.model.card import CARD, ModelCard, has_card, is_exported, read_card, seeds_of
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
    """A saved model without its weights, and without its validation predictions, which may be some MB."""

    location: Location
    card: ModelCard
    weights: str  # SHA-256 of the weights; for an exported file, of those that were exported

    @classmethod
    def read(cls, folder: Location) -> SavedModel:
        """Read the card of the model in `folder`. Raises `ArtifactError` like `read_card`."""
        return cls(folder, *read_card(folder))

    @classmethod
    def read_with_validation(cls, location: Location) -> tuple[SavedModel, ValidationPredictions | None]:
        """Read a folder or an exported file, and its validation predictions, None when it has none.

        Raises `ArtifactError` when it is missing, altered or from another version.
        """
        if is_exported(location):
            card, weights, validation = onnx_file.read(location)
            return cls(location, card, weights), validation
        model = cls.read(location)
        return model, model.read_validation()

    def read_validation(self) -> ValidationPredictions | None:
        """Return the validation predictions that the folder or the file holds now; None when it has none."""
        if self.is_exported:
            return onnx_file.read(self.location)[2]
        return calibration.load(self.location, self.weights, len(self.card.classes))

    @property
    def is_exported(self) -> bool:
        return is_exported(self.location)


def all_seeds(folder: Location) -> list[SavedModel]:
    """Return the models of all seeds that `tune` saved in a folder, or the single model that `train` saved.

    If `train` replaced the one of the seeds that `tune` chose, it is that single model.
    """
    runs = [SavedModel.read(seed) for seed in seeds_of(folder) if has_card(seed)]
    if has_card(folder) and (chosen := SavedModel.read(folder)).weights not in {model.weights for model in runs}:
        return [chosen]
    return runs


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
        predictions: list[ValidationPredictions | None] = []
        for location in locations:
            model, validation = SavedModel.read_with_validation(location)
            models.append(model)
            predictions.append(validation)
            _check_fits(models[0], model)
        return cls(models, calibration.fit(predictions, precision))

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
            from genre.features.preparing.tracks import TrackPreparer
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
