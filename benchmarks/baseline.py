"""Time and quality of the classical baseline: the exact machine, and the approximation above 20,000 tracks.

    python benchmarks/baseline.py [--clips 200] [--exact 5000 20000] [--approximate 20000 100000]

The statistics are made up: ten classes, each of eight clusters in a space of 20 dimensions that is bent into 179, with
a tenth of the labels wrong. Accuracy is that on 10,000 further tracks with right labels. The clips are noise of the
default shape, since the time of their statistics does not depend on their content.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from genre import memory
from genre.evaluation import baseline, track_statistics
from genre.evaluation.baseline import LabelledStatistics
from genre.features import Clips
from genre.features.recipe import Recipe
from genre.settings import Config

CLASSES, CLUSTERS, LATENT, STATISTICS = 10, 8, 20, 179
WRONG = 0.1  # share of the labels
TEST = 10_000


def split(tracks: int, seed: int, wrong: float = WRONG) -> LabelledStatistics:
    """Return made-up statistics and labels; `seed` draws the tracks, the classes are always the same."""
    fixed, rng = np.random.default_rng(0), np.random.default_rng((seed, tracks))
    centres = fixed.standard_normal((CLASSES, CLUSTERS, LATENT)) * 1.5
    mixing = fixed.standard_normal((LATENT, STATISTICS)) / np.sqrt(LATENT)
    labels = rng.integers(0, CLASSES, tracks)
    latent = centres[labels, rng.integers(0, CLUSTERS, tracks)] + rng.standard_normal((tracks, LATENT))
    statistics = np.tanh(latent @ mixing) + 0.3 * rng.standard_normal((tracks, STATISTICS))
    is_wrong = rng.random(tracks) < wrong
    labels[is_wrong] = rng.integers(0, CLASSES, int(is_wrong.sum()))
    return LabelledStatistics(statistics.astype(np.float32), labels)


def measure_statistics(clips: int) -> None:
    shape, rng = Recipe.of(Config()).shape(), np.random.default_rng(0)
    spectrograms = rng.integers(0, 256, (clips, shape.frames, shape.bins), dtype=np.uint8)
    labels, names = np.zeros(clips, np.int64), pa.array(map(str, range(clips)))
    noise = Clips(spectrograms, np.zeros(clips, np.float32), np.arange(clips), names, labels, names, shape)
    track_statistics.of_clips(noise)  # imports
    started = time.perf_counter()
    track_statistics.of_clips(noise)
    print(f"statistics of a clip of {shape.frames} frames: {1000 * (time.perf_counter() - started) / clips:.1f} ms")


def measure_fit(tracks: int, exact: bool) -> None:
    baseline.EXACT_TRACKS = tracks if exact else 0
    train, valid, test = split(tracks, 1), split(max(1000, tracks // 5), 2), split(TEST, 3, wrong=0.0)
    memory.reset_peak()
    fitted = baseline.fit(train, valid, CLASSES, class_weights=False)
    started = time.perf_counter()
    accuracy = (fitted.predict(test.statistics).argmax(axis=1) == test.labels).mean()
    predicting = 1000 * (time.perf_counter() - started) / TEST
    print(
        f"{fitted.name:<26}{tracks:>8} tracks{fitted.train_seconds:>9.0f} s to fit{predicting:>8.2f} ms to predict"
        f"{accuracy:>8.3f} accuracy, C {fitted.settings['svm.C']}, peak {memory.peak_mb() or 0:.0f} MiB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--exact", type=int, nargs="*", default=[5000, 20000])
    parser.add_argument("--approximate", type=int, nargs="*", default=[5000, 20000, 100000])
    options = parser.parse_args()
    measure_statistics(options.clips)
    for tracks in options.approximate:
        measure_fit(tracks, exact=False)
    for tracks in options.exact:
        measure_fit(tracks, exact=True)


if __name__ == "__main__":
    main()
