"""Count how often a report would separate networks that are equally good.

    python benchmarks/ranks.py

Six networks answer for the tracks of six genres. Each is right on 60 % of the tracks and else guesses; all are right
mostly on the same tracks, as networks of one corpus are. A corpus counts as wrong when the best row differs from any
other by the rule of the leaderboard: p below 0.05 by max-T over all pairs of 2,000 paired draws.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import numpy as np

from genre.arrays import Ints
from genre.evaluation import bootstrap, metrics
from genre.report.table import ALPHA, DRAWS

GENRES, NETWORKS = 6, 6
RIGHT = 0.6  # share of the tracks
OWN = 1 / 3  # share of the luck of a network that is its own; the rest is the difficulty of the track


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", type=int, default=300)
    parser.add_argument("--tracks", type=int, nargs="+", default=[60, 300])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| tracks | corpora | best network separated from another |")
    print("|---:|---:|---:|")
    for tracks in options.tracks:
        rng = np.random.default_rng([options.seed, tracks])
        wrong = sum(is_separated(*equal_networks(rng, tracks)) for _ in range(options.corpora))
        print(f"| {tracks} | {options.corpora} | {wrong / options.corpora:.3f} |", flush=True)


def equal_networks(rng: np.random.Generator, tracks: int) -> tuple[Ints, dict[str, Ints]]:
    """Return the genre of each track, and the answers of networks that are equally often right."""
    truth = np.arange(tracks) % GENRES
    luck = (1 - OWN) * rng.random(tracks) + OWN * rng.random((NETWORKS, tracks))
    guesses = rng.integers(0, GENRES, luck.shape)
    answers = np.where(luck < np.quantile(luck, RIGHT), truth, guesses)
    return truth, {f"network {number}": answer for number, answer in enumerate(answers)}


def is_separated(truth: Ints, predicted: dict[str, Ints]) -> bool:
    """Return whether the best network differs significantly from another one."""
    drawn = bootstrap.bootstrap_scores(truth, predicted, GENRES, draws=DRAWS)
    f1 = [metrics.mean_scores(truth, answers, GENRES)["f1"] for answers in predicted.values()]
    p_values = bootstrap.max_t([scores["f1"] for scores in drawn.values()])
    return bool((p_values[int(np.argmax(f1))] < ALPHA).any())


if __name__ == "__main__":
    main()
