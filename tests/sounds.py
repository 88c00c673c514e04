"""Short decoded sounds, for tests of what happens between a file and its features."""

from __future__ import annotations

import numpy as np

from genre.evaluation.changes import Sound


def chord(seconds: float = 5.0, rate: int = 22050, channels: int = 1, seed: int = 0) -> Sound:
    """Return a chord with noise whose level rises and falls."""
    time = np.arange(round(seconds * rate)) / rate
    tones = np.sum([np.sin(2 * np.pi * hz * time) for hz in (220.0, 277.2, 329.6)], axis=0)
    noise = np.random.default_rng(seed).standard_normal((len(time), channels))
    levels = 0.6 + 0.4 * np.sin(2 * np.pi * time)
    return Sound((0.1 * (tones * levels)[:, None] + 0.01 * noise).astype(np.float32), rate)
