"""Convolutional recurrent network: Choi, Fazekas, Sandler, Cho, "Convolutional recurrent neural networks for
music classification", ICASSP 2017 (arXiv 1609.04243), with the mean over time of a bidirectional GRU in place of the
last state of a forward GRU.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from genre.architectures._layers import ConvRecurrent
from genre.architectures._space import Choice, Domain, LogUniform, Uniform
from genre.settings import Settings


class Params(Settings):
    width: int = Field(32, ge=4, le=256, description="channels of the first block, doubled in the second and third")
    depth: int = Field(5, ge=2, le=8, description="convolution blocks")
    hidden: int = Field(128, ge=8, le=1024, description="GRU units in each direction")
    layers: int = Field(1, ge=1, le=4, description="GRU layers")
    dropout: float = Field(0.3, ge=0, lt=1, description="dropout probability before the GRU and the classifier")


SEARCH: dict[str, Domain] = {
    "train.learning_rate": LogUniform(5e-4, 1e-2),
    "train.weight_decay": LogUniform(1e-3, 1e-1),
    "train.mixup": Choice((0.0, 0.3)),
    "params.dropout": Uniform(0.1, 0.5),
}


class CRNN(nn.Module):
    """(batch, 1, bins, frames) -> (batch, classes); any number of frames."""

    def __init__(self, params: Params, bins: int, classes: int) -> None:
        super().__init__()
        self.body = ConvRecurrent(bins, params.width, params.depth, params.hidden, params.layers, params.dropout)
        self.classifier = nn.Sequential(nn.Dropout(params.dropout), nn.Linear(2 * params.hidden, classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.body(x).mean(dim=1))
        return logits


def build(params: Params, bins: int, classes: int) -> nn.Module:
    """Return the network; the size of its first GRU layer depends on `bins`."""
    return CRNN(params, bins, classes)
