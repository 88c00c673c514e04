"""Augmentation of training windows (batch, bins, frames) and their targets, on the device that trains."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchaudio.functional import mask_along_axis_iid

from genre.model.classifier import Classifier, deviation, moments, to_device
from genre.settings import TrainSettings

_MASKS = 2  # of each kind, as in SpecAugment's LibriSpeech policies
_EQUALISER_POINTS = 6  # of the equaliser's curve, evenly spaced over the bins
_MIXSTYLE_BETA = 0.3  # of the weights' beta distribution, as published
_STEPS_PER_DRAW = 16  # steps whose random numbers are drawn together


class Augmentation:
    """The augmentation of one epoch of one worker.

    Random numbers come from `rng` and from torch's global generator; each step takes the next ones. Augmentations that
    are switched off in `settings` are skipped.
    """

    def __init__(
        self,
        settings: TrainSettings,
        classifier: Classifier,
        shape: tuple[int, int, int],
        classes: int,
        rng: np.random.Generator,
    ) -> None:
        """`shape` is that of a batch: (windows, bins, frames)."""
        batch, bins, frames = shape
        self._settings, self._classifier, self._rng = settings, classifier, rng
        self._device = classifier.mean.device
        self._one_hot = torch.eye(classes, device=self._device)
        self._levels = level_changes(batch, bins, settings.gain_db, settings.equaliser_db, self._device)
        self._masks = masks(batch, bins, frames, settings.mel_mask, settings.time_mask, self._device)

    def __call__(self, spectrograms: Tensor, peak_db: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the network's input (batch, 1, bins, frames) of augmented windows, and targets (batch, classes).

        Takes stored bytes (batch, frames, bins), peaks in dB (batch,) and labels (batch,).
        """
        settings, targets = self._settings, self._one_hot[labels]
        if settings.gain_db or settings.equaliser_db:
            peak_db = peak_db.unsqueeze(1) + next(self._levels)
        x = self._classifier.normalised(spectrograms, peak_db)
        if self._rng.random() < settings.mixstyle:
            weights = self._rng.beta(_MIXSTYLE_BETA, _MIXSTYLE_BETA, len(x)).astype(np.float32)
            x = mixstyle(x, *to_device(self._device, weights))
        if settings.mixup:
            # normalisation is affine, so it may come before the blend
            x, targets = mixup(x, targets, self._rng.beta(settings.mixup, settings.mixup))
        if settings.mel_mask or settings.time_mask:
            kept_bins, kept_frames = next(self._masks)
            x.mul_(kept_bins).mul_(kept_frames)
        return self._classifier.input(x), targets


def seeded(*seeds: int) -> np.random.Generator:
    """Seed torch's global generator, and return another one; both follow from `seeds` alone."""
    entropy = np.random.SeedSequence(seeds)
    torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))
    return np.random.default_rng(entropy)


def level_changes(batch: int, bins: int, gain_db: float, equaliser_db: float, device: torch.device) -> Iterator[Tensor]:
    """Yield for each step changes of level in dB (batch, bins), to be added to the peaks of the windows.

    A change is a gain, uniform within +- `gain_db`, plus a curve over the bins that is constant in time: straight
    lines between six evenly spaced points, each uniform within +- `equaliser_db`. It imitates another mastering.
    Nam, Kim, Park, "FilterAugment", ICASSP 2022 (arXiv 2110.03282), linear type.
    """
    windows = _STEPS_PER_DRAW * batch
    while True:
        gain = torch.empty(windows, 1, device=device).uniform_(-gain_db, gain_db)
        points = torch.empty(windows, 1, _EQUALISER_POINTS, device=device).uniform_(-equaliser_db, equaliser_db)
        curve = functional.interpolate(points, size=bins, mode="linear", align_corners=True).squeeze(1)
        yield from torch.split(gain + curve, batch)


def mixstyle(x: Tensor, weights: Tensor) -> Tensor:
    """Mix the mean and deviation over time of each bin with those of the next window; the targets do not change.

    These statistics depend on the recording and the mastering, and the model learns to rely less on them. `weights`
    (batch,) are the shares of the windows' own statistics. Zhou et al., "Domain generalization with MixStyle", ICLR
    2021 (arXiv 2104.02008), along frequency as in Kim et al., Interspeech 2021 (arXiv 2111.06531).
    """
    mean, square = moments(x)
    spread = deviation(mean, square) + 1e-2  # a constant bin has none
    own = weights.reshape(-1, 1, 1)
    scale = torch.lerp(spread.roll(-1, dims=0), spread, own) / spread
    offset = torch.lerp(mean.roll(-1, dims=0), mean, own) - mean * scale
    return x.mul(scale).add_(offset)


def mixup(x: Tensor, targets: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Blend each window and its targets with the previous one: Zhang et al., "mixup", arXiv 1710.09412.

    The order of a batch is random, so neighbours are random partners. `targets` are (batch, classes); `weight` is the
    share of each window itself, drawn by the caller from a beta distribution.
    """
    return x.roll(1, dims=0).lerp_(x, weight), targets.roll(1, dims=0).lerp_(targets, weight)


def masks(
    batch: int, bins: int, frames: int, bin_share: float, frame_share: float, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield for each step the masks of SpecAugment, (batch, bins, 1) and (batch, 1, frames), to multiply windows with.

    They are ones with bands of zeros; in normalised windows zero is the mean. `bin_share` and `frame_share` bound the
    width of a band as a share of the axis. There is no time warping. Park et al., arXiv 1904.08779.
    """
    while True:
        kept_bins = _kept(_STEPS_PER_DRAW * batch, bins, bin_share, device).unsqueeze(2)
        kept_frames = _kept(_STEPS_PER_DRAW * batch, frames, frame_share, device).unsqueeze(1)
        yield from zip(torch.split(kept_bins, batch), torch.split(kept_frames, batch), strict=True)


def _kept(windows: int, length: int, share: float, device: torch.device) -> Tensor:
    """Return ones of shape (windows, length) with `_MASKS` random bands of zeros in each row."""
    ones = torch.ones(windows, _MASKS, length, 1, device=device)
    kept: Tensor = mask_along_axis_iid(ones, round(length * share), 0.0, axis=2).amin(dim=(1, 3))
    return kept
