"""Mean and standard deviation of the levels of each bin, from clips that arrive in pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from genre.arrays import Bytes, Float32, Float64
from genre.features.schema import Shape

Integers = npt.NDArray[np.object_]  # Python's, which do not overflow

_ONE = 1 << 40  # a dB, or its square, as an integer


class LevelStatistics:
    """Sums over all frames of all clips. The clips have different peaks, so each is summed by itself.

    The sums over the clips are integers, so they do not depend on the order of the clips, or on who added which.
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
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

    def add(self, spectrogram: Bytes, peak_db: float) -> None:
        """Add a clip, (frames, bins) bytes."""
        step = self._shape.range_db / 255
        total, squares = _sums(spectrogram)
        byte_mean, byte_square = total / self._shape.frames, squares / self._shape.frames
        mean = byte_mean * step + (peak_db - self._shape.range_db)
        self._total = self._total + _integers(mean)
        self._squares = self._squares + _integers((byte_square - byte_mean**2) * step**2 + mean**2)
        self._clips += 1

    def mean_and_std(self) -> tuple[Float32, Float32]:
        """Return mean and standard deviation in dB of each bin, (bins,) each; of no clips, 0 and 1."""
        divisor = max(1, self._clips) * _ONE
        mean, square = ((sums / divisor).astype(np.float64) for sums in (self._total, self._squares))
        variance = np.maximum(square - mean**2, 0)
        # a constant bin holds no information; dividing by 1 dB keeps it at zero
        std = np.where(variance < 1e-6, 1.0, np.sqrt(variance))
        return mean.astype(np.float32), std.astype(np.float32)


def _integers(values: Float64) -> Integers:
    return np.rint(values * _ONE).astype(np.int64).astype(object)


def _sums(spectrogram: Bytes) -> tuple[Float64, Float64]:
    """Return the sums of the bytes (frames, bins) of each bin and of their squares: integers, so they are exact."""
    values = spectrogram.astype(np.float64)
    ones = np.ones(len(values))  # a product with ones takes a third of the time of a sum over the first axis
    return ones @ values, ones @ np.square(values, out=values)
