"""Kill workers, machines, drivers and the head at random while jobs run on storage with faults; compare the results.

    python benchmarks/chaos.py FOLDER --rounds 60 [--seed 0] [--jobs prepare train tune evaluate tag embed pretrain]
    python benchmarks/chaos.py FOLDER --soak 30

The cluster is Ray's own autoscaler, which starts from no machine; its machines are processes of this computer. Music
and output are in a local S3 server, behind a proxy that answers 503 to a tenth of the requests for some seconds, then
stalls, cuts answers in the middle, or loses them. Each round runs one job in an output of its own. The same command is
run again until it succeeds, and the results are compared with those of an undisturbed run. FOLDER/rounds.jsonl has a
line for each round, and standard output the table. `--soak` instead runs `tag` for so many minutes on a folder to which
files are added: see soak.py. Do not edit the code while this runs: every start loads it again.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from pyarrow import fs

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

import ray_jobs  # noqa: F401 - sets Ray's environment, before Ray is imported

# isort: split
import soak
from disturbances import Machines, Run, Weather, disturb
from faulty_storage import proxy
from from_zero import serve_bucket
from music import write_music
from results import difference

from genre.storage import Location

BUCKET = "s3://bucket"
UNDISTURBED = f"{BUCKET}/undisturbed"  # and the name of the job, since `tag` and `embed` write the same table
MODEL = f"{UNDISTURBED}-train/models/crnn"
SETTINGS: dict[str, Any] = {
    "corpus": {"kind": "folder", "root": f"{BUCKET}/music"},
    "audio": {"sample_rate": 8000, "clip_seconds": 1.0, "min_seconds": 0.2},
    "spectrogram": {"n_mels": 32, "n_fft": 512, "hop_length": 128},
    "prepare": {"tracks_per_block": 2, "max_reject_fraction": 1.0},
    "train": {"epochs": 12, "window_seconds": 0.5, "eval_windows": 2, "batch_size": 16, "dtype": "fp32"},
    "architectures": {
        "cnn": {"width": 4, "depth": 3},
        "crnn": {"width": 4, "depth": 3, "hidden": 8},
        "resnet": {"width": 4},
    },
    "pretrain": {"epochs": 12, "batch_size": 16},
    "tune": {"trials": 1, "seeds": 1, "grace_epochs": 12, "architectures": ["cnn", "resnet"], "robustness": False},
    "tag": {"batch_files": 2},
    "device": "cpu",
}
JOBS: dict[str, tuple[list[str], list[str]]] = {  # settings of each job, and the folders of the output that it needs
    "prepare": ([], []),
    "train": (["architecture=crnn"], ["features"]),
    "tune": ([], ["features"]),
    "evaluate": ([], ["features", "models"]),
    "tag": ([f"inputs={BUCKET}/music", f"model={MODEL}"], []),
    "embed": ([f"inputs={BUCKET}/music", f"model={MODEL}", "embed.clips=true"], []),
    "pretrain": (["architecture=crnn"], ["features"]),
}
MAKERS = {"features": "prepare", "models": "train"}


class Chaos:
    """The cluster, the storage and the folder of the logs."""

    def __init__(self, folder: Path, dice: random.Random, weather: Weather, endpoint: str) -> None:
        self.folder, self.dice, self.weather = folder, dice, weather
        self.cache = folder / "cache"
        self.machines = Machines({"AWS_ENDPOINT_URL": endpoint, "GENRE_CACHE": str(self.cache)})

    def start(self, job: str, output: str, name: str) -> Run:
        """Start a job of JOBS in a new output, with what it needs from undisturbed runs."""
        settings, needs = JOBS[job]
        for folder in needs:
            fs.copy_files(f"{UNDISTURBED}-{MAKERS[folder]}/{folder}", f"{output}/{folder}")
        return self.run(job, output, name, *settings)

    def run(self, job: str, output: str, name: str, *settings: str) -> Run:
        """Start a job that writes to `output`; its log is `name`.log."""
        words = [job, "--config", str(self.folder / "run.yaml"), f"output={output}", *settings]
        return Run(words, self.machines, self.folder / f"{name}.log")

    def undisturbed(self, jobs: Iterable[str]) -> None:
        """Run jobs, and those that make what they need, in turn, without kills and faults."""
        for job in JOBS:
            if job not in {*MAKERS.values(), *jobs}:
                continue
            disturb(self.start(job, f"{UNDISTURBED}-{job}", "undisturbed"), 0, self.dice)
            print(f"{job}: undisturbed run done", flush=True)

    def round(self, number: int, job: str, most: int) -> dict[str, Any]:
        """Run a job with kills and faults, and return what happened, with the difference from the undisturbed run."""
        output = f"{BUCKET}/round-{number}"
        shutil.rmtree(self.cache, ignore_errors=True)
        if log := self.machines.wait_until_empty():
            (self.folder / f"{number:03d}-machines-before.log").write_text(log)
        before, began = self.weather.faults.copy(), time.monotonic()
        run = self.start(job, output, f"{number:03d}-{job}")
        self.weather.is_calm = False
        kills = []
        try:
            kills = disturb(run, most, self.dice)
            self.weather.is_calm = True
            differs = difference(job, Location.of(f"{UNDISTURBED}-{job}"), Location.of(output))
        except TimeoutError as error:
            differs = str(error)
            (self.folder / f"{number:03d}-autoscaler.log").write_text(self.machines.cluster.log())
        self.weather.is_calm = True
        if not differs:
            Location.of(output).delete()
        return {
            "round": number,
            "job": job,
            "seconds": round(time.monotonic() - began),
            "starts": run.starts,
            "kills": [asdict(kill) for kill in kills],
            "failures": run.failures,
            "faults": dict(self.weather.faults - before),
            "difference": differs,
            "machines_before": bool(log),  # whether some stayed up for minutes after the round before
        }


def rounds(chaos: Chaos, jobs: list[str], count: int, most: int) -> bool:
    """Run `count` rounds of the jobs in turn. Return whether all results are equal, and no machine stayed up."""
    done: list[dict[str, Any]] = []
    chaos.undisturbed(jobs)
    try:
        with open(chaos.folder / "rounds.jsonl", "a", encoding="utf-8") as log:
            for number in range(count):
                done.append(chaos.round(number, jobs[number % len(jobs)], most))
                print(line := json.dumps(done[-1]), flush=True)
                log.write(line + "\n")
                log.flush()
        stayed_up = bool(chaos.machines.wait_until_empty())
    finally:
        print(table(done))
    return not stayed_up and not any(record["difference"] or record["machines_before"] for record in done)


def table(done: list[dict[str, Any]]) -> str:
    """Return what was done to each job as Markdown."""
    kinds = ["worker", "machine", "driver", "head"]
    lines = [
        "| job | rounds | kills: worker | machine | driver | head | storage faults | starts | results equal |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for job in JOBS:
        own = [record for record in done if record["job"] == job]
        kills = Counter(kill["kind"] for record in own for kill in record["kills"])
        cells = [job, len(own), *(kills[kind] for kind in kinds)]
        cells += [sum(sum(record["faults"].values()) for record in own), sum(record["starts"] for record in own)]
        cells += [sum(not record["difference"] for record in own)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--kills", type=int, default=3, help="the most in a round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(SETTINGS))
    dice = random.Random(options.seed)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # one line for each request
    serve_bucket()
    songs = write_music(folder / "music", per_genre=8)
    songs[0].with_name("bad.wav").write_bytes(b"no music")
    fs.copy_files(str(folder / "music"), f"{BUCKET}/music")
    weather = Weather(random.Random(options.seed + 1))
    with proxy(os.environ["AWS_ENDPOINT_URL"], weather) as server:
        chaos = Chaos(folder, dice, weather, server.address)
        try:
            if options.soak:
                return 0 if soak.soak(chaos, options.soak, MODEL) else 1
            return 0 if rounds(chaos, options.jobs, options.rounds, options.kills) else 1
        finally:
            chaos.machines.close()


if __name__ == "__main__":
    sys.exit(main())
