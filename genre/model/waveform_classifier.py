"""A classifier that takes waveforms: the graph that is exported.

It holds every step from the waveform of a clip to probabilities: log-mel spectrogram, rounding to the 256 levels of
stored features, evenly spaced windows, normalisation, network, softmax, mean over the windows.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from genre.arrays import Float64
from genre.audio.spectrogram import FLOOR_POWER, hann, mel_filters
from genre.model.checkpoint import LoadedModel


class WaveformClassifier(nn.Module):
    """Waveforms (batch, samples) with a peak of 1 -> probabilities (batch, classes), not calibrated.

    All waveforms of a batch have the same length, at least `min_samples`. The result is that of `spectrogram.LogMel`,
    `features.encode` and `classifier.predict` in sequence, for every clip that has room for `eval_windows` windows at
    different positions.
    """

    filters: Tensor  # (bins of `PowerSpectrum`, mel bands)

    def __init__(self, model: LoadedModel) -> None:
        super().__init__()
        card = model.card
        recipe = card.recipe()
        settings = recipe.spectrogram
        self.classifier = model.classifier
        self.n_fft, self.hop = settings.n_fft, settings.hop_length
        self.frames, self.windows = card.frames(), card.eval_windows
        self.range_db = settings.range_db
        self.spectrum = PowerSpectrum(self.n_fft, self.hop)
        filters = torch.from_numpy(mel_filters(recipe.audio.sample_rate, settings).T.copy())
        self.register_buffer("filters", filters[self.spectrum.bins] * self.spectrum.shares.unsqueeze(1))

    @property
    def min_samples(self) -> int:
        """Number of samples in one window, the shortest clip."""
        return (self.frames - 1) * self.hop

    def forward(self, waveform: Tensor) -> Tensor:
        levels = self._stored(self._levels(waveform))
        batch, bins = levels.shape[0], levels.shape[1]
        steps = torch.arange(self.windows, device=levels.device, dtype=torch.float32) / max(1, self.windows - 1)
        starts = torch.round(steps * (levels.shape[2] - self.frames)).to(torch.int64)
        index = starts.unsqueeze(1) + torch.arange(self.frames, device=levels.device)
        windows = levels[:, :, index].permute(0, 2, 1, 3).reshape(batch * self.windows, bins, self.frames)
        probabilities = self.classifier(windows).softmax(dim=1)
        mean: Tensor = probabilities.reshape(batch, self.windows, -1).mean(dim=1)
        return mean

    def _levels(self, waveform: Tensor) -> Tensor:
        """Return log-mel spectrograms in dB: (batch, samples) -> (batch, bins, frames)."""
        power = self.spectrum(waveform) @ self.filters
        return 10 * torch.log10(power.clamp(min=FLOOR_POWER)).transpose(1, 2)

    def _stored(self, levels: Tensor) -> Tensor:
        """Round levels as `features.encode` and `decode` do, to 256 steps below each clip's peak."""
        floor = levels.amax(dim=(1, 2), keepdim=True) - self.range_db
        step = self.range_db / 255
        return torch.round((levels - floor).clamp(min=0) / step) * step + floor


class PowerSpectrum(nn.Module):
    """Waveforms (batch, samples) -> power of each frame's spectrum (batch, frames, len(bins)), in the order of `bins`.

    Frames are centred on multiples of the hop, with zeros outside the signal and a periodic Hann window. The
    transform is two steps of Cooley and Tukey (1965) as matrix products: the DFT of onnxruntime takes eight times
    as long and uses one core. With n_fft = rows * row, sample `row * i + j` and bin `k + rows * m`,

        X[k + rows m] = sum over j of e(j (k + rows m) / n_fft) * sum over i of e(i k / rows) * x[row i + j]

    where e(t) = exp(-2 pi i t). The signal is real, so only k <= rows / 2 are computed. A bin that then occurs
    twice, as itself and as its mirror image, has a share of one half each time.
    """

    first: Tensor  # (2 * kept, rows, 1, 1): real parts, then imaginary parts
    second: Tensor  # (2, kept, row, 2 * row): contributions of real and imaginary parts to both
    window: Tensor  # (rows, 1, row)
    bins: Tensor  # (kept * row,): the bin of each output
    shares: Tensor  # (kept * row,): the share of each output in its bin

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.row = _row(n_fft, hop)
        self.rows = rows = n_fft // self.row
        self.kept = rows // 2 + 1
        k, i = np.arange(self.kept), np.arange(rows)
        j, m = np.arange(self.row), np.arange(self.row)
        first = np.exp(-2j * np.pi * np.outer(k, i) / rows)
        bins = k[:, None] + rows * m
        second = np.exp(-2j * np.pi * j[None, :, None] * bins[:, None, :] / n_fft)  # (kept, row, row)
        both = [np.concatenate(parts, axis=2) for parts in ((second.real, second.imag), (-second.imag, second.real))]
        mirrored = np.minimum(bins, n_fft - bins).reshape(-1)
        self._register("first", np.concatenate([first.real, first.imag])[:, :, None, None])
        self._register("second", np.stack(both))
        self._register("window", hann(n_fft).reshape(rows, 1, self.row))
        self._register("shares", 1 / np.bincount(mirrored, minlength=1)[mirrored])
        self.register_buffer("bins", torch.from_numpy(mirrored))

    def forward(self, waveform: Tensor) -> Tensor:
        count = waveform.shape[1] // self.hop + 1
        step = math.gcd(self.hop, self.row)
        padded = nn.functional.pad(waveform, (self.n_fft // 2, self.n_fft - self.n_fft // 2))
        # cut into pieces of one row first: gathering pieces is much faster than gathering samples
        in_frame = (self.n_fft - self.row) // step + 1
        pieces = padded[:, self._grid((count - 1) * (self.hop // step) + in_frame, step, self.row, 1)]
        framed = pieces[:, self._grid(self.rows, self.row // step, count, self.hop // step)] * self.window
        inner = nn.functional.conv2d(framed, self.first)  # a matrix product over the rows, whatever the length
        real, imaginary = inner[:, : self.kept], inner[:, self.kept :]  # (batch, kept, frames, row)
        outer = real @ self.second[0] + imaginary @ self.second[1]  # (batch, kept, frames, 2 * row)
        power = outer[..., : self.row].square() + outer[..., self.row :].square()
        return power.transpose(1, 2).flatten(2)

    def _grid(self, rows: int, down: int, columns: int, across: int) -> Tensor:
        """Return the numbers `down * i + across * j`: (rows, columns)."""
        device = self.window.device
        return (torch.arange(rows, device=device) * down).unsqueeze(1) + torch.arange(columns, device=device) * across

    def _register(self, name: str, values: Float64) -> None:
        self.register_buffer(name, torch.from_numpy(values.astype(np.float32)))


def _row(n_fft: int, hop: int) -> int:
    """Return the divisor of `n_fft` with the lowest cost: near its square root, and preferably dividing the hop."""
    divisors = [d for d in range(1, n_fft + 1) if n_fft % d == 0]

    def cost(row: int) -> float:  # multiplications for each sample, and a penalty where single samples are gathered
        return row + n_fft / row / 2 + (0 if hop % row == 0 else 100)

    return min(divisors, key=cost)
