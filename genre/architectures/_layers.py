"""Building blocks that several architectures share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv_block(inside: int, outside: int, pool: tuple[int, int]) -> nn.Sequential:
    """3 x 3 convolution, max pooling (bins, frames), batch norm, ReLU.

    Pooling rounds up, so that a block never pools a small input away and any size can be fed. It comes right
    after the convolution: norm and ReLU have a quarter of the work then, and nothing was seen to suffer.
    """
    return nn.Sequential(
        nn.Conv2d(inside, outside, kernel_size=3, padding=1, bias=False),
        nn.MaxPool2d(pool, ceil_mode=True),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )


class ConvRecurrent(nn.Module):
    """Convolutions that shorten the frequency axis, then a bidirectional GRU along time.

    (batch, 1, bins, frames) -> (batch, ceil(frames / 4), 2 * hidden). Only the first two blocks pool
    time: at a hop of 23 ms that leaves a step every 93 ms, fine enough for rhythm.
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
        between = dropout if layers > 1 else 0.0
        self.recurrent = nn.GRU(
            channels[-1] * bins, hidden, layers, batch_first=True, bidirectional=True, dropout=between
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
