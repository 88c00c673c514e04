"""Compare the search with the same trials one after another, and with the ideal: makespan, overhead, busy cores.

    python benchmarks/search_makespan.py FEATURES_RUN [--trials 2] [--epochs 12] [--rounds 2] [key=value ...]

FEATURES_RUN is the output of a `prepare` job. Every round runs, in turn: the search with as many concurrent trials as
there are CPUs, the same search with one trial at a time, and the same configurations in a plain loop without Ray. No
trial is stopped early, so that all three do the same work. The ideal packs the times of the plain loop on all CPUs,
longest first, without overhead. "Between trials" is the time of a slot without a trial, including the start of Ray's
first worker. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

import processes
import torch

from genre.config import load
from genre.features import Features
from genre.features.cache import ClipCache
from genre.report import Search
from genre.settings import Config
from genre.storage import Location
from genre.training import experiment
from genre.training.experiment import Data
from ray_jobs import tune
from ray_jobs.engine import cluster
from ray_jobs.search import space
from ray_jobs.search.plan import Plan
from ray_jobs.search.resources import TrialResources
from ray_jobs.search.runner import Runner

_SAMPLE_SECONDS = 0.5


@dataclass
class CpuMeter:
    """A context that measures the CPU seconds of this process and its descendants."""

    _seconds: dict[int, float] = field(default_factory=dict)
    _names: dict[int, str] = field(default_factory=dict)

    def __enter__(self) -> CpuMeter:
        self._sample()
        self._before = dict(self._seconds)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._sample()

    def seconds(self, trials: bool) -> float:
        """Return the seconds of the trials' processes, or of all others: driver, Ray's daemons, starting workers."""
        chosen = (pid for pid in self._seconds if ("ImplicitFunc" in self._names[pid]) is trials)
        return sum(self._seconds[pid] - self._before.get(pid, 0.0) for pid in chosen)

    def _watch(self) -> None:
        while not self._end.wait(_SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        for pid in [os.getpid(), *processes.descendants(os.getpid())]:
            self._seconds[pid] = processes.cpu_seconds(pid) or self._seconds.get(pid, 0.0)
            self._names[pid] = processes.command(pid) or self._names.get(pid, "")


@dataclass(frozen=True)
class Measured:
    """One search."""

    result: Search
    seconds: float
    training_cpu: float
    other_cpu: float


def run_search(config: Config, cache: ClipCache, concurrent: int) -> Measured:
    """Run the search alone, in a new folder, after Ray has started."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"output": folder, "tune.concurrent": concurrent}
        own = space.apply(config, settings)
        plan = Plan.of(own.train, own.tune, space.architecture_names(own.tune))
        with cluster.connected(own.cluster, own.output) as capacity:
            runner = Runner(own, cache, TrialResources.of(own.tune, own.device, capacity))
            with CpuMeter() as meter:
                result = tune.find_winners(runner, space.experiments(own), plan)
    makespan = result.facts.makespan_seconds or 0.0
    return Measured(result.facts, makespan, meter.seconds(trials=True), meter.seconds(trials=False))


def plain_loop(config: Config, data: Data, search: Search) -> tuple[list[float], float]:
    """Train the trials of `search` one after another in this process on one thread.

    Returns the seconds of each trial, and the CPU seconds of all.
    """
    torch.set_num_threads(1)
    seconds, cpu = [], time.process_time()
    for trial in search.trials:
        started = time.perf_counter()
        planned = space.experiment(config, {"architecture": trial.architecture} | trial.settings)
        _, trainer = experiment.trainer_for(planned, data, torch.device("cpu"))
        for _ in trainer.run():
            pass
        seconds.append(time.perf_counter() - started)
    return seconds, time.process_time() - cpu


def packed(seconds: list[float], slots: int) -> float:
    """Return the makespan of trials on `slots`, longest first (Graham 1969: at most a third above the optimum)."""
    ends = [0.0] * slots
    for trial in sorted(seconds, reverse=True):
        ends[ends.index(min(ends))] += trial
    return max(ends)


def report(
    number: int, concurrent: Measured, sequential: Measured, plain: list[float], plain_cpu: float, slots: int
) -> None:
    ideal, trials = packed(plain, slots), len(plain)
    busy = concurrent.training_cpu / (concurrent.seconds * slots)
    cells = [
        str(number),
        str(trials),
        f"{sum(plain):.0f} s",
        f"{sequential.seconds:.0f} s",
        f"{concurrent.seconds:.0f} s",
        f"{ideal:.0f} s",
        f"{sequential.seconds / concurrent.seconds:.2f}",
        f"{ideal / concurrent.seconds:.0%}",
        f"{(sequential.seconds - sequential.result.trial_seconds) / trials:.1f} s",
        f"{(concurrent.seconds * slots - concurrent.result.trial_seconds) / trials:.1f} s",
        f"{(sequential.training_cpu + sequential.other_cpu - plain_cpu) / trials:.1f} s",
        f"{(concurrent.training_cpu + concurrent.other_cpu - plain_cpu) / trials:.1f} s",
        f"{concurrent.result.utilisation or 0:.0%}",
        f"{busy:.0%}",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="output of a prepare job")
    parser.add_argument("--config", help="YAML file of the run")
    parser.add_argument("--trials", type=int, default=2, help="of each architecture")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    options = parser.parse_intermixed_args()
    own = [f"tune.trials={options.trials}", f"train.epochs={options.epochs}", f"tune.grace_epochs={options.epochs}"]
    config = load(options.config, [*options.settings, *own, f"output={options.run}"])
    cache = ClipCache.of(Features.open(Location.of(options.run) / "features"), config.cache)
    data = Data.open(cache)
    slots = config.cluster.cpus or os.cpu_count() or 1
    print(
        "| round | trials | plain loop | one at a time | concurrent | ideal | gain | of ideal "
        "| between trials, one at a time | concurrent "
        "| CPU above the loop per trial, one at a time | concurrent | slots busy | cores training |"
    )
    print("|" + "---:|" * 14)
    for number in range(1, options.rounds + 1):
        concurrent, sequential = run_search(config, cache, 0), run_search(config, cache, 1)
        report(number, concurrent, sequential, *plain_loop(config, data, concurrent.result), slots)


if __name__ == "__main__":
    main()
