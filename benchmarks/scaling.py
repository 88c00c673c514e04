"""How the engine under `prepare` scales, with sleep in the place of work: what is left is Ray and this code.

    python benchmarks/scaling.py work [--counts 1 2 4] [--clips 600] [--rounds 3]
    python benchmarks/scaling.py workers [--counts 1 2 4 8 16 32 64] [--clip-ms 50]
    python benchmarks/scaling.py rows [--rows 1000000] [--block 64]

`work` is the whole of `prepare` on mp3s, with that many workers of this computer: no more of it than there are cores
can be gained. `workers` times the same share of work per worker on more and more workers of this computer; a sleeping
worker needs no CPU, so that 64 fit on two cores. `rows` sends a long manifest through without any work. All print
Markdown.
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
from genre.settings import Config
from ray_jobs.engine import cluster
from ray_jobs.engine.blocks import Workers
from ray_jobs.prepare import prepare

BLOCK = 64  # prepare.tracks_per_block
BLOCKS_PER_WORKER = 4


def sleep(tracks: pa.Table, seconds: float) -> pa.Table:
    """The work: nothing, for so long for each track. Answers one small row a block."""
    time.sleep(seconds * len(tracks))
    return pa.table({"tracks": [len(tracks)], "rejected": [0]})


def manifest(rows: int) -> pa.Table:
    """As `features.scan` makes it, columns that the engine carries."""
    numbers = np.arange(rows)
    paths = pa.array(
        [f"/music/genre-{number % 10}/artist-{number % 997}/track-{number:07d}.flac" for number in numbers]
    )
    return pa.table({"track_id": paths, "path": paths, "size": numbers, "modified": numbers})


def settings(cpus: int) -> Config:
    return load(overrides=[f"cluster.cpus={cpus}", "cluster.object_store_mb=400", "output=/tmp/genre-scaling"])


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
    print("| workers | seconds | clips a second | to one worker |\n|---:|---:|---:|---:|")
    for count, taken in seconds.items():
        best = min(taken)
        print(f"| {count} | {best:.1f} | {clips / best:.0f} | {min(seconds[counts[0]]) / best:.2f} |")


def _prepare(home: Path, workers: int) -> float:
    """Seconds that preparing the music takes when a few clips have started the workers."""

    def settings_of(name: str) -> Config:
        own = [f"cluster.cpus={workers}", f"output={home}/out-{name}", "audio.clip_seconds=30"]
        return load(overrides=[*own, "corpus.kind=folder", f"corpus.root={home / name}"])

    with cluster.connected(settings_of("few")):
        prepare(settings_of("few"))
        started = time.perf_counter()
        prepare(settings_of("music"))
        taken = time.perf_counter() - started
    for name in ("few", "music"):
        shutil.rmtree(home / f"out-{name}")
    return taken


def measure_workers(counts: list[int], clip_seconds: float) -> None:
    each = f"{BLOCKS_PER_WORKER * BLOCK} clips of {clip_seconds * 1000:g} ms a worker"
    print(f"{each}, blocks of at most {BLOCK}, warm workers.\n")
    print("| workers | clips | ideal | measured | efficiency | driver memory |")
    print("|---:|---:|---:|---:|---:|---:|")
    for count in counts:
        with Workers(settings(count)) as workers:
            list(workers.map(functools.partial(sleep, seconds=2 / BLOCK), manifest(max(32, count) * BLOCK), BLOCK))
            clips = count * BLOCKS_PER_WORKER * BLOCK
            # blocks are never fewer than 16: a small job is cut finer, and has as much work
            seconds = _timed(workers, manifest(clips), clip_seconds)
        ideal = BLOCKS_PER_WORKER * BLOCK * clip_seconds
        print(
            f"| {count} | {clips} | {ideal:.1f} s | {seconds:.1f} s | {ideal / seconds:.0%} | {_memory()} |", flush=True
        )


def measure_rows(rows: int, block: int) -> None:
    with Workers(settings(2)) as workers:
        list(workers.map(functools.partial(sleep, seconds=0.0), manifest(32), BLOCK))
        table = manifest(rows)
        before = _memory()
        seconds = _timed(workers, table, 0.0, block)
    blocks = -(-rows // block)
    print("| rows | manifest | blocks | seconds | per block | driver memory before | peak |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    print(
        f"| {rows} | {table.nbytes / 2**20:.0f} MiB | {blocks} | {seconds:.0f} | {1000 * seconds / blocks:.1f} ms "
        f"| {before} | {_memory()} |"
    )


def _timed(workers: Workers, table: pa.Table, clip_seconds: float, block: int = BLOCK) -> float:
    started = time.perf_counter()
    answers = workers.map(functools.partial(sleep, seconds=clip_seconds), table, block)
    assert sum(answer["tracks"][0].as_py() for answer in answers) == len(table)
    return time.perf_counter() - started


def _memory() -> str:
    """The largest that this process, the driver, ever was."""
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("work", "workers", "rows"))
    parser.add_argument("--counts", type=int, nargs="+")
    parser.add_argument("--clips", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clip-ms", type=float, default=50.0)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--block", type=int, default=BLOCK)
    options = parser.parse_args()
    if options.what == "work":
        measure_work(options.counts or [1, 2, 4], options.clips, options.rounds)
    elif options.what == "workers":
        measure_workers(options.counts or [1, 2, 4, 8, 16, 32, 64], options.clip_ms / 1000)
    else:
        measure_rows(options.rows, options.block)


if __name__ == "__main__":
    main()
