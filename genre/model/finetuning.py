"""Fine-tuning: start from the weights and the normaliser of a saved model, with a new last layer for other genres."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from genre.config import differences
from genre.errors import ArtifactError
from genre.model.card import ModelCard
from genre.model.classifier import Classifier, head_of
from genre.storage import Location


def card_from(source: ModelCard, card: ModelCard, location: Location) -> ModelCard:
    """Return `card` with the network of `source`, the card of the model saved in `location`.

    Raises `ArtifactError` when features or architecture differ.
    """
    if source.fingerprint != card.fingerprint:
        different = next(iter(differences(source.features, card.features)), "made by another version")
        raise ArtifactError(
            f"train.init_from={location} was trained on other features: {different}; "
            "prepare the new music with its settings"
        )
    if source.architecture != card.architecture:
        raise ArtifactError(
            f"train.init_from={location} is a {source.architecture}, architecture is {card.architecture}; "
            f"write architecture={source.architecture}, or for tune tune.architectures=[{source.architecture}]"
        )
    return replace(card, params=source.params, window_norm=source.window_norm)


def start_from(classifier: Classifier, saved: Classifier, same_genres: bool, freeze: bool) -> list[str]:
    """Copy the weights of `saved` to a new `classifier` of the same network; return the names of those not copied.

    The normaliser is copied, since the body was trained with it. The last layer is copied only if the genres are the
    same in the same order. With `freeze` only the last layer is trained, and the statistics of batch norm stay those
    of the saved model. Raises `ArtifactError` when the weights do not fit.
    """
    head = head_of(classifier)
    new = [] if same_genres else [name for name in classifier.state_dict() if name.startswith(f"{head}.")]
    state = {name: tensor for name, tensor in saved.state_dict().items() if name not in new}
    try:
        classifier.load_state_dict({name: classifier.state_dict()[name] for name in new} | state)
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip()
        raise ArtifactError(f"the saved weights do not fit: {detail}; use the model's own settings") from None
    if freeze:
        freeze_body(classifier, head)
    return new


def freeze_body(classifier: Classifier, head: str) -> None:
    """Let only the layer called `head` be trained."""
    for name, parameter in classifier.named_parameters():
        parameter.requires_grad_(name.startswith(f"{head}."))
    for module in classifier.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            # the trainer calls train() on the classifier, in which batch norm would update its statistics
            module.register_forward_pre_hook(_keep_statistics)


def _keep_statistics(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    module.eval()
