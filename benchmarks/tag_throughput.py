"""Tagging a collection: the tag job's engine at steady state against a plain loop with the same model, side by side.

    python benchmarks/tag_throughput.py MODEL MUSIC [--cpus 2] [--rounds 3] [--files 128]

The job's side is `ray_jobs.tag.stream`, all of what the job does between its list of files and its rows: Ray Data,
actors, decoders in processes of their own, contents looked up, answers on their way back. Its clock runs from the
moment that every worker has answered once until the first of them finds nothing more to do.

The loop is what one would write by hand with the same front end and the same network: one process, one file after
the other, nothing isolated; once with one torch thread and once with one on each CPU. The better of the two counts.
It runs at the niceness that Ray gives its workers, so that a third program takes the same from both. All take turns.

On a machine that others use as well the clocks say little. The processor's time for a file, which is that of all
of Ray's processes and of the driver, does: `CPUs * loop's / job's` is what free CPUs would give.
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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from genre.config import load
from genre.features.preparation import TrackKernel
from genre.model import checkpoint
from genre.model.card import ModelCard
from genre.model.classifier import Classifier, predict
from genre.model.saved_model import SavedEnsemble
from genre.model.spectrogram_decoder import clips_of
from genre.settings import Config
from genre.storage import Location
from genre.tagging.audio_files import list_files
from ray_jobs import tag
from ray_jobs.engine import cluster

_NICE = 15  # of Ray's workers


@dataclass(frozen=True)
class Speed:
    """What `files` files cost: seconds of the clock and of processors, for so many seconds of music."""

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
    """Decode and predict in one process, which this one starts."""

    def __init__(self, model: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, initializer=_start_loop, initargs=(model, threads))

    def __call__(self, paths: list[str]) -> Speed:
        return self._pool.submit(_loop, paths).result()

    def close(self) -> None:
        self._pool.shutdown()


_model: tuple[ModelCard, Classifier, TrackKernel]  # of the loop's process


def _start_loop(model: str, threads: int) -> None:
    global _model
    os.nice(_NICE)
    torch.set_num_threads(threads)
    card, classifier = checkpoint.load(Location.of(model))
    _model = card, classifier, TrackKernel(card.recipe())


def _loop(paths: list[str]) -> Speed:
    card, classifier, kernel = _model
    started, spent, music = time.perf_counter(), time.process_time(), 0.0
    for path in paths:
        track = kernel(path)
        predict(classifier, clips_of([track], card.shape), card.frames(), card.eval_windows).mean(axis=0)
        music += track.seconds
    return Speed(len(paths), music, time.perf_counter() - started, time.process_time() - spent)


def job(config: Config, ensemble: SavedEnsemble, files: pa.Table) -> Speed:
    """The job's engine from the first answers of all workers to the first worker without work."""
    marks = []
    for rows in tag.stream(config, ensemble, files, {}):
        marks.append((time.perf_counter(), _cpu_seconds(), len(rows), sum(rows["seconds"].to_pylist())))
    begin, end = cluster.cpus() - 1, len(marks) - cluster.cpus()
    between = marks[begin + 1 : end + 1]
    return Speed(
        files=sum(mark[2] for mark in between),
        music=sum(mark[3] for mark in between),
        wall=marks[end][0] - marks[begin][0],
        cpu=marks[end][1] - marks[begin][1],
    )


def _cpu_seconds() -> float:
    """Of this process and all below it, so far (Linux)."""
    parents, ticks = {}, {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            # the name in field 2 may hold blanks; then state, parent, ..., user and system time
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        pid = int(place.parent.name)
        parents[pid], ticks[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
    total = 0
    for pid in ticks:
        above = pid
        while above in parents and above != os.getpid():
            above = parents[above]
        total += ticks[pid] if above == os.getpid() else 0
    return total / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("music")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=128, help="in a round; a smaller collection is gone through again")
    options = parser.parse_args()
    listed = list_files(options.music)
    times = -(-options.files // len(listed))
    files = pa.concat_tables([listed] * times).slice(0, options.files)
    some = listed["path"].to_pylist()[: max(8, options.files // 4)]
    loops = {threads: PlainLoop(options.model, threads) for threads in (1, options.cpus)}
    for loop in loops.values():
        loop(some[:2])
    ensemble = SavedEnsemble.read([Location.of(options.model)], 0.0)
    ratios, free = [], []
    with tempfile.TemporaryDirectory() as output:
        settings = [f"cluster.cpus={options.cpus}", "cluster.object_store_mb=200", f"output={output}"]
        config = load(None, settings)
        with cluster.connected(config):
            for number in range(options.rounds):
                plain = {threads: loop(some) for threads, loop in loops.items()}
                ours = job(config, ensemble, files)
                best = max(plain.values(), key=lambda speed: speed.files / speed.wall)
                ratios.append(ours.files / ours.wall / (best.files / best.wall))
                free.append(options.cpus * plain[1].cpu / plain[1].files / (ours.cpu / ours.files))
                print(f"round {number + 1}, load {os.getloadavg()[0]:.1f}")
                for threads, speed in plain.items():
                    print(f"  loop, {threads} torch threads: {speed}")
                print(f"  job, {options.cpus} CPUs:           {ours}")
                print(f"  {ratios[-1]:.2f} x the better loop; {free[-1]:.2f} x one thread on free CPUs", flush=True)
    for loop in loops.values():
        loop.close()
    print(
        f"median: {statistics.median(ratios):.2f} x the better loop; "
        f"{statistics.median(free):.2f} x one thread on free CPUs"
    )


if __name__ == "__main__":
    main()
