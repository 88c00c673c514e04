"""Measure what `review` needs for a large collection: its start, its memory, and the time to answer a page.

    python benchmarks/review.py write FOLDER [--rows 1000000]
    python benchmarks/review.py measure FOLDER [--rounds 5]

`write` makes up the tables of a tagged collection, those of `tag_lists.py`. `measure` opens them as the job does,
with a list of a thousand suspicious labels, serves the page in the same process and asks for it by HTTP. The files are
in the page cache. Of several rounds the best counts.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import socket
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import pyarrow as pa

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from tag_lists import GENRES, Models, path_of, write_earlier

from genre import memory
from genre.model.saved_model import SavedEnsemble
from genre.reviewing.collection import Collection, Suspicion
from genre.reviewing.corrections import NAME, Corrections
from genre.reviewing.review import Review
from genre.storage import Location
from genre.tagging.tag_table import TagTable
from ray_jobs.pages import review_service

T = TypeVar("T")
QUERIES = {
    "first page": "state=todo",
    "in the middle": "state=todo&start={middle}",
    "suspicious": "state=suspicious",
    "a genre, below 0.5": "state=todo&genre=jazz&below=0.5",
    "state unknown": "state=unknown",
    "a text that many have": "state=all&text=vol.%203",
    "a text that none has": "state=all&text=zzzz",
}


def write(folder: Location, rows: int) -> None:
    write_earlier(folder, rows, clips=1)
    table = TagTable(folder, cast(SavedEnsemble, Models()))
    table.finish(pa.table({"path": pa.array([], pa.string())}), None, top_k=3)


def measure(folder: Location, rounds: int) -> None:
    memory.return_freed()  # as the job does
    suspicions = [Suspicion(path_of(number).removeprefix("/music/"), "jazz") for number in range(0, 1_000_000, 1000)]
    review = timed(
        "open the tables", 1, lambda: Review(Collection.open(folder, GENRES, suspicions), Corrections(folder / NAME))
    )
    with review_service.serving(review, free_port(), "benchmark") as address:
        for name, query in QUERIES.items():
            url = f"{address}/rows?{query.format(middle=len(review.collection) // 2)}"
            timed(name, rounds, functools.partial(ask, url))
    print(f"{len(review.collection)} tracks, load {os.getloadavg()[0]:.0f}")


def timed(name: str, rounds: int, work: Callable[[], T]) -> T:
    """Print the seconds of the best round by the clock, those of CPU, and the memory of the process after it."""
    laps = []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        laps.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = min(laps)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    resident, peak = (int(status[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
    print(f"  {name:<24}{wall:>8.3f} s, {cpu:>7.3f} s of CPU, {resident:.0f} MiB, peak {peak:.0f}", flush=True)
    return result


def ask(address: str) -> object:
    with urllib.request.urlopen(address) as response:
        return json.load(response)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["write", "measure"])
    parser.add_argument("folder")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    folder = Location.of(options.folder) / "tags"
    if options.part == "write":
        write(folder, options.rows)
    else:
        measure(folder, options.rounds)


if __name__ == "__main__":
    main()
