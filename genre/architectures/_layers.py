"""Layers that several architectures share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv_block(in_channels: int, out_channels: int, pool: tuple[int, int]) -> nn.Sequential:
    """3 x 3 convolution, max pooling (bins, frames), batch norm, ReLU.

    Pooling rounds up, so that an input of any size is valid. It comes before norm and ReLU, which then process fewer
    values (a quarter with 2 x 2); no loss of accuracy was measured.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.MaxPool2d(pool, ceil_mode=True),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class ConvRecurrent(nn.Module):
    """Convolutions that shorten the frequency axis, then a bidirectional GRU along time.

    (batch, 1, bins, frames) -> (batch, ceil(frames / 4), 2 * hidden). Only the first two blocks pool over time: with
    a hop of 23 ms a step of the GRU is 93 ms long, short enough for rhythm.
    """

    def __init__(self, bins: int, width: int, depth: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        channels = [1, *(width * min(2**level, 4) for level in range(depth))]
        pools = [(2, 2) if level < 2 else (2, 1) for level in range(depth)]
        pairs = zip(channels, channels[1:], pools, strict=False)
        self.convolutions = nn.Sequential(*(conv_block(i, o, pool) for i, o, pool in pairs))
        for _ in range(depth):
            bins = -(-bins // 2)
        self.dropout = nn.Dropout(dropout)
        gru_dropout = dropout if layers > 1 else 0.0
        self.recurrent = nn.GRU(
            channels[-1] * bins, hidden, layers, batch_first=True, bidirectional=True, dropout=gru_dropout
        )

    def forward(self, x: Tensor) -> Tensor:
        maps = self.convolutions(x)
        steps = self.dropout(maps.flatten(1, 2).transpose(1, 2))
        states: Tensor = self.recurrent(steps)[0]
        return states


class AttentionPool(nn.Module):
    """Weighted mean over time with learned weights (Bahdanau et al. 2015; Yang et al. 2016, eq. 5-7).

    (batch, steps, features) -> the mean (batch, features) and the weights (batch, steps), which sum to 1.
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, 1, bias=False))

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        weights = torch.softmax(self.score(states).squeeze(-1), dim=1)
        return torch.einsum("bt,btf->bf", weights, states), weights
