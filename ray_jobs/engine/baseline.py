"""Fit the classical baseline in Ray tasks, from clips that no process holds at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from genre.evaluation import baseline, track_statistics
from genre.evaluation.baseline import Baseline, Split
from genre.features import Features, Float32, streaming
from genre.features.streaming import ChunkMeans, TrackMeans, Unit
from ray_jobs.engine import capacity

_CLIPS_PER_TASK = 50_000  # the statistics of which take a core about a minute
_SHARE_OF_CPUS = 1 / 8  # trials of a search run at the same time


@ray.remote(num_cpus=1)
def fit_baseline(features: Features, class_weights: bool) -> Baseline:
    """Fit the classical baseline on the training split, with the penalty that is best on the validation split."""
    train, valid = (_split(features, features.tracks(name)) for name in ("train", "valid"))
    return baseline.fit(train, valid, len(features.classes), class_weights)


def _split(features: Features, tracks: pa.Table) -> Split:
    return Split(statistics(features, tracks), features.labels(tracks).to_numpy())


def statistics(features: Features, tracks: pa.Table) -> Float32:
    """Return the statistics of tracks, (tracks, statistics), in this process; of many clips, in tasks of an eighth of
    the CPUs. Called in a task, whose CPU is free while it waits for others.
    """
    units = streaming.units(features, tracks)
    means = TrackMeans(str(features.folder), tracks)
    columns = tracks.select(["track_id", "part"]).combine_chunks()
    count = min(len(units), -(-pc.sum(tracks["clips"]).as_py() // _CLIPS_PER_TASK))
    if count < 2:
        chunks = _statistics_of(features, columns, units)
    else:
        chunks = _in_tasks(features, columns, [units[number::count] for number in range(count)])
    for chunk in chunks:
        means.add(chunk)
    return means.result()[0]


def _in_tasks(features: Features, tracks: pa.Table, shares: list[list[Unit]]) -> Iterator[ChunkMeans]:
    """Yield the statistics of chunks in the order of completion, with a task for each share of the units."""
    task: Any = ray.remote(num_cpus=1)(lambda *arguments: list(_statistics_of(*arguments)))
    shared, running = ray.put(tracks), []
    most = max(1, int(capacity.cpus() * _SHARE_OF_CPUS))
    for share in shares:
        running.append(task.remote(features, shared, share))
        if len(running) == most:
            (done,), running = ray.wait(running)
            yield from ray.get(done)
    for last in running:
        yield from ray.get(last)


def _statistics_of(features: Features, tracks: pa.Table, units: list[Unit]) -> Iterator[ChunkMeans]:
    for unit in units:
        for chunk in streaming.read(features, tracks, unit):
            yield chunk.means([track_statistics.of_clips(chunk.clips)])
