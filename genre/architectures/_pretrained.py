"""Weights trained on ImageNet in torchvision's layout, from a file or from torchvision's cache."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Mapping
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torchvision.models import get_model_weights

from genre.errors import ConfigError, first_line
from genre.settings import Settings
from genre.storage import Location

_FULL_WIDTH = 64  # channels of the first stage of the published networks


class PretrainedParams(Settings):
    """Settings of a network whose published weights fit at full width."""

    width: int = Field(64, ge=4, le=64, description="channels of the first stage (published: 64), doubled three times")
    pretrained: str = Field(
        "", description="ImageNet weights: 'imagenet' (torchvision's cache, or a download) or the path of their file"
    )

    @model_validator(mode="after")
    def _fits_the_published_weights(self) -> Self:
        if self.pretrained and self.width != _FULL_WIDTH:
            raise ConfigError(
                f"pretrained={self.pretrained} fits only the published width, found width={self.width}; "
                f"use width={_FULL_WIDTH}"
            )
        return self


def load(network: nn.Module, source: str, published: str, first: str, head: str) -> None:
    """Load weights in torchvision's layout into `network`, except those of the head; do nothing if `source` is empty.

    `source` is the setting `pretrained`. `published` is torchvision's name of the network, `first` that of its first
    convolution, and `head` that of the layers for the published classes; the head of `network` keeps its weights.

    A spectrogram has one channel. The first convolution gets the sum of the kernels of the three colours. This is the
    same as feeding the spectrogram to all three, so activations and batch statistics have the published scale; the mean
    of the kernels would give a third of it.

    Raises `ConfigError` when the weights cannot be found or read, or do not fit.
    """
    if not source:
        return
    weights = _read_published(published) if source == "imagenet" else _read(source, published)
    kernel = f"{first}.weight"
    body = {name: tensor for name, tensor in weights.items() if not name.startswith(f"{head}.")}
    if kernel in body:
        body[kernel] = body[kernel].sum(dim=1, keepdim=True)
    own = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(f"{head}.")}
    problem = _misfit(own, body)
    if problem:
        raise ConfigError(
            f"pretrained={source}: not weights of {published} ({problem}); use {_published_file(published)}"
        )
    network.load_state_dict(body, strict=False)


def _misfit(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """Describe the first tensor that is missing, unexpected or of another shape; "" when all fit."""
    for name in sorted(own.keys() | weights.keys()):
        if name.endswith("num_batches_tracked"):
            continue  # missing in torchvision's older files, and unused here
        shapes = [tuple(state[name].shape) if name in state else None for state in (own, weights)]
        if shapes[0] != shapes[1]:
            return f"{name} has shape {shapes[1]}, expected {shapes[0]}"
    return ""


def _read_published(published: str) -> Mapping[str, Tensor]:
    """Read weights from torchvision's cache; download them if they are not in it. Nothing in them is executed."""
    weights = get_model_weights(published).DEFAULT
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(
            map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
        return state
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        cache = os.path.join(torch.hub.get_dir(), "checkpoints")
        raise ConfigError(
            f"pretrained=imagenet: {_published_file(published)} is neither in {cache} nor can it be downloaded from "
            f"{weights.url} ({first_line(error)}); put the file there, or give its path as pretrained"
        ) from None


def _read(source: str, published: str) -> Mapping[str, Tensor]:
    """Read weights from a file at any address. Nothing in them is executed."""
    try:
        content = io.BytesIO(Location.of(source).read_bytes())
        weights = torch.load(content, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise ConfigError(
            f"pretrained={source}: cannot be read ({first_line(error)}); give the path of {_published_file(published)}"
        ) from None
    if not isinstance(weights, Mapping) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise ConfigError(f"pretrained={source}: holds no state dictionary; use {_published_file(published)}")
    return weights


def _published_file(published: str) -> str:
    """Return the file name of torchvision's weights."""
    return str(get_model_weights(published).DEFAULT.url).rsplit("/", 1)[-1]
