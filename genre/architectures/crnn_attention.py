"""CRNN with attention over time: the body of `crnn` (Choi et al. 2017) with the weighted mean of Yang et al.,
"Hierarchical attention networks for document classification", NAACL 2016, eq. 5-7. The weights show which moments
contribute to the result.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from genre.architectures import crnn
from genre.architectures._layers import AttentionPool, ConvRecurrent


class Params(crnn.Params):
    attention: int = Field(64, ge=4, le=1024, description="hidden units of the layer that scores time steps")


SEARCH = crnn.SEARCH


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
        """Return the weights of the time steps, (batch, ceil(frames / 4)); each row sums to 1."""
        weights: Tensor = self.pool(self.body(x))[1]
        return weights


def build(params: Params, bins: int, classes: int) -> nn.Module:
    """Return the network; the size of its first GRU layer depends on `bins`."""
    return AttentionCRNN(params, bins, classes)
