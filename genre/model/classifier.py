"""A model from stored bytes to logits: decibels, normalisation, network.

The conversion from features to the network's input is part of the model and saved with it, so that training,
evaluation, tagging and export use the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from genre.arrays import Float32
from genre.features import Clips, windows
from genre.model import layout

_LEAST_DEVIATION_BIN, _LEAST_DEVIATION = 0.1, 0.01  # so that a constant bin or window is not divided by zero


class Classifier(nn.Module):
    """Windows in decibels (batch, bins, frames) -> logits (batch, classes).

    `mean` and `std` are per bin, fitted on the training split only. With `window_norm` each window is then normalised
    by its own statistics: see `relaxed_norm`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, mean: Float32, std: Float32, range_db: float, window_norm: bool = False
    ) -> None:
        super().__init__()
        layout.arrange(network)
        self.network = network
        self.range_db = range_db
        self.window_norm = window_norm
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(-1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(-1, 1))

    def forward(self, levels: Tensor) -> Tensor:
        logits: Tensor = self.network(self.input(self.normalise(levels)))
        return logits

    def input(self, normalised: Tensor) -> Tensor:
        """Return the network's input (batch, 1, bins, frames) of normalised windows (batch, bins, frames)."""
        return (relaxed_norm(normalised) if self.window_norm else normalised).unsqueeze(1)

    def embed(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (batch, classes) and embeddings (batch, size).

        The embedding is what the last layer takes, so that this layer applied to it gives the logits.
        """
        taken: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda layer, inputs: taken.append(inputs[0]))
        try:
            logits: Tensor = self(levels)
        finally:
            hook.remove()
        return logits, taken[-1]

    @property
    def head(self) -> nn.Linear:
        """The last layer, whose outputs are the genres."""
        layer = self.get_submodule(head_of(self))
        assert isinstance(layer, nn.Linear)
        return layer

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


def relaxed_norm(x: Tensor) -> Tensor:
    """Normalise windows (batch, bins, frames), half by the statistics of each bin and half by those of all bins.

    The first removes what the recording and the mastering do to a bin, and some of what tells genres apart; the second
    keeps the differences between bins. Kim, Yang, Kim, Chang, "Domain generalization with relaxed instance
    frequency-wise normalization", Interspeech 2022 (arXiv 2206.12513).
    """
    mean, square = moments(x)
    all_mean, all_square = mean.mean(dim=1, keepdim=True), square.mean(dim=1, keepdim=True)
    by_bin = 0.5 / (deviation(mean, square) + _LEAST_DEVIATION_BIN)
    by_all = 0.5 / (deviation(all_mean, all_square) + _LEAST_DEVIATION)
    return x * (by_bin + by_all) - (mean * by_bin + all_mean * by_all)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means over time of normalised windows (batch, bins, frames) and of their squares, (batch, bins, 1)."""
    # thirty times as fast as torch.std on a CPU, and accurate enough since x is normalised
    return x.mean(dim=2, keepdim=True), torch.linalg.vector_norm(x, dim=2, keepdim=True).square() / x.shape[2]


def deviation(mean: Tensor, square: Tensor) -> Tensor:
    """Return the standard deviation by the `moments`."""
    return (square - mean.square()).clamp(min=0).sqrt()


@torch.inference_mode()
def predict(
    classifier: Classifier,
    clips: Clips,
    frames: int,
    per_clip: int,
    batch_size: int = 64,
    worker: windows.Worker = windows.Worker(),
    autocast: torch.dtype | None = None,
) -> Float32:
    """Return the class probabilities of each track, the mean over its evenly spaced windows: (tracks, classes).

    Rows of another worker's tracks are zero; the result of a worker without tracks has no columns.
    """

    def answer(levels: Tensor) -> Tensor:
        with torch.autocast(levels.device.type, autocast, enabled=autocast is not None):
            logits = classifier(levels)
        probabilities: Tensor = logits.float().softmax(dim=1)
        return probabilities

    return _mean_over_windows(classifier, answer, clips, frames, per_clip, batch_size, worker)


@torch.inference_mode()
def predict_and_embed(
    classifier: Classifier, clips: Clips, frames: int, per_clip: int, batch_size: int = 64
) -> tuple[Float32, Float32]:
    """Return what `predict` does, and the embedding of each track: (tracks, classes) and (tracks, size).

    Embeddings are means over the same windows, not normalised.
    """

    def answer(levels: Tensor) -> Tensor:
        logits, embeddings = classifier.embed(levels)
        return torch.cat([logits.softmax(dim=1), embeddings], dim=1)

    mean = _mean_over_windows(classifier, answer, clips, frames, per_clip, batch_size, windows.Worker())
    probabilities, embeddings = np.split(mean, [classifier.head.out_features], axis=1)
    return probabilities, embeddings


def _mean_over_windows(
    classifier: Classifier,
    answer: Callable[[Tensor], Tensor],
    clips: Clips,
    frames: int,
    per_clip: int,
    batch_size: int,
    worker: windows.Worker,
) -> Float32:
    """Return the mean over each track's evenly spaced windows of what `answer` makes of their levels.

    `answer` maps (batch, bins, frames) to (batch, columns); the result is (tracks, columns).
    """
    device = classifier.mean.device
    classifier.eval()
    count = torch.zeros(len(clips.track_ids), device=device)
    total: Tensor | None = None
    for batch in windows.evaluation_windows(clips, frames, per_clip, batch_size, worker):
        spectrograms, peak_db, rows = to_device(device, batch.spectrograms, batch.peak_db, batch.tracks)
        answers = answer(classifier.levels(spectrograms, peak_db))
        if total is None:
            total = torch.zeros(len(clips.track_ids), answers.shape[1], device=device)
        total.index_add_(0, rows, answers)
        count.index_add_(0, rows, torch.ones(len(rows), device=device))
    if total is None:
        return np.zeros((len(clips.track_ids), 0), dtype=np.float32)
    mean: Float32 = (total / count.clamp(min=1).unsqueeze(1)).cpu().numpy()
    return mean


def head_of(classifier: Classifier) -> str:
    """Return the name of the last layer, whose outputs are the genres."""
    layers: list[str] = [name for name, module in classifier.named_modules() if isinstance(module, nn.Linear)]
    return layers[-1]


def _bins_first(spectrograms: Tensor) -> Tensor:
    """Return bytes (batch, frames, bins) as float32 (batch, bins, frames), contiguous, in one pass."""
    return spectrograms.transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format)


def to_device(device: torch.device, *arrays: npt.NDArray[Any]) -> list[Tensor]:
    """Return arrays on a device; for a GPU through pinned memory, so that the host does not wait for the copy."""
    tensors = [torch.from_numpy(array) for array in arrays]
    if device.type == "cuda":
        return [tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors]
    return tensors
