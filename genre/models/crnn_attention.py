"""CRNN whose time steps are pooled by attention: the body of `crnn` (Choi et al. 2017) with the weighted mean
of Yang et al., "Hierarchical attention networks for document classification", NAACL 2016, eq. 5-7.
The weights say which moments decided.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from genre.config import Settings
from genre.models._layers import AttentionPool, ConvRecurrent
from genre.models._space import Choice, Domain, LogUniform, Uniform


class Params(Settings):
    width: int = Field(32, ge=4, le=256, description="channels of the first block; doubled twice")
    depth: int = Field(5, ge=2, le=8, description="convolution blocks")
    hidden: int = Field(128, ge=8, le=1024, description="GRU units in each direction")
    layers: int = Field(1, ge=1, le=4, description="GRU layers")
    attention: int = Field(64, ge=4, le=1024, description="hidden units that score a time step")
    dropout: float = Field(0.3, ge=0, lt=1, description="before the GRU and the classifier")


SEARCH: dict[str, Domain] = {
    "train.learning_rate": LogUniform(5e-4, 1e-2),
    "train.weight_decay": LogUniform(1e-3, 1e-1),
    "train.mixup": Choice((0.0, 0.3)),
    "params.dropout": Uniform(0.1, 0.5),
}


class AttentionCRNN(nn.Module):
    """(batch, 1, bins, frames) -> (batch, classes); any number of frames."""

    def __init__(self, params: Params, bins: int, classes: int) -> None:
        super().__init__()
        self.body = ConvRecurrent(bins, params.width, params.depth, params.hidden, params.layers, params.dropout)
        self.pool = AttentionPool(2 * params.hidden, params.attention)
        self.classifier = nn.Sequential(nn.Dropout(params.dropout), nn.Linear(2 * params.hidden, classes))

    def forward(self, x: Tensor) -> Tensor:
        pooled, _ = self.pool(self.body(x))
        logits: Tensor = self.classifier(pooled)
        return logits

    def attention(self, x: Tensor) -> Tensor:
        """Weights (batch, ceil(frames / 4)) of the time steps of each window; each row sums to 1."""
        weights: Tensor = self.pool(self.body(x))[1]
        return weights


def build(params: Params, bins: int, classes: int) -> nn.Module:
    """The first GRU layer's size depends on `bins`."""
    return AttentionCRNN(params, bins, classes)
