"""Mean and standard deviation of the levels of each bin, from clips that arrive in pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from genre.arrays import Bytes, Float32, Float64, Ints
from genre.features.schema import Shape

Integers = npt.NDArray[np.object_]  # Python's, which do not overflow

_ONE = 1 << 40  # a dB, or its square, as an integer


class LevelStatistics:
    """Sums over all frames of all clips. The clips have different peaks, so each is summed by itself.

    The sums over the clips are integers, so they do not depend on the order of the clips, or on who added which.
    """

    def __init__(self, shape: Shape) -> None:
        self._clips = 0
        self._total: Integers = np.zeros(shape.bins, dtype=object)
        self._squares: Integers = np.zeros(shape.bins, dtype=object)

    @classmethod
    def merged(cls, shape: Shape, parts: list[dict[str, Any]]) -> LevelStatistics:
        """Return the sum of statistics as `to_json` returned them."""
        statistics = cls(shape)
        for part in parts:
            statistics._clips += part["clips"]
            statistics._total = statistics._total + np.array(part["total"], dtype=object)
            statistics._squares = statistics._squares + np.array(part["squares"], dtype=object)
        return statistics

    def to_json(self) -> dict[str, Any]:
        """Return the sums, to be merged."""
        return {"clips": self._clips, "total": self._total.tolist(), "squares": self._squares.tolist()}

    def add_levels(self, levels: Ints) -> None:
        """Add clips, each as `clip_levels` returned it: (clips, 2, bins)."""
        high, low = levels >> 32, levels & 0xFFFFFFFF  # their sums over two billion clips do not overflow
        total, squares = high.sum(axis=0).astype(object) * (1 << 32) + low.sum(axis=0).astype(object)
        self._total, self._squares = self._total + total, self._squares + squares
        self._clips += len(levels)

    def mean_and_std(self) -> tuple[Float32, Float32]:
        """Return mean and standard deviation in dB of each bin, (bins,) each; of no clips, 0 and 1."""
        divisor = max(1, self._clips) * _ONE
        mean, square = ((sums / divisor).astype(np.float64) for sums in (self._total, self._squares))
        variance = np.maximum(square - mean**2, 0)
        # a constant bin holds no information; dividing by 1 dB keeps it at zero
        std = np.where(variance < 1e-6, 1.0, np.sqrt(variance))
        return mean.astype(np.float32), std.astype(np.float32)


def clip_levels(spectrogram: Bytes, peak_db: float, shape: Shape) -> Ints:
    """Return the means over the frames of the level of each bin and of its square, (2, bins), as integers.

    `spectrogram` is a clip, (frames, bins) bytes.
    """
    step = shape.range_db / 255
    total, squares = _sums(spectrogram)
    byte_mean, byte_square = total / shape.frames, squares / shape.frames
    mean = byte_mean * step + (peak_db - shape.range_db)
    means = np.stack([mean, (byte_square - byte_mean**2) * step**2 + mean**2])
    return np.rint(means * _ONE).astype(np.int64)


def _sums(spectrogram: Bytes) -> tuple[Float64, Float64]:
    """Return the sums of the bytes (frames, bins) of each bin and of their squares: integers, so they are exact."""
    values = spectrogram.astype(np.float64)
    ones = np.ones(len(values))  # a product with ones takes a third of the time of a sum over the first axis
    return ones @ values, ones @ np.square(values, out=values)
