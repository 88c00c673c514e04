"""Fit the classical baseline in Ray tasks, from clips that no process holds at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from genre.arrays import Float32, Ints
from genre.evaluation import baseline, track_statistics
from genre.evaluation.baseline import Baseline, LabelledStatistics
from genre.features import Features, streaming
from genre.features.splitting import folds
from genre.features.splitting.folds import NOT_TEST, Fold
from genre.features.streaming import ChunkMeans, Extent, TrackMeans
from ray_jobs.engine.capacity import Capacity

_CLIPS_PER_TASK = 50_000  # whose statistics take a core about a minute
_SHARE_OF_CPUS = 1 / 8  # the other CPUs are for the trials of a search, which run at the same time


@dataclass(frozen=True)
class FoldBaseline:
    """The predictions of the baseline of a fold for the tracks that it held out, and what it is."""

    name: str
    settings: dict[str, Any]
    train_seconds: float
    probabilities: Float32  # (tracks of the fold, classes)


@ray.remote(num_cpus=1)
def fit_baseline(
    features: Features, class_weights: bool, capacity: Capacity, first_fold: Fold | None = None
) -> Baseline:
    """Fit the classical baseline on the training split, with the penalty that is best on the validation split.

    In a search over folds (`first_fold`), fit on the tracks of all folds, as the final networks are, with the penalty
    that has the best mean over the folds.
    """
    if first_fold is not None:
        return _fit_over_folds(features, class_weights, capacity, first_fold)
    splits = [features.tracks(name) for name in NOT_TEST]
    inputs = statistics(features, pa.concat_tables(splits), capacity)  # in one pass: files hold clips of all splits
    parts = np.split(inputs, [len(splits[0])])
    train, valid = (
        LabelledStatistics(part, features.labels(tracks).to_numpy()) for part, tracks in zip(parts, splits, strict=True)
    )
    return baseline.fit(train, valid, len(features.classes), class_weights)


def _fit_over_folds(features: Features, class_weights: bool, capacity: Capacity, first: Fold) -> Baseline:
    tracks = features.tracks()
    fold = folds.assign(tracks, first.count, first.seed, first.splits)
    tracks = tracks.filter(pa.array(fold > 0))
    split = LabelledStatistics(statistics(features, tracks, capacity), features.labels(tracks).to_numpy())
    return baseline.fit_over_folds(split, fold[fold > 0], len(features.classes), class_weights)


@ray.remote(num_cpus=1)
def fit_baseline_of_folds(
    features: Features, fold: Ints, class_weights: bool, capacity: Capacity
) -> list[FoldBaseline]:
    """Fit the classical baseline for each fold, on the labelled tracks of the others, in a task for each.

    `fold`, (labelled tracks,), numbers the folds from 1.
    """
    tracks = features.labelled()
    split = LabelledStatistics(statistics(features, tracks, capacity), features.labels(tracks).to_numpy())
    shared = ray.put((split, fold, len(features.classes), class_weights))
    return list(ray.get([_fit_for_fold.remote(number, shared) for number in range(1, int(fold.max()) + 1)]))


@ray.remote(num_cpus=1)
def _fit_for_fold(number: int, shared: tuple[LabelledStatistics, Ints, int, bool]) -> FoldBaseline:
    split, fold, classes, class_weights = shared
    fitted = baseline.fit_for_fold(split, fold, number, classes, class_weights)
    probabilities = fitted.predict(split.statistics[fold == number])
    return FoldBaseline(fitted.name, fitted.settings, fitted.train_seconds, probabilities)


def statistics(features: Features, tracks: pa.Table, capacity: Capacity) -> Float32:
    """Return the statistics of tracks, (tracks, statistics); for many clips, computed by tasks on some of the CPUs.

    To be called in a task: Ray lends its CPU to the other tasks while it waits for them.
    """
    extents = streaming.extents(features, tracks)
    columns = tracks.select(["track_id", "part"]).combine_chunks()
    count = min(len(extents), -(-pc.sum(tracks["clips"]).as_py() // _CLIPS_PER_TASK))
    shares = [extents[number::count] for number in range(count)]
    means = TrackMeans(str(features.folder), tracks)
    most = capacity.workers(count) if math.isinf(capacity.cpus) else max(1, int(capacity.cpus * _SHARE_OF_CPUS))
    for chunk in _in_tasks(features, columns, shares, most) if count > 1 else _chunks(features, columns, extents):
        means.add(chunk)
    return means.result()[0]


def _in_tasks(features: Features, tracks: pa.Table, shares: list[list[Extent]], most: int) -> Iterator[ChunkMeans]:
    """Yield the statistics of chunks as they are finished, from a task for each share, at most `most` at a time."""
    shared = ray.put(tracks)
    running: list[ray.ObjectRef[list[ChunkMeans]]] = []
    for share in shares:
        if len(running) == most:
            (done,), running = ray.wait(running)
            yield from ray.get(done)
        running.append(_share_of_chunks.remote(features, shared, share))
    for last in running:
        yield from ray.get(last)


@ray.remote(num_cpus=1)
def _share_of_chunks(features: Features, tracks: pa.Table, extents: list[Extent]) -> list[ChunkMeans]:
    return list(_chunks(features, tracks, extents))


def _chunks(features: Features, tracks: pa.Table, extents: list[Extent]) -> Iterator[ChunkMeans]:
    """Yield the statistics of the tracks in each chunk of clips."""
    for extent in extents:
        for chunk in streaming.read(features, tracks, extent):
            yield chunk.means([track_statistics.of_clips(chunk.clips)])
