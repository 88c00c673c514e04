"""Check that the time and memory of prepare per clip do not depend on the number of tracks.

    python benchmarks/prepare_scaling.py [--sizes 200 2000 20000] [--seconds 30] [--mp3]
    python benchmarks/prepare_scaling.py --rows 1000000

The first form runs the job on that many hard links to a few wavs or mp3s, in one Ray that a small run has warmed up;
prepare_overhead.py measures the start of Ray. "further clip" is the time per clip above that of the previous size,
without the start and end of a job. Peak memory is that of the process during that size. The second form makes up a
list of tracks and their outcomes, in files of 64, and measures the steps of the driver: no audio, no Ray.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]
from prepare_overhead import CpuMeter, kind_of, make_music
from processes import descendants, is_alive, peak_mb

from genre import corpora, memory
from genre.corpora import Track
from genre.features import Features
from genre.features.preparing.finishing import finish
from genre.features.preparing.ledger import Ledger, select_for_comparison, select_pending
from genre.features.preparing.scan import scan
from genre.features.preparing.sketches import LANDMARKS
from genre.features.recipe import Recipe
from genre.features.schema import OUTCOME_FILE_SCHEMA
from genre.settings import Config
from genre.storage import Location

KINDS = ("driver", "workers", "decoders")


class Peaks(threading.Thread):
    """The highest resident memory of a process of each kind since the last reset, in MiB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen = dict.fromkeys(KINDS, 0.0)

    def run(self) -> None:
        while True:
            self.sample()
            time.sleep(0.5)

    def sample(self) -> None:
        for pid, kind in self._processes():
            if kind in self.seen:
                self.seen[kind] = max(self.seen[kind], peak_mb(pid))

    def reset(self) -> None:
        for pid, _ in self._processes():
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # resets the peak
        self.seen = dict.fromkeys(KINDS, 0.0)

    def _processes(self) -> Iterator[tuple[int, str]]:
        yield os.getpid(), "driver"
        yield from ((pid, kind_of(pid)) for pid in descendants(os.getpid()) if is_alive(pid))


def config_of(home: Path, size: int, seconds: float) -> Config:
    return Config.model_validate(
        {
            "output": str(home / f"out{size}"),
            "corpus": {"kind": "folder", "root": str(home / f"music{size}")},
            "audio": {"clip_seconds": seconds, "min_seconds": 0.2},
            "train": {"window_seconds": min(3.0, seconds)},
            "cluster": {"cpus": len(os.sched_getaffinity(0))},
        }
    )


def measure_jobs(sizes: list[int], seconds: float, mp3: bool) -> None:
    from ray_jobs.engine import cluster
    from ray_jobs.prepare import prepare

    home = Path(tempfile.mkdtemp(prefix="prepare-scaling-"))
    warm = 64
    for size in (warm, *sizes):
        make_music(home / f"music{size}", size, seconds, mp3)
    meter, peaks = CpuMeter(), Peaks()
    last = (0, 0.0)  # clips and seconds of the previous size
    lines = []
    try:
        config = config_of(home, warm, seconds)
        with cluster.connected(config.cluster, config.output):
            meter.start()
            prepare(config_of(home, warm, seconds))
            peaks.start()
            for size in sizes:
                peaks.reset()
                before, started = sum(meter.seconds().values()), time.perf_counter()
                prepare(config_of(home, size, seconds))
                wall, cpu = time.perf_counter() - started, sum(meter.seconds().values()) - before
                peaks.sample()
                memory = "".join(f"{peaks.seen[kind]:>10.0f}" for kind in KINDS)
                further = 1000 * (wall - last[1]) / (size - last[0])
                last = (size, wall)
                lines.append(f"{size:>8}{1000 * wall / size:>14.2f}{further:>14.2f}{1000 * cpu / size:>14.2f}{memory}")
                shutil.rmtree(home / f"out{size}")
    finally:
        shutil.rmtree(home)
    titles = f"{'clips':>8}{'wall ms/clip':>14}{'further clip':>14}{'CPU ms/clip':>14}"
    print(titles + "".join(f"{kind:>10}" for kind in KINDS) + "  peak MiB")
    print("\n".join(lines))


def measure_lists(rows: int) -> None:
    """Print the time and peak memory of each step of the driver on a list of `rows` tracks."""
    home = Path(tempfile.mkdtemp(prefix="prepare-scaling-"))
    config = config_of(home, rows, 1.0)
    folder, recipe = Location.of(config.output) / "features", Recipe.of(config)
    write_outcomes(folder, recipe, rows)
    corpora.scan = lambda *_: fake_tracks(rows)
    corpora.classes = lambda _: None  # type: ignore[assignment]
    print(f"{rows} tracks, outcomes of a job killed before its end{'seconds':>12}{'peak MiB':>10}")
    try:
        scanned = timed("scan", lambda: scan(config.corpus))
        # lists that the job does not keep either while it finishes
        kept = [timed("outcomes", lambda: Ledger(folder, recipe).outcomes())]
        timed("suspects", lambda: select_for_comparison(scanned, kept[0]))
        timed("pending", lambda: select_pending(scanned, kept[0]))
        kept.clear()
        timed("finish", lambda: finish(Ledger(folder, recipe), scanned, config.corpus))
        kept.append(timed("outcomes, finished", lambda: Ledger(folder, recipe).outcomes()))
        timed("pending, finished", lambda: select_pending(scanned, kept[0]))
        kept.clear()
        timed("finish, nothing new", lambda: finish(Ledger(folder, recipe), scanned, config.corpus))
        timed("tracks of the finished folder", lambda: Features.open(folder).tracks())
    finally:
        shutil.rmtree(home)


def fake_tracks(rows: int) -> Iterator[Track]:
    for i in range(rows):
        name = f"genre{i % 16:02d}/artist{i // 20:06d}/track{i:08d}.flac"
        yield Track(name, f"/music/{name}", f"genre{i % 16:02d}", 30_000_000 + i, 1.7e9 + i, f"artist{i // 20:06d}")


def write_outcomes(folder: Location, recipe: Recipe, rows: int) -> None:
    """Write outcomes of `rows` tracks; of a hundred, the last is a near copy of the one before."""
    tracks = list(fake_tracks(64))
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 32, (rows, LANDMARKS), dtype=np.uint32)
    frames = rng.integers(0, 5000, (rows, LANDMARKS), dtype=np.uint16)
    for same in (hashes, frames):
        same[99::100, : LANDMARKS // 3] = same[98:-1:100, : LANDMARKS // 3]
    for block, begin in enumerate(range(0, rows, 64)):
        name = f"00001-{block:08x}.parquet"
        listed = [
            {
                "track_id": f"genre{i % 16:02d}/artist{i // 20:06d}/track{i:08d}.flac",
                "path": "", "size": 30_000_000 + i, "modified": 1.7e9 + i,
                "content": f"{i:064x}", "sound": f"{i - (i % 1000 == 999):064x}", "seconds": 200.0,
                "sketch": hashes[i].tobytes() + frames[i].tobytes(),
                "sample_rate": 44100, "channels": 2, "truncated": False, "clips": 6, "part": name, "part_bytes": 0,
            }
            for i in range(begin, min(begin + len(tracks), rows))
        ]  # fmt: skip
        (folder / "outcomes" / name).write_table(pa.Table.from_pylist(listed, OUTCOME_FILE_SCHEMA))
        (folder / "clips" / name).write_bytes(b"")
    Ledger(folder, recipe).claim()


def timed(name: str, work: Callable[[], pa.Table]) -> pa.Table:
    started = time.perf_counter()
    result = work()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  {name:<45}{time.perf_counter() - started:>12.1f}{memory:>10.0f}", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 2000, 20000])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--mp3", action="store_true")
    parser.add_argument("--rows", type=int, default=0)
    options = parser.parse_args()
    memory.return_freed()  # as the job does
    if options.rows:
        measure_lists(options.rows)
    else:
        measure_jobs(options.sizes, options.seconds, options.mp3)


if __name__ == "__main__":
    main()
