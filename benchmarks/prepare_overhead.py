"""How much of the prepare job is the kernel (decode to log-mel), and where the rest goes.

    python benchmarks/prepare_overhead.py [--clips 5000] [--seconds 30] [--mp3]

The same files go through the kernel in plain loops, one for each core, and through the job. They are hard links to a
few files, so that reading costs what it does from a warm cache: 22 kHz mono wavs, which cost least to decode and so
show the rest most, or 44.1 kHz stereo mp3s. Two ratios, of which 0.85 is the goal:

- wall: the loop's time spread over the cores, as a share of the job's time; honest only on a quiet machine;
- CPU: the loop's CPU time, as a share of that of all processes of the job; others on the machine hardly change it.
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
from prepare_kills import command, descendants, stat

from genre.audio.isolation import environment
from genre.settings import Config

DISTINCT = 40
TICK = os.sysconf("SC_CLK_TCK")
KERNEL = """
import json, sys, time
from genre.settings import Config
from genre.features.preparation import TrackKernel
from genre.features.recipe import Recipe
kernel = TrackKernel(Recipe.of(Config.model_validate_json(sys.argv[1])))
files = json.loads(sys.stdin.read())
for file in files[:10]:
    kernel(file)
wall, cpu = time.perf_counter(), time.process_time()
for file in files:
    kernel(file)
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]))
"""


class Accountant(threading.Thread):
    """Watches what CPU time the processes below this one use, by what they are."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._seconds: dict[int, float] = {}
        self._kinds: dict[int, str] = {}
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(1.0):
            self.look()

    def look(self) -> None:
        for pid in descendants(os.getpid()):
            fields = stat(pid)
            if fields:
                self._seconds[pid] = (int(fields[11]) + int(fields[12])) / TICK
                self._kinds[pid] = kind_of(pid)

    def now(self) -> dict[str, float]:
        self.look()
        sums: dict[str, float] = defaultdict(float)
        for pid, seconds in self._seconds.items():
            sums[self._kinds[pid]] += seconds
        return dict(sums) | {"driver": time.process_time()}

    def stop(self) -> None:
        self._over.set()


def kind_of(pid: int) -> str:
    text = command(pid)
    if "genre.audio.isolation" in text:
        return "decoders"
    if text.startswith("ray::_"):
        return "Ray's actors"  # which Ray Data starts to keep its statistics, and to speak with an autoscaler
    return "workers" if text.startswith("ray::") and "Agent" not in text else "Ray's daemons"


def make_music(root: Path, clips: int, seconds: float, mp3: bool = False) -> list[str]:
    """`clips` names of `DISTINCT` files: chords in noise."""
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


def kernel_alone(files: list[str], config: Config, cores: int) -> tuple[float, float]:
    """Seconds of a core for all files, by the clock and by CPU time: plain loops, a process for each core at a time."""
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
    before = kernel_alone(sample, config, cores)
    accountant = Accountant()
    accountant.start()
    started = time.perf_counter()
    with cluster.connected(config):
        ready, at_ready = time.perf_counter(), accountant.now()
        prepare(config)
        done, at_end = time.perf_counter(), accountant.now()
    ended = time.perf_counter()
    accountant.stop()
    after = kernel_alone(sample, config, cores)
    wall, cpu = ((x + y) / 2 * scale for x, y in zip(before, after, strict=True))
    spent = {kind: seconds - at_ready.get(kind, 0.0) for kind, seconds in at_end.items()}
    each = 1000 / len(files)
    print(f"{len(files)} clips, {cores} cores; ms of a core per clip")
    print(f"  kernel alone, plain loop      wall {wall * each:7.2f}   CPU {cpu * each:7.2f}")
    for kind, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"  job: {kind:<12}                          CPU {seconds * each:7.2f}")
    total = sum(spent.values())
    print(f"  job, all                      wall {(done - ready) * cores * each:7.2f}   CPU {total * each:7.2f}")
    print(f"job {done - ready:.1f} s, start of Ray {ready - started:.1f} s, its end {ended - done:.1f} s")
    print(
        f"kernel / job: wall {wall / cores / (done - ready):.2f} "
        f"({wall / cores / (ended - started):.2f} with start and end of Ray), CPU {cpu / total:.2f}"
    )


if __name__ == "__main__":
    main()
