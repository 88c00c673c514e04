"""Check that the driver of tag needs little memory for a long list of files, without audio, models or Ray.

    python benchmarks/tag_lists.py [--rows 1000000] [--clips 8]

Makes up a collection of tracks of four minutes with ten genres: half of them tagged by an earlier run, half in parts of
a run that was killed before its end. The steps of the job follow: which files are pending, what is known of them, the
final tables, the printed counts, a run that finds nothing to do, the embeddings, and the list of the genres that were
written into files. Peak memory is that of the process so far.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]
from prepare_scaling import timed

from genre import corpora, memory
from genre.corpora import AudioFile
from genre.model.calibration import Calibration
from genre.model.saved_model import SavedEnsemble
from genre.retrieval import embedding_table
from genre.retrieval.nearest import nearest
from genre.storage import Location
from genre.tagging import audio_files, tag_rows, written_table
from genre.tagging.tag_table import TagTable
from ray_jobs.tagging import tag_report

GENRES = ["blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock"]
PART = 2000  # rows that a run saves at a time
EMBEDDING = 512  # numbers of each track, as resnet has them
CLIP_SECONDS = 30.0


class Models:
    """What the tag table and the report take from an ensemble."""

    addresses, classes = ["outputs/gtzan/models/resnet"], GENRES
    weights = ("0" * 64,)
    calibration = Calibration(1.0, (0.6,) * len(GENRES), 0.8, tracks=200)


def path_of(number: int) -> str:
    album = f"{number // 12:06d} Songs from the Northern Line, Vol. {number // 12 % 7}"
    return f"/music/Artist {number // 60:05d} & The Examples/{album}/{number % 12 + 1:02d} Track number {number}.flac"


def files_of(rows: int) -> Iterator[AudioFile]:
    for number in range(rows):
        path = path_of(number)
        yield AudioFile(path, path.removeprefix("/music/"), 30_000_000 + number % 7_000_000, 1.7e9 + number)


def tagged(begin: int, end: int, clips: int) -> pa.Table:
    """Return the rows of tagged files; every hundredth could not be read."""
    count, rng = end - begin, np.random.default_rng(begin)
    numbers = range(begin, end)
    is_failure = np.arange(begin, end) % 100 == 99
    moments = np.where(is_failure, 0, clips)
    answers = rng.dirichlet(np.full(len(GENRES), 0.3), int(moments.sum())).astype(np.float32)
    by_clip = pa.FixedSizeListArray.from_arrays(answers.ravel(), len(GENRES)).cast(pa.list_(pa.float32()))
    start = np.concatenate([np.arange(n) for n in moments]).astype(np.float32) * CLIP_SECONDS
    timeline = pa.StructArray.from_arrays(
        [pa.array(start), pa.array(start + CLIP_SECONDS), by_clip], ["start", "end", "probabilities"]
    )
    ends = np.concatenate([[0], np.cumsum(moments)]).astype(np.int32)
    probabilities = by_clip.take(pa.array(np.minimum(ends[:-1], len(by_clip) - 1), mask=is_failure))
    embeddings = pa.array([rng.normal(0, 0.04, EMBEDDING).astype(np.float16)], pa.list_(pa.float16()))
    columns = {
        "path": [path_of(n) for n in numbers],
        "size": [30_000_000 + n % 7_000_000 for n in numbers],
        "modified": [1.7e9 + n for n in numbers],
        "content": [f"{n * 0x9E3779B97F4A7C15 % 2**256:064x}" for n in numbers],
        "seconds": pa.array(np.full(count, clips * CLIP_SECONDS), mask=is_failure),
        "probabilities": probabilities,
        "timeline": pa.ListArray.from_arrays(pa.array(ends), timeline, mask=pa.array(is_failure)),
        "embedding": embeddings.take(pa.array(np.zeros(count, np.int64), mask=is_failure)),
        "is_embedded": ~is_failure,
        "clip_embeddings": pa.nulls(count),
        "has_clips": np.zeros(count, bool),
        "artist": [f"artist {n // 12}" for n in numbers],
        "title": [f"song {n}" for n in numbers],
        "own_genre": [GENRES[n % len(GENRES)] for n in numbers],
        "group": [f"artist{n // 12}" for n in numbers],
        "reason": ["unsupported" if failed else None for failed in is_failure],
        "message": ["Format not recognised" if failed else None for failed in is_failure],
    }
    return pa.table(columns).cast(tag_rows.SCHEMA)


def write_earlier(folder: Location, rows: int, clips: int) -> None:
    """Write the table of an earlier run and the parts of a killed one."""
    with (folder / "ledger.parquet").table_writer(tag_rows.SCHEMA) as writer:
        for begin in range(0, rows // 2, PART):
            writer.write_table(tagged(begin, min(begin + PART, rows // 2), clips))
    for begin in range(rows // 2, rows, PART):
        part = tagged(begin, min(begin + PART, rows), clips)
        (folder / "parts" / f"{begin:08d}.parquet").write_table(part)


def genres_written(rows: int) -> written_table.Plan:
    """Return a plan of which each file is written already, with an undo text of the usual length."""
    schema, undo = written_table.SCHEMA, '{"field":"genre","ours":[["Rock"]],"delta":"' + "a" * 300 + '"}'
    parts = []
    for begin in range(0, rows, PART):
        count = min(PART, rows - begin)
        paths = [path_of(begin + number) for number in range(count)]
        texts = ([text] * count for text in ("Rock", "genre", "written", "Jazz", "", undo))
        parts.append(pa.table([paths, *texts], schema=schema))
    return written_table.Plan(pa.concat_tables(parts), pa.nulls(rows, pa.string()), schema.empty_table())


def measure(folder: Location, rows: int) -> None:
    ensemble = cast(SavedEnsemble, Models())
    corpora.open_folder = lambda *_: None  # type: ignore[assignment]
    audio_files.single_file = lambda inputs: None
    corpora.walk = lambda *_: files_of(rows)
    files = timed("list files", lambda: audio_files.list_files("/music"))
    table = timed("open the table", lambda: TagTable(folder, ensemble))
    pending = timed("pending", lambda: table.pending(files, retry_failures=True))
    timed("known contents", lambda: table.known(pending))
    done = timed("finish", lambda: table.finish(files, Location.of("/music"), top_k=3))
    timed("show the end", lambda: tag_report.show_end(done, 1.0, 1.0, folder))
    again = timed("open the table, finished", lambda: TagTable(folder, ensemble))
    timed("pending, finished", lambda: again.pending(files))
    timed("finish, nothing new", lambda: again.finish(files, Location.of("/music"), top_k=3))
    embedded = timed("write the embeddings", lambda: embedding_table.write(folder.parent, ensemble, again.rows()))
    written = timed("genres to write", lambda: genres_written(rows))
    timed("save them", lambda: written_table.write(folder, written))
    none = pa.table(
        {
            "path": pa.nulls(0, pa.string()),
            "genres": pa.nulls(0, pa.list_(pa.string())),
            "is_label": pa.nulls(0, pa.bool_()),
        }
    )
    timed("read them", lambda: written_table.plan(folder, none, "genre", overwrite=False))
    query = next(embedded.blocks())[0]
    timed("nearest of a query", lambda: nearest(embedded.blocks(), query, 20))
    renamed = files.set_column(2, "modified", pa.array(np.arange(rows, dtype=np.float64)))
    touched = timed("pending, all touched", lambda: again.pending(renamed))
    timed("known contents of all", lambda: again.known(touched))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--clips", type=int, default=8)
    options = parser.parse_args()
    memory.return_freed()  # as the job does
    home = tempfile.mkdtemp(prefix="tag-lists-")
    try:
        folder = Location.of(home) / "tags"
        write_earlier(folder, options.rows, options.clips)
        print(f"{options.rows} files of {options.clips} clips{'seconds':>29}{'peak MiB':>10}")
        measure(folder, options.rows)
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
