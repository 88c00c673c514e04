"""A linear classifier on the mean and the maximum of each mel band over time."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from genre.architectures import Domain, LogUniform, Uniform
from genre.settings import Settings


class Params(Settings):
    """The architecture's own settings: architectures.band_statistics.dropout=0.1."""

    dropout: float = Field(0.2, ge=0, lt=1, description="dropout before the linear layer")


SEARCH: dict[str, Domain] = {
    "train.learning_rate": LogUniform(1e-3, 1e-1),
    "params.dropout": Uniform(0.0, 0.5),
}


class BandStatistics(nn.Module):
    """Normalised log-mel windows (batch, 1, bins, frames) -> logits (batch, classes)."""

    def __init__(self, params: Params, bins: int, classes: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(params.dropout)
        self.classifier = nn.Linear(2 * bins, classes)

    def forward(self, x: Tensor) -> Tensor:
        statistics = torch.cat([x.mean(dim=3), x.amax(dim=3)], dim=2).squeeze(1)
        logits: Tensor = self.classifier(self.dropout(statistics))
        return logits


def build(params: Params, bins: int, classes: int) -> nn.Module:
    """Return an untrained network."""
    return BandStatistics(params, bins, classes)
