"""Short-chunk CNN: Won, Ferraro, Bogdanov, Serra, "Evaluation of CNN-based automatic music tagging models",
SMC 2020 (arXiv 2006.00751). Filters of 3 x 3, every block halves both axes, global max pooling.
"""

from __future__ import annotations

from itertools import pairwise

from pydantic import Field
from torch import Tensor, nn

from genre.architectures._layers import conv_block
from genre.architectures._space import Choice, Domain, LogUniform, Uniform
from genre.settings import Settings


class Params(Settings):
    width: int = Field(64, ge=4, le=512, description="channels of the first two blocks; later ones have twice as many")
    depth: int = Field(6, ge=2, le=9, description="convolution blocks")
    dropout: float = Field(0.4, ge=0, lt=1, description="dropout probability before the classifier")


SEARCH: dict[str, Domain] = {
    "train.learning_rate": LogUniform(5e-4, 1e-2),
    "train.weight_decay": LogUniform(1e-3, 1e-1),
    "train.mixup": Choice((0.0, 0.3)),
    "params.dropout": Uniform(0.1, 0.6),
}


class ShortChunkCNN(nn.Module):
    """(batch, 1, bins, frames) -> (batch, classes); any size, since pooling rounds up."""

    def __init__(self, params: Params, classes: int) -> None:
        super().__init__()
        channels = [1, *(params.width * (1 if level < 2 else 2) for level in range(params.depth))]
        self.blocks = nn.Sequential(*(conv_block(i, o, (2, 2)) for i, o in pairwise(channels)))
        self.hidden = nn.Sequential(
            nn.Linear(channels[-1], channels[-1], bias=False), nn.BatchNorm1d(channels[-1]), nn.ReLU(inplace=True)
        )
        self.classifier = nn.Sequential(nn.Dropout(params.dropout), nn.Linear(channels[-1], classes))

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.blocks(x).amax(dim=(2, 3))
        logits: Tensor = self.classifier(self.hidden(pooled))
        return logits


def build(params: Params, bins: int, classes: int) -> nn.Module:
    """Return the network; it does not depend on `bins`."""
    return ShortChunkCNN(params, classes)
