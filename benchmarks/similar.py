"""Measure the search for similar tracks, and what embeddings add to tagging.

    python benchmarks/similar.py search [--rows 1000000] [--size 512] [--rounds 5]
    python benchmarks/similar.py embed MODEL MUSIC [--files 48] [--rounds 5]

`search` writes a table of random vectors to a temporary folder and times what `genre similar` does with it: opening,
finding the row of a song by its path and content, the search, and reading the rows of the answer. The file is in the
page cache. A plain product with all vectors as float32 in memory is timed as well, which is the least that any exact
search costs, without reading and converting. Of several rounds the best counts.

`embed` names the genres of files in one process and one thread, with and without embeddings, in turns. Files are
decoded once before, so that only the model is compared; the share of decoding is printed too. Times are CPU times.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from genre.errors import AudioError
from genre.retrieval import embedding_table
from genre.retrieval.embedding_table import EmbeddingTable
from genre.retrieval.nearest import nearest
from genre.storage import Location
from genre.tagging.audio_files import list_files

_GROUP = 16_384  # rows of a row group, as `embed` writes them


def write_table(folder: Location, rows: int, size: int) -> None:
    """Write a table of random embeddings."""
    random = np.random.default_rng(0)
    model = json.dumps({"weights": "0" * 64, "address": "none"})

    def groups() -> Iterator[pa.Table]:
        for begin in range(0, rows, _GROUP):
            count = min(_GROUP, rows - begin)
            vectors = random.normal(size=(count, size)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            numbers = range(begin, begin + count)
            flat = pa.array(vectors.astype(np.float16).reshape(-1))
            yield pa.table(
                {
                    "path": [f"/music/artist {number // 12}/track {number}.mp3" for number in numbers],
                    "content": [f"{number:064x}" for number in numbers],
                    "artist": [f"artist {number // 12}" for number in numbers],
                    "title": [f"track {number}" for number in numbers],
                    "genre": ["jazz"] * count,
                    "embedding": pa.FixedSizeListArray.from_arrays(flat, size),
                }
            ).replace_schema_metadata({"genre.model": model})

    tables = groups()
    first = next(tables)
    with (folder / embedding_table.FILE).table_writer(
        first.schema, compression="none", use_dictionary=["artist", "genre"]
    ) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table)


def search(rows: int, size: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Location.of(name)
        writer = multiprocessing.Process(target=write_table, args=(folder, rows, size))  # whose memory is not counted
        writer.start()
        writer.join()
        print(
            f"{rows} rows of {size} numbers, {(folder / embedding_table.FILE).size() / 1e9:.2f} GB, load "
            f"{os.getloadavg()[0]:.0f}"
        )
        middle = rows // 2
        times: dict[str, list[tuple[float, float]]] = {}
        for _ in range(rounds):
            mark = _now()
            table = EmbeddingTable.open(folder)
            place = table.row_of(f"/music/artist {middle // 12}/track {middle}.mp3", f"{middle:064x}")
            assert place == middle
            mark = _lap(times, "find the song's row", mark)
            query = embedding_table.vectors_of(table.take(np.array([middle])))[0]
            mark = _lap(times, "read its vector", mark)
            found, _ = nearest(table.blocks(), query, 21)
            assert found[0] == middle
            mark = _lap(times, "search", mark)
            table.take(found[1:], vectors=False)
            _lap(times, "read 20 rows", mark)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        for step, laps in times.items():
            wall, cpu = (min(each) for each in zip(*laps, strict=True))
            print(f"  {step:<20} {wall:6.2f} s, {cpu:6.2f} s of CPU")
        print(f"  peak {peak:.0f} MiB, with the mapped pages of the file")
        every = np.concatenate(list(table.blocks()))
        started = _now()
        every @ query
        ended = _now()
        print(f"  {'product in memory':<20} {ended[0] - started[0]:6.2f} s, {ended[1] - started[1]:6.2f} s of CPU")


def _now() -> tuple[float, float]:
    """Return the seconds of the clock, and those that the CPUs worked for this process."""
    return time.perf_counter(), time.process_time()


def _lap(times: dict[str, list[tuple[float, float]]], step: str, since: tuple[float, float]) -> tuple[float, float]:
    now = _now()
    times.setdefault(step, []).append((now[0] - since[0], now[1] - since[1]))
    return now


def embed(model: str, music: str, files: int, rounds: int) -> None:
    from genre import Tagger  # torch would be counted in the memory of `search`
    from genre.features.preparing.tracks import clips_of

    tagger = Tagger.load(model, precision=0, threads=1)
    decoded = {}
    started = time.perf_counter()
    for path in list_files(music)["path"].to_pylist():
        with contextlib.suppress(AudioError):  # of collections made for tests
            decoded[path] = tagger.decode(path)
        if len(decoded) == files:
            break
    decoding = time.perf_counter() - started
    loaded = tagger.models[0]
    clips = clips_of(list(decoded.values()), loaded.card.shape)
    ratios, answering = [], 0.0
    for number in range(rounds + 1):
        begin = time.process_time()
        loaded.predict(clips, 16)
        middle = time.process_time()
        loaded.predict_and_embed(clips, 16)
        end = time.process_time()
        if number:  # the first round prepares the network
            ratios.append((end - middle) / (middle - begin))
            answering = end - middle
    print(f"{loaded.card.architecture}, {len(decoded)} files, load {os.getloadavg()[0]:.0f}")
    print(
        f"  answers and embeddings take {statistics.median(ratios):.3f} times the answers alone "
        f"({min(ratios):.3f} to {max(ratios):.3f})"
    )
    print(f"  decoding took {decoding:.2f} s, answers and embeddings {answering:.2f} s of CPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    first = parts.add_parser("search")
    first.add_argument("--rows", type=int, default=1_000_000)
    first.add_argument("--size", type=int, default=512)
    first.add_argument("--rounds", type=int, default=5)
    second = parts.add_parser("embed")
    second.add_argument("model")
    second.add_argument("music")
    second.add_argument("--files", type=int, default=48)
    second.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.part == "search":
        search(options.rows, options.size, options.rounds)
    else:
        embed(options.model, options.music, options.files, options.rounds)


if __name__ == "__main__":
    main()
