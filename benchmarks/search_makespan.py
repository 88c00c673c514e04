"""The search against the same trials one after another, and against the ideal: makespan, overhead, busy cores.

    python benchmarks/search_makespan.py FEATURES_RUN [--trials 2] [--epochs 12] [--rounds 2] [key=value ...]

FEATURES_RUN is the output of a `prepare` job. Every round runs, in turn: the search with as many trials at a time as
there are CPUs, the same search with one at a time, and the same configurations in a plain loop without Ray. No trial
is stopped early, so that all three do the same work. The ideal packs the plain loop's times on all CPUs, longest
first, at no cost. "Between trials" is a place's time without a trial, Ray's first worker included. Prints Markdown.
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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import ray
import torch

from genre.config import load
from genre.features import SPLITS, Features
from genre.report import Search
from genre.settings import Config
from genre.storage import Location
from genre.training import experiment
from genre.training.experiment import Data, Experiment
from ray_jobs import tune
from ray_jobs.engine import cluster
from ray_jobs.search import terms
from ray_jobs.search.budget import Plan
from ray_jobs.search.trials import apply

_SAMPLE_SECONDS = 0.5


@dataclass
class Cores:
    """CPU seconds of this process and all that descend from it, while it runs as a context."""

    _seconds: dict[int, float] = field(default_factory=dict)
    _names: dict[int, str] = field(default_factory=dict)

    def __enter__(self) -> Cores:
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

    def spent(self, trials: bool) -> float:
        """By the processes of trials, or by all others: driver, Ray's daemons, starting workers."""
        mine = (pid for pid in self._seconds if ("ImplicitFunc" in self._names[pid]) is trials)
        return sum(self._seconds[pid] - self._before.get(pid, 0.0) for pid in mine)

    def _watch(self) -> None:
        while not self._end.wait(_SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        processes = {pid: stat for place in Path("/proc").glob("[0-9]*") if (stat := _stat(pid := int(place.name)))}
        family = {os.getpid()}
        while grown := {pid for pid, stat in processes.items() if int(stat[1]) in family} - family:
            family |= grown
        for pid in family & processes.keys():
            self._seconds[pid] = (int(processes[pid][11]) + int(processes[pid][12])) / os.sysconf("SC_CLK_TCK")
            self._names[pid] = _command(pid) or self._names.get(pid, "")


def _stat(pid: int) -> list[str]:
    """State, parent and so on, as proc(5) lists them after the name; nothing of a process that ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


@dataclass(frozen=True)
class Measured:
    """One search."""

    found: Search
    seconds: float
    training_cpu: float
    other_cpu: float


def run_search(config: Config, data: Data, concurrent: int) -> Measured:
    """The search alone, in a fresh folder and a Ray that has started before."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"output": folder, "tune.concurrent": concurrent}
        one = apply(config, settings)
        with cluster.connected(one):
            one = terms.with_resources(one)
            shared = [ray.put(data)]
            with Cores() as cores:
                outcome = tune.find_winners(one, shared, data.manifest, Plan.of(one, terms.searched_architectures(one)))
    makespan = outcome.search.makespan_seconds or 0.0
    return Measured(outcome.search, makespan, cores.spent(trials=True), cores.spent(trials=False))


def plain_loop(config: Config, data: Data, found: Search) -> tuple[list[float], float]:
    """Seconds of each trial of `found`, trained one after another in this process on one thread, and CPU seconds."""
    torch.set_num_threads(1)
    seconds, cpu = [], time.process_time()
    for trial in found.trials:
        started = time.perf_counter()
        configuration = apply(config, {"architecture": trial.architecture} | trial.settings)
        _, trainer = experiment.trainer_for(Experiment.of(configuration), data, torch.device("cpu"))
        for _ in trainer.run():
            pass
        seconds.append(time.perf_counter() - started)
    return seconds, time.process_time() - cpu


def packed(seconds: list[float], places: int) -> float:
    """The makespan of these trials on so many places, longest first (Graham 1969: at most a third above the best)."""
    ends = [0.0] * places
    for one in sorted(seconds, reverse=True):
        ends[ends.index(min(ends))] += one
    return max(ends)


def report(number: int, together: Measured, apart: Measured, plain: list[float], plain_cpu: float, places: int) -> None:
    ideal, trials = packed(plain, places), len(plain)
    busy = together.training_cpu / (together.seconds * places)
    cells = [
        str(number),
        str(trials),
        f"{sum(plain):.0f} s",
        f"{apart.seconds:.0f} s",
        f"{together.seconds:.0f} s",
        f"{ideal:.0f} s",
        f"{apart.seconds / together.seconds:.2f}",
        f"{ideal / together.seconds:.0%}",
        f"{(apart.seconds - apart.found.trial_seconds) / trials:.1f} s",
        f"{(together.seconds * places - together.found.trial_seconds) / trials:.1f} s",
        f"{(apart.training_cpu + apart.other_cpu - plain_cpu) / trials:.1f} s",
        f"{(together.training_cpu + together.other_cpu - plain_cpu) / trials:.1f} s",
        f"{together.found.utilisation or 0:.0%}",
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
    data = experiment.load_data(Features.open(Location.of(options.run) / "features"), SPLITS)
    places = config.cluster.cpus or os.cpu_count() or 1
    print(
        "| round | trials | plain loop | one at a time | concurrent | ideal | gain | of ideal "
        "| between trials, one at a time | concurrent "
        "| CPU above the loop a trial, one at a time | concurrent | places busy | cores training |"
    )
    print("|" + "---:|" * 14)
    for number in range(1, options.rounds + 1):
        together, apart = run_search(config, data, 0), run_search(config, data, 1)
        report(number, together, apart, *plain_loop(config, data, together.found), places)


if __name__ == "__main__":
    main()
