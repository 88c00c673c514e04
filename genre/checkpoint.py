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
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from genre import layout, models
from genre.classifier import Classifier
from genre.errors import ArtifactError
from genre.features import Float32, Shape
from genre.storage import Location

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ModelCard:
    """What a saved model knows about itself."""

    architecture: str
    params: dict[str, Any]
    classes: list[str]
    features: dict[str, Any]  # the settings of the features it was trained on, as in their manifest
    fingerprint: str  # of those settings
    shape: Shape
    window_seconds: float
    eval_windows: int
    facts: dict[str, Any] = field(default_factory=dict)  # scores, seed, versions: for people, never for decisions

    def frames(self) -> int:
        """Frames of a window."""
        return max(1, min(self.shape.frames, round(self.window_seconds / self.shape.frame_seconds)))

    @property
    def label(self) -> str:
        """The name of its folder and of its row: the architecture, and what it started from unless from scratch."""
        return models.label(self.architecture, self.params)


def build(card: ModelCard, mean: Float32, std: Float32) -> Classifier:
    """A classifier for the model that `card` describes, with the weights that training starts from.

    Raises `ConfigError` when pretrained weights are asked for and cannot be had.
    """
    classifier = _empty(card, mean, std)
    models.start(card.architecture, card.params, classifier.network)
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
    card, digest = _read_card(folder)
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


def check_features(card: ModelCard, manifest: dict[str, Any], folder: Location) -> None:
    """Refuse features that differ from those the model was trained on, naming what differs."""
    found = manifest["settings"]
    if manifest["fingerprint"] != card.fingerprint:
        difference = next(iter(differences(card.features, found)), "they were made by another version")
        raise ArtifactError(f"{folder}: features do not fit the model: {difference}; prepare them with its settings")
    if list(manifest["classes"]) != card.classes:
        raise ArtifactError(
            f"{folder}: features have genres {', '.join(manifest['classes'])}, the model {', '.join(card.classes)}; "
            "use features of the same genres"
        )


def differences(expected: dict[str, Any], found: dict[str, Any], prefix: str = "") -> list[str]:
    """Each setting that differs, as 'key is x, expected y'."""
    lines = []
    for key in sorted(expected.keys() | found.keys()):
        left, right = expected.get(key), found.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            lines += differences(left, right, f"{prefix}{key}.")
        elif left != right:
            lines.append(f"{prefix}{key} is {right}, expected {left}")
    return lines


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
    network = models.build(card.architecture, card.params, card.shape.bins, len(card.classes))
    return Classifier(network, mean, std, card.shape.range_db)


def _read_card(folder: Location) -> tuple[ModelCard, str]:
    path = folder / "model.json"
    if not path.exists():
        raise ArtifactError(
            f"{folder}: no model here (model.json is missing); train one, or point model= at its folder"
        )
    content = path.read_json()
    if content.get("stage") != "model" or content.get("schema_version") != SCHEMA_VERSION:
        found = f"{content.get('stage')} version {content.get('schema_version')}"
        raise ArtifactError(f"{path}: holds {found}, not a model of version {SCHEMA_VERSION}; train it again")
    try:
        fields = {name: content[name] for name in ModelCard.__dataclass_fields__}
        return ModelCard(**fields | {"shape": Shape(**fields["shape"])}), content["weights"]
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: a field is missing or altered ({error}); train the model again") from None
