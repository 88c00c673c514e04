"""Compare loose files with Parquet and tar files that hold them, and measure how fast tags are read.

    python benchmarks/shards.py --tracks 120 --files 20000

Prints tracks a second of `prepare_block` in one process and the CPU time of its decoder for a track, medians of rounds
whose order is reversed each time, since a kind profits from what the one before it left in the caches. The decoder is
started before: its start would count against the loose files, which come first. On a busy machine only the ratios mean
something, and those of CPU time more than those of wall time. Unfair to the shards: loose files are in the page cache,
and a disk or a network would be slower. Linux only.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from genre import corpora
from genre.audio.isolation import IsolatedFunction
from genre.features.preparing.scan import scan
from genre.features.preparing.tracks import TrackPreparer, prepare_block
from genre.features.recipe import Recipe
from genre.settings import Config, CorpusSettings
from genre.storage import Location

RATE = 44100
_ORIGINALS = 100  # files with tags; the others are hard links to them, which take no space


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, default=120)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=20_000, help="files whose tags are read")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        songs = write_songs(Path(folder), options.tracks, options.seconds)
        compare(Path(folder), songs, options.rounds)
        first, again = read_tags(Path(folder) / "library", options.files)
        print(f"tags        {first:8.0f} files/s, {again:.0f} with the findings of an earlier scan")


def compare(folder: Path, songs: dict[str, CorpusSettings], rounds: int) -> None:
    """Prepare the same tracks of each kind in turn, and print medians and their ratios to loose files."""
    recipe, target = Recipe.of(Config()), Location.of(folder)
    tracks = {kind: scan(settings) for kind, settings in songs.items()}
    prepare_block(tracks["folder"].slice(0, 1), recipe, target / "start")
    decoder = IsolatedFunction.shared(TrackPreparer, recipe, memory_mb=recipe.decoding.max_file_memory_mb)
    seconds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in songs}  # wall, and of the decoder's CPU
    for number in range(rounds):
        for kind in list(songs)[:: -1 if number % 2 else 1]:
            before = cpu_seconds(decoder.pid)
            work = functools.partial(prepare_block, tracks[kind], recipe, target / f"out-{kind}-{number}")
            wall = timed(work) / len(tracks[kind])
            seconds[kind].append((wall, (cpu_seconds(decoder.pid) - before) / len(tracks[kind])))
    for kind, values in seconds.items():
        wall, cpu = (statistics.median(column) for column in zip(*values, strict=True))
        pairs = [(a / b, c / d) for (b, d), (a, c) in zip(values, seconds["folder"], strict=True)]
        speed, efficiency = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(
            f"{kind:<12}{1 / wall:8.1f} tracks/s{speed:8.3f} of loose files;{1000 * cpu:8.2f} ms CPU a track, "
            f"{efficiency:.3f} times the tracks per CPU second"
        )


def cpu_seconds(pid: int | None) -> float:
    """Return the CPU time of all threads of a process so far."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def write_songs(root: Path, tracks: int, seconds: float) -> dict[str, CorpusSettings]:
    """Write the same MP3 files in a folder of genres, in Parquet with a hundred rows a group, and in a tar file."""
    rng = np.random.default_rng(0)
    names, contents = [], []
    for number in range(tracks):
        target = io.BytesIO()
        soundfile.write(target, rng.normal(0, 0.1, (round(seconds * RATE), 2)), RATE, format="MP3")
        names.append(f"rock/{number:04d}.mp3")
        contents.append(target.getvalue())
        path = root / "loose" / names[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[-1])
    audio = [{"bytes": content, "path": name} for name, content in zip(names, contents, strict=True)]
    pq.write_table(pa.table({"audio": audio, "genre": ["rock"] * tracks}), root / "a.parquet", row_group_size=100)
    with tarfile.open(root / "a.tar", "w") as archive:
        for name in names:
            archive.add(root / "loose" / name, name)
    roots = {"folder": "loose", "parquet": "a.parquet", "webdataset": "a.tar"}
    return {kind: CorpusSettings(kind=kind, root=str(root / name)) for kind, name in roots.items()}


def read_tags(root: Path, count: int) -> list[float]:
    """Return the files a second of a scan of `count` files with tags and a cover, and of a scan after it."""
    import mutagen
    from mutagen import flac

    root.mkdir()
    soundfile.write(root / "0.flac", np.zeros(RATE), RATE)
    file = mutagen.File(root / "0.flac")
    file["genre"], file["artist"] = "Rock", "Somebody"
    cover = flac.Picture()  # type: ignore[no-untyped-call]
    cover.data = bytes(100_000)
    file.add_picture(cover)
    file.save()
    content = (root / "0.flac").read_bytes()
    for number in range(1, count):
        path = root / f"{number}.flac"
        if number < _ORIGINALS:
            path.write_bytes(content)
        else:
            os.link(root / f"{number % _ORIGINALS}.flac", path)
    settings, folder = CorpusSettings(kind="tags", root=str(root)), Location.of(root.with_name("scan"))
    return [
        count / timed(lambda: list(corpora.scan(settings, folder=folder, report=lambda line: None))) for _ in range(2)
    ]


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
