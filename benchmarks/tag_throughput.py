"""Compare the throughput of the tag job at steady state with a plain loop that uses the same model.

    python benchmarks/tag_throughput.py MODEL MUSIC [--cpus 2] [--rounds 3] [--files 128]

The job is measured through `ray_jobs.tagging.stream.stream`, everything between its list of files and its rows: tasks,
decoders in separate processes, the cache of contents, and the transfer of results. The time is measured from the first
result of every worker until the first worker runs out of work.

The loop is the simple program with the same front end and the same network: one process, one file after the other, no
isolation; once with one torch thread and once with one thread per CPU. The better of the two counts. It runs at the
niceness of Ray's workers, so that other programs affect both alike. All take turns.

On a busy machine wall time says little. The CPU time for a file, summed over Ray's processes and the driver, is
reliable: `CPUs * loop's / job's` is the ratio that idle CPUs would give.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]
import processes

from genre.config import load
from genre.features.preparing.tracks import TrackPreparer, clips_of
from genre.model import checkpoint
from genre.model.checkpoint import LoadedModel
from genre.model.saved_model import SavedEnsemble
from genre.settings import Config
from genre.storage import Location
from genre.tagging.audio_files import list_files
from genre.tagging.known_contents import KnownContents
from ray_jobs.engine import cluster, machines
from ray_jobs.tagging import distributed

_NICE = 15  # of Ray's workers


@dataclass(frozen=True)
class Speed:
    """The cost of `files` files: wall and CPU seconds, for `music` seconds of music."""

    files: int
    music: float
    wall: float
    cpu: float

    def __str__(self) -> str:
        return (
            f"{self.files / self.wall:5.1f} files/s, {self.music / self.wall:4.0f} x real time, "
            f"{1000 * self.cpu / self.files:3.0f} ms of CPU for a file"
        )


class PlainLoop:
    """A loop that decodes and predicts in one process of its own."""

    def __init__(self, model: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, initializer=_start_loop, initargs=(model, threads))

    def __call__(self, paths: list[str]) -> Speed:
        return self._pool.submit(_loop, paths).result()

    def close(self) -> None:
        self._pool.shutdown()


_model: tuple[LoadedModel, TrackPreparer]  # of the loop's process


def _start_loop(model: str, threads: int) -> None:
    global _model
    os.nice(_NICE)
    torch.set_num_threads(threads)
    loaded = checkpoint.load(Location.of(model))
    _model = loaded, TrackPreparer(loaded.card.recipe())


def _loop(paths: list[str]) -> Speed:
    loaded, preparer = _model
    started, spent, music = time.perf_counter(), time.process_time(), 0.0
    for path in paths:
        track = preparer(path)
        loaded.predict(clips_of([track], loaded.card.shape)).mean(axis=0)
        music += track.seconds
    return Speed(len(paths), music, time.perf_counter() - started, time.process_time() - spent)


def job(config: Config, ensemble: SavedEnsemble, files: pa.Table) -> Speed:
    """Measure the job from the first results of all workers until the first worker has no more work."""
    marks = []
    for rows in distributed.stream(config, ensemble, files, KnownContents.none()):
        marks.append((time.perf_counter(), _cpu_seconds(), len(rows), sum(rows["seconds"].to_pylist())))
    workers = machines.slots({"CPU": 1})
    begin, end = workers - 1, len(marks) - workers
    between = marks[begin + 1 : end + 1]
    return Speed(
        files=sum(mark[2] for mark in between),
        music=sum(mark[3] for mark in between),
        wall=marks[end][0] - marks[begin][0],
        cpu=marks[end][1] - marks[begin][1],
    )


def _cpu_seconds() -> float:
    """Return the CPU seconds of this process and its descendants so far."""
    return sum(processes.cpu_seconds(pid) for pid in [os.getpid(), *processes.descendants(os.getpid())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("music")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=128, help="in a round; a smaller collection is repeated")
    options = parser.parse_args()
    collection = list_files(options.music)
    times = -(-options.files // len(collection))
    files = pa.concat_tables([collection] * times).slice(0, options.files)
    sample = collection["path"].to_pylist()[: max(8, options.files // 4)]
    loops = {threads: PlainLoop(options.model, threads) for threads in (1, options.cpus)}
    for loop in loops.values():
        loop(sample[:2])
    ensemble = SavedEnsemble.read([Location.of(options.model)], 0.0)
    ratios, idle_ratios = [], []
    with tempfile.TemporaryDirectory() as output:
        settings = [f"cluster.cpus={options.cpus}", "cluster.object_store_mb=200", f"output={output}"]
        config = load(None, settings)
        with cluster.connected(config.cluster, config.output):
            for number in range(options.rounds):
                plain = {threads: loop(sample) for threads, loop in loops.items()}
                ours = job(config, ensemble, files)
                best = max(plain.values(), key=lambda speed: speed.files / speed.wall)
                ratios.append(ours.files / ours.wall / (best.files / best.wall))
                idle_ratios.append(options.cpus * plain[1].cpu / plain[1].files / (ours.cpu / ours.files))
                print(f"round {number + 1}, load {os.getloadavg()[0]:.1f}")
                for threads, speed in plain.items():
                    print(f"  loop, {threads} torch threads: {speed}")
                print(f"  job, {options.cpus} CPUs:           {ours}")
                print(
                    f"  {ratios[-1]:.2f} x the better loop; {idle_ratios[-1]:.2f} x one thread on idle CPUs", flush=True
                )
    for loop in loops.values():
        loop.close()
    print(
        f"median: {statistics.median(ratios):.2f} x the better loop; "
        f"{statistics.median(idle_ratios):.2f} x one thread on idle CPUs"
    )


if __name__ == "__main__":
    main()
