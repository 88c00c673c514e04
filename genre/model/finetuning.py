"""Start from a saved model on other genres: its body and normaliser, a fresh last layer, the body frozen or not."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from genre.config import differences
from genre.errors import ArtifactError
from genre.model.card import ModelCard
from genre.model.classifier import Classifier
from genre.storage import Location


def card_from(source: ModelCard, card: ModelCard, place: Location) -> ModelCard:
    """`card` with the network of the `source` saved in `place`. Raises `ArtifactError` when its features differ."""
    if source.fingerprint != card.fingerprint:
        different = next(iter(differences(source.features, card.features)), "made by another version")
        raise ArtifactError(
            f"train.init_from={place} was trained on other features: {different}; "
            "prepare the new music with its settings"
        )
    if source.architecture != card.architecture:
        raise ArtifactError(
            f"train.init_from={place} is a {source.architecture}, architecture is {card.architecture}; "
            f"write architecture={source.architecture}"
        )
    return replace(card, params=source.params)


def start_from(classifier: Classifier, saved: Classifier, same_genres: bool, freeze: bool) -> list[str]:
    """Put the weights of `saved` into a fresh `classifier` of the same network; returns what stays fresh.

    The normaliser comes along: the body knows no other. The last layer stays fresh unless the genres are the
    same ones in the same order. With `freeze` only the last layer learns, and the statistics of batch norm
    stay those of the saved model.
    """
    head = head_of(classifier)
    fresh = [] if same_genres else [name for name in classifier.state_dict() if name.startswith(f"{head}.")]
    state = {name: tensor for name, tensor in saved.state_dict().items() if name not in fresh}
    try:
        classifier.load_state_dict({name: classifier.state_dict()[name] for name in fresh} | state)
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip()
        raise ArtifactError(f"the saved weights do not fit: {detail}; use the model's own settings") from None
    if freeze:
        freeze_body(classifier, head)
    return fresh


def freeze_body(classifier: Classifier, head: str) -> None:
    """Let nothing but the layer called `head` learn."""
    for name, parameter in classifier.named_parameters():
        parameter.requires_grad_(name.startswith(f"{head}."))
    for module in classifier.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            # whoever trains calls train() on the whole; in there, these would learn new statistics
            module.register_forward_pre_hook(_keep_statistics)


def head_of(classifier: Classifier) -> str:
    """Name of the last layer, the one whose outputs are the genres."""
    layers: list[str] = [name for name, module in classifier.named_modules() if isinstance(module, nn.Linear)]
    return layers[-1]


def _keep_statistics(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    module.eval()
