"""A model's folder with its weights: two files that execute nothing.

    model.json            the card (`genre/model/card.py`)
    weights.safetensors   the classifier's tensors, with its normaliser

`model.json` is written last. Loading checks the hash of the weights.
"""

from __future__ import annotations

import hashlib
import textwrap
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from genre import architectures
from genre.arrays import Float32
from genre.config import differences
from genre.errors import ArtifactError, TrainingError, one_line
from genre.features import Clips, Features
from genre.model import layout
from genre.model.card import ModelCard, read_card, write_card
from genre.model.classifier import Classifier, predict, predict_and_embed
from genre.model.saved_model import WEIGHTS, read_weights
from genre.storage import Location


class LoadedModel(NamedTuple):
    """A saved model with its weights, ready for evaluation."""

    card: ModelCard
    classifier: Classifier

    def to(self, device: torch.device | str) -> LoadedModel:
        """Move the weights to `device`."""
        return self._replace(classifier=self.classifier.to(device))

    def predict(self, clips: Clips, batch_size: int = 64) -> Float32:
        """Return the class probabilities of each track, (tracks, classes). See `classifier.predict`."""
        return predict(self.classifier, clips, self.card.frames(), self.card.eval_windows, batch_size)

    def predict_and_embed(self, clips: Clips, batch_size: int = 64) -> tuple[Float32, Float32]:
        """Return what `predict` does, and the embedding of each track: (tracks, classes) and (tracks, size)."""
        return predict_and_embed(self.classifier, clips, self.card.frames(), self.card.eval_windows, batch_size)


def build(card: ModelCard, mean: Float32, std: Float32) -> Classifier:
    """Return a classifier for the model that `card` describes, with its initial weights, random or pretrained.

    Raises `ConfigError` when pretrained weights are requested and not available, and `TrainingError` when the network
    of another package does not take windows or return logits.
    """
    classifier = _empty(card, mean, std)
    if architectures.package(card.architecture):
        _check_network(card, classifier.network)
    architectures.load_pretrained(card.architecture, card.params, classifier.network)
    return classifier


def save(folder: Location, card: ModelCard, classifier: Classifier) -> None:
    """Write both files to `folder`."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in classifier.state_dict().items()}
    weights = safetensors.torch.save(tensors)
    (folder / WEIGHTS).write_bytes(weights)
    write_card(folder, card, hashlib.sha256(weights).hexdigest())


def load(folder: Location, may_be_body: bool = False) -> LoadedModel:
    """Read a saved model, on the CPU.

    Raises `ArtifactError` when files are missing, altered, or from another version, and for a body that `pretrain` made
    unless `may_be_body`.
    """
    card, digest = read_card(folder, may_be_body)
    if card.architecture not in architectures.names():
        package = card.facts.get("package", "the package that has it")
        raise ArtifactError(f"{folder}: its architecture {card.architecture} is not installed; install {package}")
    weights = read_weights(folder, digest)
    blank = np.zeros(card.shape.bins, np.float32)
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        classifier = _empty(card, blank, blank)
    if dict(classifier.named_buffers()).keys() - classifier.state_dict().keys():  # persistent=False: not in the file
        with torch.random.fork_rng(devices=[]):
            classifier = _empty(card, blank, blank)
    try:
        classifier.load_state_dict(safetensors.torch.load(weights), assign=True)
    except (RuntimeError, SafetensorError) as error:
        # the first line of torch's message is the same for every mismatch, the second one names the tensor
        detail = textwrap.shorten(str(error).splitlines()[:2][-1], 100)
        raise ArtifactError(
            f"{folder / WEIGHTS}: does not fit {card.architecture} ({detail}); train it again"
        ) from None
    layout.arrange(classifier.network)  # the file holds contiguous tensors
    return LoadedModel(card, classifier.eval())


def check_features(card: ModelCard, features: Features) -> None:
    """Raise `ArtifactError`, naming the first difference, unless `features` fit the model of `card`."""
    manifest = features.manifest
    if manifest.fingerprint != card.fingerprint:
        changes = differences(card.features, manifest.settings)
        difference = next(iter(changes), "they were made by another version")
        raise ArtifactError(
            f"{features.folder}: features do not fit the model: {difference}; prepare them with its settings"
        )
    if features.classes != card.classes:
        raise ArtifactError(
            f"{features.folder}: features have genres {', '.join(features.classes)}, the model "
            f"{', '.join(card.classes)}; use features of the same genres"
        )


def _check_network(card: ModelCard, network: nn.Module) -> None:
    """Raise `TrainingError` unless a network returns logits for windows. Random numbers are drawn as without this."""
    shape, wanted = (2, 1, card.shape.bins, card.frames()), (2, len(card.classes) or 1)
    what = f"architecture={card.architecture} ({architectures.package(card.architecture)})"
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            found = tuple(network(torch.zeros(shape)).shape)
    except Exception as error:
        raise TrainingError(
            f"{what}: its forward fails for windows of shape {shape} ({type(error).__name__}: {one_line(error)}); "
            "correct it"
        ) from error
    if found != wanted:
        raise TrainingError(
            f"{what}: its forward returns shape {found} for windows of shape {shape}, must be {wanted}: a logit of "
            "each genre"
        )
    for module, is_training in modes:
        module.training = is_training


def _empty(card: ModelCard, mean: Float32, std: Float32) -> Classifier:
    outputs = len(card.classes) or 1  # the last layer of a body is never read, and has to exist
    network = architectures.build(card.architecture, card.params, card.shape.bins, outputs)
    return Classifier(network, mean, std, card.shape.range_db, card.window_norm)
