"""Augmentation of windows (batch, bins, frames) on the device that trains them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional
from torchaudio.functional import mask_along_axis_iid

_MASKS = 2  # of each kind, as in SpecAugment's LibriSpeech policies
_POINTS = 6  # of the equaliser's curve, evenly spaced over the bins
_AT_ONCE = 16  # steps whose chances are drawn together: step by step it would take a small network 3 % of its time


def level_changes(batch: int, bins: int, gain_db: float, equaliser_db: float, device: torch.device) -> Iterator[Tensor]:
    """Changes of level for one batch after the other, to be added to the peaks: (batch, bins) in dB.

    A gain for each window, uniform within +- `gain_db`, and a smooth random curve over the bins: other masters. It
    runs straight between six evenly spaced points, each uniform within +- `equaliser_db`, and does not change in time.
    Nam, Kim, Park, "FilterAugment", ICASSP 2022 (arXiv 2110.03282), of linear type.
    """
    windows = _AT_ONCE * batch
    while True:
        gain = torch.empty(windows, 1, device=device).uniform_(-gain_db, gain_db)
        points = torch.empty(windows, 1, _POINTS, device=device).uniform_(-equaliser_db, equaliser_db)
        curve = functional.interpolate(points, size=bins, mode="linear", align_corners=True).squeeze(1)
        yield from torch.split(gain + curve, batch)


def mixstyle(x: Tensor, weights: Tensor) -> Tensor:
    """Give each window part of its neighbour's mean and deviation over time, bin by bin; targets stay as they are.

    How a track was recorded, and by whom, sits in those statistics: a model learns to rely less on them. `weights`,
    (batch,), is what each window keeps of its own. Zhou et al., "Domain generalization with MixStyle", ICLR 2021
    (arXiv 2104.02008), along frequency as in Kim et al., Interspeech 2021 (arXiv 2111.06531).
    """
    mean = x.mean(dim=2, keepdim=True)
    # from a sum of squares, thirty times as fast as torch.std on a CPU; x is normalised, so that this is exact enough
    square = torch.linalg.vector_norm(x, dim=2, keepdim=True).square() / x.shape[2]
    deviation = (square - mean.square()).clamp(min=0).sqrt() + 1e-2  # of a bin that does not change
    kept = weights.reshape(-1, 1, 1)
    scale = torch.lerp(deviation.roll(-1, dims=0), deviation, kept) / deviation
    offset = torch.lerp(mean.roll(-1, dims=0), mean, kept) - mean * scale
    return x.mul(scale).add_(offset)


def mixup(x: Tensor, targets: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Blend each window with the one before it: Zhang et al., "mixup", arXiv 1710.09412.

    The order of a batch is drawn at random already, so that its neighbours are as good as any partners. `targets`,
    (batch, classes), are shares of the classes and blended likewise. `weight`, drawn by the caller from a beta
    distribution, is what each window keeps of itself.
    """
    return x.roll(1, dims=0).lerp_(x, weight), targets.roll(1, dims=0).lerp_(targets, weight)


def masks(
    batch: int, bins: int, frames: int, bin_share: float, frame_share: float, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Masks of SpecAugment for one batch after the other, to be multiplied with normalised windows.

    Park et al., arXiv 1904.08779: random bands of bins and of frames become the mean, zero; no time warping.
    `bin_share` and `frame_share` bound the width of a band, as a share of the axis. Yields ones with zeros in
    the bands, of shape (batch, bins, 1) and (batch, 1, frames).
    """
    while True:
        kept_bins = _kept(_AT_ONCE * batch, bins, bin_share, device).unsqueeze(2)
        kept_frames = _kept(_AT_ONCE * batch, frames, frame_share, device).unsqueeze(1)
        yield from zip(torch.split(kept_bins, batch), torch.split(kept_frames, batch), strict=True)


def _kept(windows: int, length: int, share: float, device: torch.device) -> Tensor:
    """Ones of shape (windows, length) with `_MASKS` bands of zeros in each row, drawn by torchaudio."""
    ones = torch.ones(windows, _MASKS, length, 1, device=device)
    kept: Tensor = mask_along_axis_iid(ones, round(length * share), 0.0, axis=2).amin(dim=(1, 3))
    return kept
