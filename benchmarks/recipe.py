"""Compare recipes of training by cross-validation: the first is the present one, each other line changes a part of it.

    python benchmarks/recipe.py FEATURES VARIANTS --config configs/gtzan_spectrograms.yaml [--seeds 3] [--folds 5]

VARIANTS is a file with a variant in each line: a name, a colon, and settings KEY=VALUE. Lines that begin with `#` are
skipped. Nothing is chosen by the tracks that are judged: all epochs are trained, and the last weights answer.

With --folds 0 there are two folds, the splits train and valid of the features: networks that learned one judge the
other. That is the only division by artist of a corpus like GTZAN, whose files name no artists. The answers are kept in
OUTPUT, which is read again, so that a variant is trained once. With --processes, that many trainings run at a time;
with --device cuda they share one GPU. The interval and the p-value of a difference are by a paired bootstrap over
tracks of the mean over seeds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from genre.arrays import Float32, Float64, Ints
from genre.config import load
from genre.evaluation.bootstrap import interval, p_value_of_no_difference
from genre.features import Features
from genre.features.cache import ClipCache
from genre.features.columns import replaced
from genre.features.splitting import folds
from genre.features.splitting.folds import NOT_TEST, Fold
from genre.settings import Config
from genre.storage import Location
from genre.training.experiment import Data, Experiment
from genre.training.repetition import Repetition

DRAWS = 10_000  # of the bootstrap


class Exchanged(Fold):
    """The fold whose held-out tracks are the split train."""

    def of(self, tracks: pa.Table) -> pa.Table:
        """Return `tracks` with the splits train and valid exchanged."""
        is_train, is_valid = (pc.equal(tracks["split"], name) for name in NOT_TEST)
        other = pc.if_else(is_train, "valid", pc.if_else(is_valid, "train", tracks["split"]))
        return replaced(tracks, "split", other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("variants", type=Path)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=0, help="0: the splits train and valid")
    parser.add_argument("--ensembles", action="store_true", help="also the mean probabilities of seeds and of variants")
    parser.add_argument("--output", type=Path, default=Path("outputs/recipe"))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    features = Features.open(Location.of(options.features))
    judged = features.tracks().filter(pc.is_in(features.tracks()["split"], pa.array(NOT_TEST)))
    labels = features.labels(judged).to_numpy().astype(np.int64)
    print("| variant | accuracy % | log-loss | difference in accuracy [95 %] | p | in log-loss [95 %] | p | CPU s |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    first: tuple[Float64, Float64] | None = None
    answers: dict[str, Float32] = {}  # of each variant, (seeds, tracks, classes)
    configs = {name: load(options.config, settings) for name, settings in variants(options.variants)}
    common = (options.folds, options.output, options.device)
    with ProcessPoolExecutor(
        options.processes, get_context("spawn"), initializer=torch.set_num_threads, initargs=(options.threads,)
    ) as pool:
        trained = {
            name: [
                pool.submit(cross_validated, config, features, judged, seed, *common) for seed in range(options.seeds)
            ]
            for name, config in configs.items()
        }
        for name, trainings in trained.items():
            runs = [training.result() for training in trainings]
            answers[name] = np.stack([each for each, _ in runs])
            scores = of_tracks(answers[name], labels)
            first = first or scores
            print(row(name, scores, first, float(np.mean([seconds for _, seconds in runs]))), flush=True)
    if options.ensembles and first:
        means = {f"mean of the seeds: {name}": each.mean(axis=0) for name, each in answers.items()}
        for name, mean in (means | {"mean of all": np.mean(list(means.values()), axis=0)}).items():
            print(row(name, of_tracks(mean[np.newaxis], labels), first))


def variants(file: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the settings of each variant."""
    for line in file.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, settings = line.partition(":")
            yield name.strip(), settings.split()


def cross_validated(
    config: Config, features: Features, judged: pa.Table, seed: int, count: int, output: Path, device: str
) -> tuple[Float32, float]:
    """Return the answers for all tracks `judged` by networks that did not learn them, (tracks, classes), and CPU s."""
    experiment = replace(Experiment.of(config), seed=seed)
    repetition = Repetition(experiment, config.train.epochs, 0.0)
    deciding = repetition.deciding() | {"features": features.manifest.fingerprint, "folds": count}
    key = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]
    file = output / f"{key}.npz"
    if not file.exists():
        answers, started = np.zeros((len(judged), len(features.classes)), np.float32), time.process_time()
        for view in views(features, count):
            data = Data.open(ClipCache.of(view, config.cache))
            rows = pc.index_in(data.valid.track_ids, judged["track_id"].combine_chunks()).to_numpy()
            answers[rows] = repetition.predictions(data, torch.device(device))
        np.savez(file, answers=answers, seconds=time.process_time() - started)
    saved = np.load(file)
    return saved["answers"], float(saved["seconds"])


def views(features: Features, count: int) -> Iterator[Features]:
    """Yield the features with the tracks of each fold as the validation split."""
    if not count:
        yield features
        yield features.of_fold(Exchanged(2, 2, 0, NOT_TEST))
        return
    tracks = features.tracks()
    folds.check(tracks, folds.assign(tracks, count, 0, NOT_TEST), count, features.classes)
    for number in range(1, count + 1):
        yield features.of_fold(Fold(number, count, 0, NOT_TEST))


def of_tracks(answers: Float32, labels: Ints) -> tuple[Float64, Float64]:
    """Return whether each track was right and its log-loss, means over the seeds, (tracks,).

    `answers` are (seeds, tracks, classes).
    """
    right = (answers.argmax(axis=2) == labels).mean(axis=0)
    loss = -np.log(np.maximum(answers[:, np.arange(len(labels)), labels], 1e-9)).mean(axis=0)
    return right, loss


def row(
    name: str, scores: tuple[Float64, Float64], first: tuple[Float64, Float64], seconds: float | None = None
) -> str:
    """Return a line of the table."""
    right, loss = scores
    gains = [compared(variant - other) for variant, other in zip(scores, first, strict=True)]
    spent = "" if seconds is None else f"{seconds:.0f}"
    return f"| {name} | {100 * right.mean():.1f} | {loss.mean():.3f} | {gains[0]} | {gains[1]} | {spent} |"


def compared(differences: Float64) -> str:
    """Return mean, 95 % interval and p-value of paired differences, (tracks,)."""
    if not differences.any():
        return " | "
    rng = np.random.default_rng(0)
    weights = rng.multinomial(len(differences), np.full(len(differences), 1 / len(differences)), DRAWS)
    drawn = weights @ differences / len(differences)
    low, high = interval(drawn, float(differences.mean()))
    return f"{differences.mean():+.3f} [{low:+.3f} {high:+.3f}] | {p_value_of_no_difference(drawn):.3f}"


if __name__ == "__main__":
    main()
