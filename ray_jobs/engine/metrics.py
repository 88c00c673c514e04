"""Metrics of the jobs at Ray's Prometheus endpoint (docs/OPERATIONS.md). The functions are called on workers."""

from __future__ import annotations

from functools import cache

import pyarrow as pa
import pyarrow.compute as pc
from ray.util.metrics import Counter, Gauge

from genre.features.preparing.tracks import prepare_block
from genre.features.recipe import Recipe
from genre.storage import Location


def prepare_and_count(tracks: pa.Table, recipe: Recipe, folder: Location, run: int) -> pa.Table:
    """Run `prepare_block` and count its outcomes. Not in the module of the job, which workers would have to import."""
    outcomes = prepare_block(tracks, recipe, folder, run)
    _add("prepared_clips", "clips written to the features", pc.sum(outcomes["clips"]).as_py() or 0)
    _add("rejected_tracks", "tracks that ended in rejects.parquet", pc.count(outcomes["reason"]).as_py())
    _add("finished_tracks", "tracks that prepare has finished, rejected or not", len(outcomes))
    return outcomes


def report_epoch(windows_per_second: float, data_wait_seconds: float) -> None:
    """Set the gauges of a training worker: speed and waiting time of its last epoch."""
    _gauge("train_windows_per_second", "training windows a second, last epoch").set(windows_per_second)
    _gauge("train_data_wait_seconds", "time the last epoch waited for its data").set(data_wait_seconds)


def _add(name: str, meaning: str, number: int) -> None:
    if number:  # Ray refuses to add 0
        _counter(name, meaning).inc(number)


@cache
def _counter(name: str, meaning: str) -> Counter:
    return Counter(f"genre_{name}", description=meaning)


@cache
def _gauge(name: str, meaning: str) -> Gauge:
    return Gauge(f"genre_{name}", description=meaning)
