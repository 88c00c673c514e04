"""Kill workers, machines and drivers at random while the jobs run, and compare the results with undisturbed ones.

    python benchmarks/chaos.py FOLDER [--kills 30] [--seed 0] [--jobs prepare train tune]

The machines are Ray nodes on this computer. A killed machine is replaced by a new one, as a cluster's autoscaler does.
A job whose driver was killed, or that failed, is started again with the same command, as a user would. Prints a table
of the kills and, for each job, whether its results equal those of an undisturbed run. Do not edit the code while this
runs: every start loads it again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # read when ray is imported

from ray.cluster_utils import Cluster

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "benchmarks")]

import processes

from genre.report import read_board
from genre.storage import Location

SETTINGS: dict[str, Any] = {
    "corpus": {"kind": "synthetic", "params": {"tracks_per_genre": 10, "artists_per_genre": 5, "seconds": 4.0}},
    "audio": {"clip_seconds": 4.0},
    "spectrogram": {"n_mels": 32, "n_fft": 1024, "hop_length": 512},
    "prepare": {"tracks_per_block": 2},
    "train": {"epochs": 20, "window_seconds": 2.0, "eval_windows": 2, "batch_size": 16, "dtype": "fp32"},
    "architectures": {
        "cnn": {"width": 4, "depth": 3},
        "crnn": {"width": 4, "depth": 3, "hidden": 8},
        "resnet": {"width": 4},
    },
    "tune": {"trials": 1, "seeds": 1, "grace_epochs": 20, "architectures": ["cnn", "resnet"]},
}
JOBS = {"prepare": [], "train": ["architecture=crnn"], "tune": []}  # tune leaves its own models/cnn
NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
LONGEST_RUN = 1200  # seconds, after which a job counts as hanging


@dataclass
class Kill:
    """One line of the table."""

    job: str
    at: float
    victim: str
    last_line: str  # of the job's output before the kill
    result: str = "the job continued"


@dataclass
class Machines:
    """A head that runs no tasks and three workers of one CPU."""

    cluster: Cluster = field(
        default_factory=lambda: Cluster(True, head_node_args=NODE | {"num_cpus": 0, "include_dashboard": False})
    )

    def __post_init__(self) -> None:
        self.workers = [self.cluster.add_node(**NODE) for _ in range(3)]
        self.cluster.wait_for_nodes()

    def kill_machine(self, dice: random.Random) -> str:
        """Kill a worker machine with all its processes and start a new one."""
        lost = self.workers.pop(dice.randrange(len(self.workers)))
        self.cluster.remove_node(lost, allow_graceful=False)
        self.workers.append(self.cluster.add_node(**NODE))
        return "a machine"

    def kill_process(self, dice: random.Random) -> str:
        """Kill one of the processes that run a task or an actor; return "" where there is none yet."""
        idle = ("ray::IDLE", "ray::Dash", "ray::Run")
        busy = [
            (pid, title) for pid, title in self._processes() if title.startswith("ray::") and not title.startswith(idle)
        ]
        if not busy:
            return ""
        pid, title = dice.choice(busy)
        os.kill(pid, signal.SIGKILL)
        return f"process {title.removeprefix('ray::').split(' ')[0].split('(')[0]}"

    def _processes(self) -> list[tuple[int, str]]:
        """Return (process id, title) of the processes that the workers' raylets started."""
        raylets = {worker.all_processes["raylet"][0].process.pid for worker in self.workers}
        return sorted((pid, processes.command(pid).strip()) for raylet in raylets for pid in processes.children(raylet))


class Run:
    """One job in `folder`, started again until it succeeds."""

    def __init__(self, folder: Path, job: str, address: str) -> None:
        self.folder, self.job, self.starts = folder, job, 0
        self._environment = os.environ | {"RAY_ADDRESS": address, "PYTHONPATH": str(REPOSITORY)}
        self._command = [sys.executable, "-m", f"ray_jobs.{job}", "--config", str(folder / "run.yaml"), *JOBS[job]]
        self.log = folder / f"{job}.log"
        self.start()

    def start(self) -> None:
        self.starts += 1
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self._command, env=self._environment, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> str:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return "the driver"

    def last_line(self) -> str:
        """Return the last line that the job itself printed, without Ray's messages about killed processes."""
        lines = self.log.read_text(errors="replace").splitlines()
        own = [
            line.strip()
            for line in lines
            if line.startswith((f"{self.job}:", "  epoch", "search:", "final:", "error:"))
        ]
        return own[-1][:60] if own else ""


def disturb(run: Run, machines: Machines, kills: int, dice: random.Random) -> list[Kill]:
    """Run the job to its end, with a kill every few seconds until there were `kills`."""
    done: list[Kill] = []
    began, next_kill = time.monotonic(), time.monotonic() + dice.uniform(4, 15)
    while True:
        if run.process.poll() == 0:
            return done
        if run.process.poll() is not None:
            if run.process.returncode == 2:
                raise RuntimeError(f"{run.job} cannot run: {run.last_line()}")
            if done:
                killed = done[-1].victim == "the driver"
                done[-1].result = "the same command resumed" if killed else f"failed ({run.last_line()}); started again"
            run.start()
        now = time.monotonic()
        if now - began > LONGEST_RUN:
            raise TimeoutError(f"{run.job} hangs; its log: {run.log}")
        if len(done) < kills and now >= next_kill:
            last_line = run.last_line()
            kill: Callable[[], str] = dice.choice(
                [run.kill, lambda: machines.kill_machine(dice), lambda: machines.kill_process(dice)]
            )
            if victim := kill():
                done.append(Kill(run.job, now - began, victim, last_line))
                next_kill = time.monotonic() + dice.uniform(4, 15)
        time.sleep(0.1)


def difference(job: str, expected: Path, actual: Path) -> str:
    """Return what differs between the results of two runs; "" where they are equal."""
    if job == "prepare":
        return _prepare_difference(expected / "features", actual / "features")
    if job == "train":
        return _model_difference(expected / "models/crnn", actual / "models/crnn")
    boards = [read_board(Location.of(folder / "leaderboard")) for folder in (expected, actual)]
    first, second = ({entry.name: entry.mean_probabilities for entry in board.entries} for board in boards)
    if first.keys() != second.keys():
        return f"models {sorted(first)} and {sorted(second)}"
    worst = max(float(np.abs(first[name] - second[name]).max()) for name in first)
    return f"probabilities differ by {worst:.3g}" if worst > 1e-5 else ""


def _prepare_difference(expected: Path, actual: Path) -> str:
    for name, key in (
        ("clips", ["track_id", "clip"]),
        ("tracks.parquet", ["track_id"]),
        ("rejects.parquet", ["track_id"]),
    ):
        tables = [_sorted(folder / name, key) for folder in (expected, actual)]
        if not tables[0].equals(tables[1]):
            return f"{name}: {len(tables[0])} rows and {len(tables[1])}, or other content"
    return ""


def _sorted(path: Path, key: list[str]) -> pa.Table:
    table = pq.read_table(path).sort_by([(name, "ascending") for name in key])
    return table.drop_columns([name for name in ("part",) if name in table.column_names])


def _model_difference(expected: Path, actual: Path) -> str:
    losses = [
        np.array([epoch["train_loss"] for epoch in json.loads((folder / "model.json").read_text())["facts"]["history"]])
        for folder in (expected, actual)
    ]
    if losses[0].shape != losses[1].shape:
        return f"{len(losses[0])} epochs and {len(losses[1])}"
    worst = float(np.abs(losses[0] - losses[1]).max())
    return f"losses differ by {worst:.3g}" if worst > 1e-5 else ""


def make_folder(folder: Path, music: Path) -> Path:
    """Make a folder for the jobs with their settings."""
    folder.mkdir(parents=True)
    corpus = SETTINGS["corpus"] | {"root": str(music)}
    (folder / "run.yaml").write_text(yaml.safe_dump(SETTINGS | {"output": str(folder), "corpus": corpus}))
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--kills-per-run", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    options = parser.parse_args()
    return 0 if chaos(options) else 1


def chaos(options: argparse.Namespace) -> bool:
    """Run rounds of the jobs until there were enough kills; return whether all results equal the undisturbed ones."""
    machines, dice, equal = Machines(), random.Random(options.seed), True
    table: list[Kill] = []
    address, folder = machines.cluster.address, options.folder
    try:
        undisturbed = make_folder(folder / "undisturbed", folder / "music")
        for job in options.jobs:
            disturb(Run(undisturbed, job, address), machines, 0, dice)
            print(f"{job}: undisturbed run done", flush=True)
        for number in itertools.count():  # rounds, since a job may end before any kill
            if len(table) >= options.kills:
                break
            disturbed = make_folder(folder / f"disturbed-{number}", folder / "music")
            for job in options.jobs:
                run = Run(disturbed, job, address)
                table += disturb(run, machines, min(options.kills_per_run, options.kills - len(table)), dice)
                differs = difference(job, undisturbed, disturbed)
                equal &= not differs
                print(f"{job}: {run.starts} starts; {differs or 'equal to the undisturbed run'}", flush=True)
    finally:
        machines.cluster.shutdown()
        report(table)
    return equal


def report(table: list[Kill]) -> None:
    print("\n| kill | job | after | what was killed | last line of the job | result |\n|---|---|---|---|---|---|")
    for number, kill in enumerate(table, start=1):
        print(f"| {number} | {kill.job} | {kill.at:.0f} s | {kill.victim} | {kill.last_line} | {kill.result} |")


if __name__ == "__main__":
    sys.exit(main())
