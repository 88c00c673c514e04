"""Small clips and small networks for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from genre.arrays import Float32
from genre.features import Clips, Features, Shape
from genre.features.cache import ClipCache
from genre.features.statistics import LevelStatistics, clip_levels
from genre.settings import CacheSettings

# Settings that make each architecture train in seconds.
SMALL_MODELS: dict[str, dict[str, Any]] = {
    "cnn": {"width": 4, "depth": 3},
    "crnn": {"width": 4, "depth": 3, "hidden": 8},
    "crnn_attention": {"width": 4, "depth": 3, "hidden": 8, "attention": 4},
    "resnet": {"width": 4},
    "vgg16": {"width": 4},
    "vgg19": {"width": 4},
}


def make_clips(
    tracks: int = 12, classes: int = 3, bins: int = 16, frames: int = 40, per_track: int = 1, seed: int = 0
) -> Clips:
    """Return clips whose class shows as a bright band of bins; track `n` has the class `n % classes`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(tracks) % classes
    spectrograms = rng.integers(0, 120, (tracks * per_track, frames, bins), dtype=np.uint8)
    rows = np.repeat(np.arange(tracks), per_track)
    band = bins // classes
    for clip, track in enumerate(rows):
        low = labels[track] * band
        spectrograms[clip, :, low : low + band] += 100
    return Clips(
        stored=spectrograms,
        peak_db=rng.uniform(-10, 30, len(rows)).astype(np.float32),
        track=rows,
        track_ids=pa.array([f"track{number:03d}" for number in range(tracks)]),
        labels=labels,
        groups=pa.array([f"track{number:03d}" for number in range(tracks)]),
        shape=Shape(bins, frames, 80.0, 0.023),
    )


def load(features: Features, *splits: str) -> dict[str, Clips]:
    """Return the clips of splits of a features folder."""
    return ClipCache.of(features, CacheSettings(), splits).open().clips


def statistics(clips: Clips) -> tuple[Float32, Float32]:
    """Return mean and standard deviation in dB of each bin, (bins,) each."""
    sums = LevelStatistics(clips.shape)
    for spectrogram, peak in zip(clips.spectrograms, clips.peak_db, strict=True):
        sums.add_levels(clip_levels(spectrogram, float(peak), clips.shape)[None])
    return sums.mean_and_std()
