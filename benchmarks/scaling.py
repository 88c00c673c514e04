"""Measure how `prepare` scales with workers and rows, and its engine with sleep in place of work.

    python benchmarks/scaling.py work [--counts 1 2 4] [--clips 600] [--rounds 3]
    python benchmarks/scaling.py workers [--counts 1 2 4 8 16 32 64] [--clip-ms 50]
    python benchmarks/scaling.py rows [--rows 1000000] [--block 64]

`work` runs `prepare` on mp3s with different numbers of workers on this computer; the speed-up is limited by its cores.
`workers` gives each worker the same amount of sleep, with more and more workers: a sleeping worker needs no CPU, so 64
fit on two cores, and the rest of the time is that of Ray and this code. `rows` sends a long table of tracks through
without any work. All print Markdown.
"""

from __future__ import annotations

import argparse
import functools
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["PYTHONPATH"] = sys.path[0]  # the workers', too

import numpy as np
import pyarrow as pa
from prepare_overhead import make_music

from genre.config import load
from genre.settings import ClusterSettings, Config
from ray_jobs.engine import cluster
from ray_jobs.engine.blocks import Workers
from ray_jobs.prepare import prepare

BLOCK = 64  # prepare.tracks_per_block
BLOCKS_PER_WORKER = 4


def sleep(tracks: pa.Table, seconds: float) -> pa.Table:
    """Sleep for each track of a block; return one small row."""
    time.sleep(seconds * len(tracks))
    return pa.table({"tracks": [len(tracks)], "rejected": [0]})


def track_table(rows: int) -> pa.Table:
    """Return a table with the columns of `features.scan`."""
    numbers = np.arange(rows)
    paths = pa.array(
        [f"/music/genre-{number % 10}/artist-{number % 997}/track-{number:07d}.flac" for number in numbers]
    )
    return pa.table({"track_id": paths, "path": paths, "size": numbers, "modified": numbers})


def workers_on(cpus: int) -> Workers:
    return Workers(ClusterSettings(cpus=cpus, object_store_mb=400), "/tmp/genre-scaling")


def measure_work(counts: list[int], clips: int, rounds: int) -> None:
    home = Path(tempfile.mkdtemp(prefix="scaling-"))
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    try:
        for name, number in (("few", 64), ("music", clips)):
            make_music(home / name, number, 30.0, mp3=True)
        for _ in range(rounds):
            for count in counts:
                seconds[count].append(_prepare(home, count))
    finally:
        shutil.rmtree(home)
    print(f"{clips} mp3s of 30 s, best of {rounds} rounds, warm workers, {os.cpu_count()} cores.\n")
    print("| workers | seconds | clips per second | speed-up |\n|---:|---:|---:|---:|")
    for count, rounds_seconds in seconds.items():
        best = min(rounds_seconds)
        print(f"| {count} | {best:.1f} | {clips / best:.0f} | {min(seconds[counts[0]]) / best:.2f} |")


def _prepare(home: Path, workers: int) -> float:
    """Return the seconds of `prepare` on the music, after a few clips have started the workers."""

    def settings_of(name: str) -> Config:
        common = [f"cluster.cpus={workers}", f"output={home}/out-{name}", "audio.clip_seconds=30"]
        return load(overrides=[*common, "corpus.kind=folder", f"corpus.root={home / name}"])

    few = settings_of("few")
    with cluster.connected(few.cluster, few.output):
        prepare(few)
        started = time.perf_counter()
        prepare(settings_of("music"))
        seconds = time.perf_counter() - started
    for name in ("few", "music"):
        shutil.rmtree(home / f"out-{name}")
    return seconds


def measure_workers(counts: list[int], clip_seconds: float) -> None:
    load_text = f"{BLOCKS_PER_WORKER * BLOCK} clips of {clip_seconds * 1000:g} ms per worker"
    print(f"{load_text}, blocks of at most {BLOCK}, warm workers.\n")
    print("| workers | clips | ideal | measured | efficiency | driver memory |")
    print("|---:|---:|---:|---:|---:|---:|")
    for count in counts:
        with workers_on(count) as workers:
            list(workers.map(functools.partial(sleep, seconds=2 / BLOCK), track_table(max(32, count) * BLOCK), BLOCK))
            clips = count * BLOCKS_PER_WORKER * BLOCK
            # a job has at least 16 blocks, so a small one has smaller blocks but the same work
            seconds = _timed(workers, track_table(clips), clip_seconds)
        ideal = BLOCKS_PER_WORKER * BLOCK * clip_seconds
        print(
            f"| {count} | {clips} | {ideal:.1f} s | {seconds:.1f} s | {ideal / seconds:.0%} | {_memory()} |", flush=True
        )


def measure_rows(rows: int, block: int) -> None:
    with workers_on(2) as workers:
        list(workers.map(functools.partial(sleep, seconds=0.0), track_table(32), BLOCK))
        table = track_table(rows)
        before = _memory()
        seconds = _timed(workers, table, 0.0, block)
    blocks = -(-rows // block)
    print("| rows | table | blocks | seconds | per block | driver memory before | peak |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    print(
        f"| {rows} | {table.nbytes / 2**20:.0f} MiB | {blocks} | {seconds:.0f} | {1000 * seconds / blocks:.1f} ms "
        f"| {before} | {_memory()} |"
    )


def _timed(workers: Workers, table: pa.Table, clip_seconds: float, block: int = BLOCK) -> float:
    started = time.perf_counter()
    results = workers.map(functools.partial(sleep, seconds=clip_seconds), table, block)
    assert sum(result["tracks"][0].as_py() for result in results) == len(table)
    return time.perf_counter() - started


def _memory() -> str:
    """Return the peak memory of this process, the driver."""
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=("work", "workers", "rows"))
    parser.add_argument("--counts", type=int, nargs="+")
    parser.add_argument("--clips", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clip-ms", type=float, default=50.0)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--block", type=int, default=BLOCK)
    options = parser.parse_args()
    if options.benchmark == "work":
        measure_work(options.counts or [1, 2, 4], options.clips, options.rounds)
    elif options.benchmark == "workers":
        measure_workers(options.counts or [1, 2, 4, 8, 16, 32, 64], options.clip_ms / 1000)
    else:
        measure_rows(options.rows, options.block)


if __name__ == "__main__":
    main()
