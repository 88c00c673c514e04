"""Tagging a collection: the tag job's workers against a plain loop with the same model, side by side.

    python benchmarks/tag_throughput.py MODEL MUSIC [--workers 2] [--rounds 3]

Both decode, transform and predict the same files with the same code and one torch thread in each process. The loop
is what one would write by hand: one process, one file after the other, nothing isolated. The job's way is a pool of
Ray Data actors with a decoder of its own for each. Rounds take turns, so that both see the same machine, and only
full pools are timed: every worker has answered before its clock starts.

On a machine that others use as well the ratio of the clocks says little; the processor's time for a file does, for
each way: `workers * loop's / pool's` is what free cores would give.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from genre import checkpoint, collection
from genre.classifier import predict
from genre.config import load
from genre.decoding import clips_of, recipe_of
from genre.preparation import TrackKernel
from genre.storage import Location
from ray_jobs import cluster
from ray_jobs.tag import _Worker

import ray  # isort: skip


class PlainLoop:
    """Decode and predict in this process."""

    def __init__(self, model: str) -> None:
        config = load()
        self._card, self._classifier = checkpoint.load(Location.of(model))
        recipe = recipe_of(self._card.features, self._card.fingerprint, self._card.shape, config.prepare)
        self._kernel = TrackKernel(recipe)

    def __call__(self, paths: list[str]) -> float:
        """Seconds of music tagged."""
        music = 0.0
        for path in paths:
            track = self._kernel(path)
            clips = clips_of([track], self._card.shape)
            np.mean(predict(self._classifier, clips, self._card.frames(), self._card.eval_windows), axis=0)
            music += track.seconds
        return music


class TimedWorker(_Worker):
    def cpu_seconds(self) -> float:
        """Of this process and of its decoder, so far (Linux)."""
        children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
        pids = [str(os.getpid()), *(pid for place in children for pid in place.read_text().split())]
        # user and system time, fields 14 and 15 of the line; the name in field 2 may hold blanks
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
        return sum(int(field[11]) + int(field[12]) for field in fields) / os.sysconf("SC_CLK_TCK")


class Pool:
    """The job's own workers as actors; they are dealt batches as they become free."""

    def __init__(self, model: str, workers: int, batch: int) -> None:
        self._batch = batch
        actor = ray.remote(num_cpus=1)(TimedWorker)
        self._actors = [actor.remote([model], load().prepare, {}, "cpu") for _ in range(workers)]

    def warm(self, files: pa.Table) -> None:
        ray.get([actor.__call__.remote(files) for actor in self._actors])

    def cpu_seconds(self) -> float:
        return float(sum(ray.get([actor.cpu_seconds.remote() for actor in self._actors])))

    def __call__(self, files: pa.Table) -> None:
        pool = ray.util.ActorPool(self._actors)
        batches = [files.slice(begin, self._batch) for begin in range(0, len(files), self._batch)]
        list(pool.map_unordered(lambda actor, rows: actor.__call__.remote(rows), batches))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("music")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    files = collection.list_files(options.music).slice(0, options.files)
    loop = PlainLoop(options.model)
    config = load(
        None, [f"cluster.cpus={options.workers}", "cluster.object_store_mb=200", "output=/tmp/tag-throughput"]
    )
    ratios = []
    with cluster.connected(config):
        pool = Pool(options.model, options.workers, batch=4)
        pool.warm(files.slice(0, 2))
        music = loop(files["path"].to_pylist()[:2])
        for number in range(options.rounds):
            started, spent = time.perf_counter(), time.process_time()
            music = loop(files["path"].to_pylist())
            plain, plain_cpu = time.perf_counter() - started, time.process_time() - spent
            started, spent = time.perf_counter(), pool.cpu_seconds()
            pool(files)
            ours, ours_cpu = time.perf_counter() - started, pool.cpu_seconds() - spent
            ratios.append(plain / ours)
            print(
                f"round {number + 1}: loop {len(files) / plain:.1f} files/s, {music / plain:.0f} x real time; "
                f"{options.workers} workers {len(files) / ours:.1f} files/s, {music / ours:.0f} x real time; "
                f"{ratios[-1]:.2f} x the loop; CPU for a file {plain_cpu / len(files):.3f} and "
                f"{ours_cpu / len(files):.3f} s, {options.workers * plain_cpu / ours_cpu:.2f} x on free cores",
                flush=True,
            )
    print(f"median: {statistics.median(ratios):.2f} x the loop, {options.workers} workers")


if __name__ == "__main__":
    main()
