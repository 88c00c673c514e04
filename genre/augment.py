"""Augmentation of windows (batch, bins, frames) on the device that trains them."""

from __future__ import annotations

import torch
from torch import Tensor
from torchaudio.functional import mask_along_axis_iid

_MASKS = 2  # of each kind, as in SpecAugment's LibriSpeech policies


def random_gain(peak_db: Tensor, limit_db: float) -> Tensor:
    """Shift the level of each window, (batch,) in dB, by a uniform amount within +- limit_db."""
    return peak_db + torch.empty_like(peak_db).uniform_(-limit_db, limit_db)


def spec_augment(x: Tensor, bin_share: float, frame_share: float) -> Tensor:
    """Mask random bands of bins and frames with the mean, zero: Park et al., "SpecAugment", arXiv 1904.08779.

    `bin_share` and `frame_share` bound the width of a mask, as a share of the axis. No time warping.
    """
    batch, bins, frames = x.shape
    # a mask is the same along the other axis: drawn on one line and multiplied, it costs one pass instead of four
    kept_bins = _kept(x.new_ones(batch, 1, bins, 1), 2, round(bins * bin_share))
    kept_frames = _kept(x.new_ones(batch, 1, 1, frames), 3, round(frames * frame_share))
    return x * (kept_bins * kept_frames).squeeze(1)


def mixup(x: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Blend each window with another of its batch: Zhang et al., "mixup", arXiv 1710.09412.

    `targets`, (batch, classes), are shares of the classes and blended likewise. One weight a batch, from
    Beta(alpha, alpha); 0 is off.
    """
    if not alpha:
        return x, targets
    weight = float(torch.distributions.Beta(alpha, alpha).sample())
    partner = torch.randperm(len(x), device=x.device)
    return torch.lerp(x[partner], x, weight), torch.lerp(targets[partner], targets, weight)


def _kept(ones: Tensor, axis: int, widest: int) -> Tensor:
    """`ones` (batch, 1, bins, frames) with zeros in masks along `axis`, drawn for each window by torchaudio."""
    for _ in range(_MASKS if widest else 0):
        ones = mask_along_axis_iid(ones, widest, 0.0, axis)
    return ones
