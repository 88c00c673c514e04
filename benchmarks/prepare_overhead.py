"""Measure the share of the prepare job that is the plain loop (decode to log-mel), and what the rest is.

    python benchmarks/prepare_overhead.py [--clips 5000] [--seconds 30] [--mp3]

The same files go through plain loops, one for each core, and through the job. They are hard links to a
few files, so that reads come from a warm cache: 22 kHz mono wavs, which are the fastest to decode and so show the
overhead most clearly, or 44.1 kHz stereo mp3s. There are two ratios, with a goal of 0.85:

- wall: the loop's time divided by the cores, as a share of the job's time; valid only on an idle machine;
- CPU: the loop's CPU time as a share of that of all processes of the job; hardly affected by other programs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]
from processes import command, cpu_seconds, descendants, is_alive

from genre.audio.isolation import environment
from genre.settings import Config

DISTINCT = 40
KERNEL = """
import json, sys, time
from genre.settings import Config
from genre.features.preparing.tracks import TrackPreparer
from genre.features.recipe import Recipe
preparer = TrackPreparer(Recipe.of(Config.model_validate_json(sys.argv[1])))
files = json.loads(sys.stdin.read())
for file in files[:10]:
    preparer(file)
wall, cpu = time.perf_counter(), time.process_time()
for file in files:
    preparer(file)
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]))
"""


class CpuMeter(threading.Thread):
    """Samples the CPU time of the processes below this one, by kind."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._seconds: dict[int, float] = {}
        self._kinds: dict[int, str] = {}
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(1.0):
            self.sample()

    def sample(self) -> None:
        for pid in descendants(os.getpid()):
            if is_alive(pid):
                self._seconds[pid] = cpu_seconds(pid)
                self._kinds[pid] = kind_of(pid)

    def seconds(self) -> dict[str, float]:
        """Return the seconds so far by kind of process."""
        self.sample()
        sums: dict[str, float] = defaultdict(float)
        for pid, seconds in self._seconds.items():
            sums[self._kinds[pid]] += seconds
        return dict(sums) | {"driver": time.process_time()}

    def stop(self) -> None:
        self._over.set()


def kind_of(pid: int) -> str:
    """Return what a process below this one is for."""
    text = command(pid)
    if "genre.audio.isolation" in text:
        return "decoders"
    if text.startswith("ray::_"):
        return "Ray's actors"  # of Ray Data: statistics, and requests to an autoscaler
    return "workers" if text.startswith("ray::") and "Agent" not in text else "Ray's daemons"


def make_music(root: Path, clips: int, seconds: float, mp3: bool = False) -> list[str]:
    """Write `DISTINCT` files of chords in noise, and hard links to them until there are `clips`."""
    rng = np.random.default_rng(0)
    rate, channels, suffix = (44100, 2, "mp3") if mp3 else (22050, 1, "wav")
    time_axis = np.arange(int(seconds * rate)) / rate
    paths: list[str] = []
    for i in range(clips):
        path = root / f"genre{i % 2}" / f"{i:06d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i < DISTINCT:
            chord = sum(np.sin(2 * np.pi * hz * time_axis) for hz in rng.uniform(60, 4000, 6))
            wave = 0.1 * chord * (1 + np.sin(4 * np.pi * time_axis))
            noise = rng.normal(0, 0.02, (len(time_axis), channels))
            soundfile.write(path, (wave[:, None] + noise) / 2, rate)
        else:
            os.link(paths[i % DISTINCT], path)
        paths.append(str(path))
    return paths


def plain_loops(files: list[str], config: Config, cores: int) -> tuple[float, float]:
    """Return the wall and CPU seconds of one core for all files, in plain loops with a process per core."""
    loops = []
    for core in range(cores):
        command = [sys.executable, "-c", KERNEL, config.model_dump_json()]
        loop = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment())
        assert loop.stdin
        loop.stdin.write(json.dumps(files[core::cores]))
        loop.stdin.close()
        loops.append(loop)
    spent = [json.loads(loop.stdout.read()) for loop in loops if loop.stdout]
    return sum(wall for wall, _ in spent), sum(cpu for _, cpu in spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--mp3", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="prepare-overhead-") as home:
        files = make_music(Path(home) / "music", options.clips, options.seconds, options.mp3)
        cores = len(os.sched_getaffinity(0))
        config = Config.model_validate(
            {
                "output": f"{home}/out",
                "corpus": {"kind": "folder", "root": f"{home}/music"},
                "audio": {"clip_seconds": options.seconds, "min_seconds": 0.5},
                "train": {"window_seconds": min(3.0, options.seconds)},
                "cluster": {"cpus": cores},
            }
        )
        measure(files, config, cores)


def measure(files: list[str], config: Config, cores: int) -> None:
    from ray_jobs.engine import cluster
    from ray_jobs.prepare import prepare

    sample = files[: max(200, len(files) // 10)]
    scale = len(files) / len(sample)
    before = plain_loops(sample, config, cores)
    meter = CpuMeter()
    meter.start()
    started = time.perf_counter()
    with cluster.connected(config.cluster, config.output):
        ready, at_ready = time.perf_counter(), meter.seconds()
        prepare(config)
        done, at_end = time.perf_counter(), meter.seconds()
    ended = time.perf_counter()
    meter.stop()
    after = plain_loops(sample, config, cores)
    wall, cpu = ((x + y) / 2 * scale for x, y in zip(before, after, strict=True))
    spent = {kind: seconds - at_ready.get(kind, 0.0) for kind, seconds in at_end.items()}
    each = 1000 / len(files)
    print(f"{len(files)} clips, {cores} cores; ms of a core per clip")
    print(f"  plain loops                   wall {wall * each:7.2f}   CPU {cpu * each:7.2f}")
    for kind, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"  job: {kind:<12}                          CPU {seconds * each:7.2f}")
    total = sum(spent.values())
    print(f"  job, all                      wall {(done - ready) * cores * each:7.2f}   CPU {total * each:7.2f}")
    print(f"job {done - ready:.1f} s, start of Ray {ready - started:.1f} s, shutdown {ended - done:.1f} s")
    print(
        f"plain loops / job: wall {wall / cores / (done - ready):.2f} "
        f"({wall / cores / (ended - started):.2f} with start and shutdown of Ray), CPU {cpu / total:.2f}"
    )


if __name__ == "__main__":
    main()
