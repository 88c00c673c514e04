"""Compare loose files with Parquet and tar files that hold them, and measure how fast tags are read.

    python benchmarks/shards.py --tracks 120 --files 20000

Prints tracks a second of `prepare_block` in one process, the median of rounds in turn. On a busy machine only the
ratios mean something. Unfair to the shards: loose files are in the page cache, and a disk or a network would be slower.
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
from genre.features.preparation import prepare_block
from genre.features.recipe import Recipe
from genre.features.scan import scan
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
        rates: dict[str, list[float]] = {kind: [] for kind in songs}
        for number in range(options.rounds):
            for kind, settings in songs.items():
                tracks = scan(settings)
                target = Location.of(folder) / f"out-{kind}-{number}"
                seconds = timed(functools.partial(prepare_block, tracks, Recipe.of(Config()), target))
                rates[kind].append(len(tracks) / seconds)
        for kind, values in rates.items():
            ratio = statistics.median(a / b for a, b in zip(values, rates["folder"], strict=True))
            print(f"{kind:<12}{statistics.median(values):8.1f} tracks/s{ratio:8.2f} of loose files")
        first, again = read_tags(Path(folder) / "library", options.files)
        print(f"tags        {first:8.0f} files/s, {again:.0f} with the findings of an earlier scan")


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
