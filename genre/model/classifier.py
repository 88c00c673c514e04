"""A model from stored bytes to logits: decibels, normalisation, network.

The conversion from features to the network's input is part of the model and saved with it, so that training,
evaluation, tagging and export use the same one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from genre.features import Clips, Float32, windows
from genre.model import layout


class Classifier(nn.Module):
    """Windows in decibels (batch, bins, frames) -> logits (batch, classes).

    `mean` and `std` are per bin, fitted on the training split only.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Float32, std: Float32, range_db: float) -> None:
        super().__init__()
        layout.arrange(network)
        self.network = network
        self.range_db = range_db
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(-1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(-1, 1))

    def forward(self, levels: Tensor) -> Tensor:
        logits: Tensor = self.network(self.normalise(levels).unsqueeze(1))
        return logits

    def normalise(self, levels: Tensor) -> Tensor:
        """Return levels with zero mean and unit variance per bin over the training split."""
        return (levels - self.mean) / self.std

    def levels(self, spectrograms: Tensor, peak_db: Tensor) -> Tensor:
        """Return levels (batch, bins, frames) in dB of stored bytes (batch, frames, bins) and peaks (batch,).

        This is the inverse of `features.encode`.
        """
        return _bins_first(spectrograms) * (self.range_db / 255) + (peak_db - self.range_db).reshape(-1, 1, 1)

    def normalised(self, spectrograms: Tensor, peak_db: Tensor) -> Tensor:
        """Return `normalise(levels(...))`, (batch, bins, frames), in fewer passes over memory.

        Small networks train noticeably faster with it. `peak_db` is (batch,), or (batch, bins) to differ between bins.
        """
        floor = (peak_db - self.range_db).reshape(len(peak_db), -1, 1)
        # torch.addcmul computes the same, and takes twice as long with broadcast operands
        return _bins_first(spectrograms).mul_(self.range_db / 255 / self.std).add_((floor - self.mean) / self.std)


@torch.inference_mode()
def predict(
    classifier: Classifier,
    clips: Clips,
    frames: int,
    per_clip: int,
    batch_size: int = 64,
    shard: windows.Shard = windows.Shard(),
    autocast: torch.dtype | None = None,
) -> Float32:
    """Return the class probabilities of each track, the mean over its evenly spaced windows: (tracks, classes).

    Rows of another shard's tracks are zero; the result of a shard without tracks has no columns.
    """
    device = classifier.mean.device
    classifier.eval()
    count = torch.zeros(len(clips.track_ids), device=device)
    total: Tensor | None = None
    for batch in windows.evaluation_windows(clips, frames, per_clip, batch_size, shard):
        spectrograms, peak_db, rows = to_device(device, batch.spectrograms, batch.peak_db, batch.tracks)
        levels = classifier.levels(spectrograms, peak_db)
        with torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
            logits = classifier(levels)
        probabilities = logits.float().softmax(dim=1)
        if total is None:
            total = torch.zeros(len(clips.track_ids), probabilities.shape[1], device=device)
        total.index_add_(0, rows, probabilities)
        count.index_add_(0, rows, torch.ones(len(rows), device=device))
    if total is None:
        return np.zeros((len(clips.track_ids), 0), dtype=np.float32)
    mean: Float32 = (total / count.clamp(min=1).unsqueeze(1)).cpu().numpy()
    return mean


def _bins_first(spectrograms: Tensor) -> Tensor:
    """Return bytes (batch, frames, bins) as float32 (batch, bins, frames), contiguous, in one pass."""
    return spectrograms.transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format)


def to_device(device: torch.device, *arrays: npt.NDArray[Any]) -> list[Tensor]:
    """Return arrays on a device; for a GPU through pinned memory, so that the host does not wait for the copy."""
    tensors = [torch.from_numpy(array) for array in arrays]
    if device.type == "cuda":
        return [tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors]
    return tensors
