"""Measure how many wrong labels confident learning finds: flip some, cross-validate, and look at the first flagged.

    python benchmarks/label_issues.py FEATURES --config configs/demo.yaml architecture=cnn [KEY=VALUE ...]

A share of the labels is replaced, each by another genre drawn at random. Networks are trained on the folds with the
wrong labels, as `evaluate` with `evaluate.folds` does, once for each seed and for the number of epochs of the settings,
and their mean out-of-fold probabilities rank the labels. With n flipped, the precision is the share of flipped ones
among the first n flagged. The labels of the corpus itself are taken for right, so it is a lower bound on real music.
`as if drawn` is the share that n labels drawn at random would have.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import numpy as np
import pyarrow.compute as pc
import torch

from genre.arrays import Float32, Ints
from genre.config import load
from genre.evaluation.label_issues import find_label_issues
from genre.evaluation.metrics import decisions
from genre.features import Clips, Features
from genre.features.cache import ClipCache
from genre.features.splitting import folds
from genre.features.splitting.folds import Fold
from genre.settings import Config
from genre.storage import Location
from genre.training.experiment import Data, Experiment
from genre.training.repetition import Repetition


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.1])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=2, help="networks whose probabilities are averaged")
    parser.add_argument("--draws", type=int, default=1, help="choices of the labels to flip")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_intermixed_args()
    torch.set_num_threads(options.threads)
    config = load(options.config, options.settings)
    features = Features.open(Location.of(options.features))
    truth = features.labels(features.labelled()).to_numpy().astype(np.int64)
    print("| flipped | draw | accuracy % | flagged | precision among the first n | as if drawn |")
    print("|---:|---:|---:|---:|---:|---:|")
    for share in options.shares:
        for draw in range(options.draws):
            flipped = np.random.default_rng(draw).choice(len(truth), round(share * len(truth)), replace=False)
            labels = with_wrong(truth, flipped, len(features.classes), draw)
            answers = out_of_fold(config, features, labels, options.folds, options.seeds)
            issues = find_label_issues(labels, answers)
            precision = np.isin(issues.tracks[: len(flipped)], flipped).sum() / len(flipped)
            accuracy = (decisions(answers) == truth).mean()
            print(
                f"| {len(flipped)} of {len(truth)} | {draw} | {accuracy:.1%} | {len(issues.tracks)} | {precision:.2f} "
                f"| {len(flipped) / len(truth):.2f} |",
                flush=True,
            )


def with_wrong(truth: Ints, tracks: Ints, classes: int, seed: int) -> Ints:
    """Return `truth` with another class, drawn at random, for each of `tracks`."""
    labels = truth.copy()
    labels[tracks] = (truth[tracks] + np.random.default_rng(seed + 1000).integers(1, classes, len(tracks))) % classes
    return labels


def out_of_fold(config: Config, features: Features, labels: Ints, count: int, seeds: int) -> Float32:
    """Return the mean probabilities over the seeds for all labelled tracks, (tracks, classes)."""
    ids = features.labelled()["track_id"]
    of_id = dict(zip(ids.to_pylist(), labels.tolist(), strict=True))
    answers = np.zeros((len(labels), len(features.classes)), np.float32)
    tracks = features.tracks()
    folds.check(tracks, folds.assign(tracks, count, 0), count, features.classes)
    for number in range(1, count + 1):
        data = Data.open(ClipCache.of(features.of_fold(Fold(number, count, 0)), config.cache))
        data = replace(data, train=relabelled(data.train, of_id), valid=relabelled(data.valid, of_id))
        rows = pc.index_in(data.valid.track_ids, ids.combine_chunks()).to_numpy()
        for seed in range(seeds):
            experiment = replace(Experiment.of(config), seed=seed)
            answers[rows] += Repetition(experiment, config.train.epochs, 0.0).predictions(data, torch.device("cpu"))
    return answers / np.float32(seeds)


def relabelled(clips: Clips, of_id: dict[str, int]) -> Clips:
    return replace(clips, labels=np.array([of_id[track] for track in clips.track_ids.to_pylist()], np.int64))


if __name__ == "__main__":
    main()
