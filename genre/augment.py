"""Augmentation of normalised windows (batch, bins, frames) on the device that trains them."""

from __future__ import annotations

import torch
from torch import Tensor
from torchaudio.functional import mask_along_axis_iid

_MASKS = 2  # of each kind, as in SpecAugment's LibriSpeech policies


def random_gain(levels: Tensor, limit_db: float) -> Tensor:
    """Shift each window's level in dB by a uniform amount within +- limit_db."""
    if not limit_db:
        return levels
    return levels + torch.empty(len(levels), 1, 1, device=levels.device).uniform_(-limit_db, limit_db)


def spec_augment(x: Tensor, bin_share: float, frame_share: float) -> Tensor:
    """Mask random bands of bins and frames with the mean, zero: Park et al., "SpecAugment", arXiv 1904.08779.

    `bin_share` and `frame_share` bound the width of a mask, as a share of the axis. No time warping.
    """
    maps = x.unsqueeze(1)  # torchaudio draws a mask for each of (batch, channel)
    for axis, share in ((2, bin_share), (3, frame_share)):
        widest = round(maps.shape[axis] * share)
        for _ in range(_MASKS if widest else 0):
            maps = mask_along_axis_iid(maps, widest, 0.0, axis)
    return maps.squeeze(1)


def mixup(x: Tensor, alpha: float) -> tuple[Tensor, Tensor, float]:
    """Blend each window with another of its batch: Zhang et al., "mixup", arXiv 1710.09412.

    Returns the windows, the index of each one's partner, and the weight of the windows themselves.
    """
    partner = torch.randperm(len(x), device=x.device)
    if not alpha:
        return x, partner, 1.0
    weight = float(torch.distributions.Beta(alpha, alpha).sample())
    return weight * x + (1 - weight) * x[partner], partner, weight
