"""Spectrograms in dB to bytes and back.

Levels in dB are (bins, frames), as librosa and networks take them. Stored bytes are (frames, bins), one frame after the
other: a window of a clip is one run of bytes, 16 KB for 128 frames in place of nearly all 165 KB of a clip.

The level of a byte q is `peak_db - range_db + q * range_db / 255` dB: the loudest point is 255, and levels `range_db`
or more below it are 0. With a range of 80 dB the rounding error is at most 0.16 dB.
"""

from __future__ import annotations

import numpy as np

from genre.arrays import Bytes, Float32


def encode(spectrogram: Float32, range_db: float) -> tuple[Bytes, float]:
    """Return levels (bins, frames) in dB as bytes (frames, bins), and the level of the loudest point in dB.

    `LogMel` returns a view of memory that has the frames first, so that nothing is transposed here.
    """
    peak = float(spectrogram.max())
    scaled = (spectrogram.T - np.float32(peak - range_db)) * np.float32(255 / range_db)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8), peak


def decode(spectrogram: Bytes, peak_db: Float32 | float, range_db: float) -> Float32:
    """Return the levels (bins, frames) in dB of bytes (frames, bins) from `encode`; the inverse.

    Or the levels (clips, bins, frames) of bytes (clips, frames, bins) with a peak for each clip.
    """
    floor = np.asarray(peak_db, dtype=np.float32)[..., None, None] - np.float32(range_db)
    levels = np.swapaxes(spectrogram, -1, -2).astype(np.float32, order="C")
    levels *= np.float32(range_db / 255)
    levels += floor
    return levels
