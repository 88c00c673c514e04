"""A saved model: weights and everything needed to use them, in two files that execute nothing.

    model.json            architecture, parameters, classes, feature settings, windows, facts, hash of the weights
    weights.safetensors   the classifier's tensors, with its normaliser

`model.json` is written last. Loading checks the hash, and that features fit before anything is computed.
"""

from __future__ import annotations

import hashlib
import io
import textwrap
import zipfile
from dataclasses import asdict
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from genre import architectures
from genre.config import differences
from genre.errors import ArtifactError
from genre.features import Features, Float32
from genre.model import layout
from genre.model.classifier import Classifier
from genre.model.saved_model import SCHEMA_VERSION, ModelCard, read_card
from genre.storage import Location


def build(card: ModelCard, mean: Float32, std: Float32) -> Classifier:
    """A classifier for the model that `card` describes, with the weights that training starts from.

    Raises `ConfigError` when pretrained weights are asked for and cannot be had.
    """
    classifier = _empty(card, mean, std)
    architectures.start(card.architecture, card.params, classifier.network)
    return classifier


def save(folder: Location, card: ModelCard, classifier: Classifier) -> None:
    """Write both files below `folder`."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in classifier.state_dict().items()}
    weights = safetensors.torch.save(tensors)
    (folder / "weights.safetensors").write_bytes(weights)
    content = {"stage": "model", "schema_version": SCHEMA_VERSION, "weights": hashlib.sha256(weights).hexdigest()}
    (folder / "model.json").write_json(content | asdict(card))


def load(folder: Location) -> tuple[ModelCard, Classifier]:
    """Read a saved model, ready for evaluation on the CPU.

    Raises `ArtifactError` when files are missing, altered, or from another version.
    """
    card, digest = read_card(folder)
    path = folder / "weights.safetensors"
    if not path.exists():
        raise ArtifactError(f"{folder}: weights.safetensors is missing; train the model again or copy the whole folder")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise ArtifactError(f"{path}: not the weights that model.json lists; copy the whole folder again")
    blank = np.zeros(card.shape.bins, np.float32)
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        classifier = _empty(card, blank, blank)
    try:
        classifier.load_state_dict(safetensors.torch.load(content), assign=True)
    except (RuntimeError, SafetensorError) as error:
        # torch's first line names nothing, the second one perhaps everything
        detail = textwrap.shorten(str(error).splitlines()[:2][-1], 100)
        raise ArtifactError(f"{path}: does not fit {card.architecture} ({detail}); train it again") from None
    layout.arrange(classifier.network)  # the file holds contiguous tensors
    return card, classifier.eval()


def check_features(card: ModelCard, features: Features) -> None:
    """Raise `ArtifactError` for features that differ from those of the model, naming what differs."""
    manifest = features.manifest
    if manifest.fingerprint != card.fingerprint:
        difference = next(iter(differences(card.features, manifest.settings)), "they were made by another version")
        raise ArtifactError(
            f"{features.folder}: features do not fit the model: {difference}; prepare them with its settings"
        )
    if features.classes != card.classes:
        raise ArtifactError(
            f"{features.folder}: features have genres {', '.join(features.classes)}, the model "
            f"{', '.join(card.classes)}; use features of the same genres"
        )


def save_state(path: Location, state: dict[str, Any]) -> None:
    """Write a trainer's state: tensors and plain values."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path.write_bytes(buffer.getvalue())


def load_state(path: Location) -> dict[str, Any]:
    """Read a trainer's state without executing anything inside it."""
    state: dict[str, Any] = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    return state


def is_whole(path: Location) -> bool:
    """Whether a trainer's state was written to its end: torch writes archives, whose table of contents comes last."""
    return path.exists() and zipfile.is_zipfile(io.BytesIO(path.read_bytes()))


def _empty(card: ModelCard, mean: Float32, std: Float32) -> Classifier:
    network = architectures.build(card.architecture, card.params, card.shape.bins, len(card.classes))
    return Classifier(network, mean, std, card.shape.range_db)
