"""Name the genres of one song, or of every audio file below `inputs`, with a saved model.

    genre tag song.mp3
    genre tag inputs=~/Music output=outputs/mine model=outputs/gtzan/models/resnet
    find ~/Music -newer seen -print0 | genre tag - output=outputs/mine
    genre tag undo=outputs/mine/tags/written.csv

Write OUTPUT/tags: the genres of each file (Parquet, CSV and JSON Lines), a timeline (Parquet and CSV), and the files
that could not be read, with the reason. After an interruption, or with new files, the same command does
only new content.
"""

from __future__ import annotations

import gc
import importlib.util
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre import memory
from genre.errors import AudioError, GenreError
from genre.model.saved_model import SavedEnsemble
from genre.settings import Config, DecodingSettings
from genre.storage import Location, lease
from genre.tagging import audio_files, tag_rows
from genre.tagging.known_contents import KnownContents
from genre.tagging.tag_table import TagTable
from genre.tagging.tagger import Tagger
from ray_jobs.engine import cli
from ray_jobs.engine.models import find_models
from ray_jobs.tagging import genre_writing, tag_report

_SAVE_SECONDS = 10.0  # of work that a killed job loses at most
_FEW = 8  # files that are tagged before Ray would have started

# Neither torch nor Ray is imported above: one song must be tagged in seconds, and a light install has neither.


def run(config: Config) -> None:
    """Tag `config.inputs`: a single song is shown, and everything with an output is written to OUTPUT/tags.

    Raises `GenreError`, after everything is written, when no file could be read.
    """
    if config.tag.undo:
        genre_writing.undo(config.tag.undo)
        return
    writes_genres = config.tag.write_genres != "never"
    if writes_genres:
        genre_writing.require_local(config.tag, config.inputs)
    ensemble = SavedEnsemble.read(find_models(config), config.min_precision)
    genre_writing.require_precision(config.tag, config.min_precision, ensemble)
    song = audio_files.single_file(config.inputs)
    if song and not writes_genres and "output" not in config.model_fields_set:
        tag_report.show_song(_tag_song(config.decoding, ensemble, song), ensemble)
        return
    labels = genre_writing.labels_of(Location.of(config.output) / "features") if writes_genres else None
    ensemble.check_weights()
    with lease.held(config.output, "tag"):  # before the files are listed, which may take minutes
        files = audio_files.list_files(config.inputs)
        table = TagTable(Location.of(config.output) / "tags", ensemble, replace=config.tag.replace)
        rows = tag_pending(config, ensemble, table, files, song)
        if labels is not None:
            genre_writing.write(config.tag, table, rows, labels)
    check_any_readable(rows, table.folder / "failures.csv")


def tag_pending(
    config: Config, ensemble: SavedEnsemble, table: TagTable, files: pa.Table, song: Location | None
) -> pa.Table:
    """Tag the files that are not done, write all tables, and return the rows of all files: see `TagTable.finish`.

    Raises `StorageError` when files that were tagged earlier are away with their disk.
    """
    folder = None if config.inputs == audio_files.STDIN else Location.of(config.inputs)
    table.check_present(files, folder)
    started = time.monotonic()
    pending = table.pending(files, config.decoding.retry_rejects)
    tag_report.show_start(ensemble, len(files), len(pending))
    if song and len(pending):
        table.add(pa.Table.from_pylist([_tag_song(config.decoding, ensemble, song)], tag_rows.SCHEMA))
    elif len(pending) > _FEW:
        _tag_many(config, ensemble, table, pending)
    elif len(pending):
        table.add(_Worker(ensemble, config.decoding, table.known(pending))(pending))
    rows = table.finish(files, folder, config.tag.top_k, config.tag.album == "agree", config.tag.values)
    if song:
        tag_report.show_song(table.row(str(song)), ensemble)
    new = rows.filter(pc.is_in(rows["path"], pending["path"].combine_chunks()))
    music_seconds = pc.sum(new["seconds"]).as_py() or 0.0
    tag_report.show_end(rows, music_seconds, time.monotonic() - started, table.folder)
    return rows


def _tag_song(limits: DecodingSettings, ensemble: SavedEnsemble, song: Location) -> dict[str, Any]:
    """Return the row of a song, without Ray. Raises `GenreError` when it cannot be read.

    The file is decoded in a child process while this process loads the models.
    """
    decode = ensemble.decoder(limits)
    with ThreadPoolExecutor(1) as pool:
        decoded = pool.submit(decode, str(song))
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # on a busy machine waiting would cost more than computing
        gc.disable()  # importing torch creates a million objects, none of them garbage
        tagger = Tagger(ensemble.load(limits), ensemble.calibration)
        gc.enable()
        try:
            tags = tagger.name(str(song), decoded.result())
        except AudioError as error:
            raise GenreError(f"{song}: {error.line}; nothing to tag") from None
    names = tag_rows.names_in(str(song))
    return audio_files.file_row(song) | names | tag_rows.tag_columns(tags, tagger.classes)


class _Worker:
    """A tagger that lives as long as its process, so that the models are loaded once."""

    def __init__(self, ensemble: SavedEnsemble, limits: DecodingSettings, known: KnownContents) -> None:
        memory.keep_freed()
        self._tagger = Tagger(ensemble.load(limits, threads=1), ensemble.calibration)
        self._known = known

    def __call__(self, files: pa.Table) -> pa.Table:
        return tag_rows.tag_files(self._tagger, files, self._known)


def _tag_many(config: Config, ensemble: SavedEnsemble, table: TagTable, pending: pa.Table) -> None:
    """Tag all pending files with one tagger for each CPU, of the cluster or, in a light install, of this machine."""
    from ray_jobs.engine.progress import TrackProgress

    is_light = ensemble.is_exported and importlib.util.find_spec("ray") is None
    with TrackProgress("tag", total=len(pending)) as progress:
        unsaved: list[pa.Table] = []
        saved = time.monotonic()
        try:
            tag = local_stream if is_light else _cluster_stream
            for rows in tag(config, ensemble, pending, table.known(pending)):
                unsaved.append(rows)
                progress.advance(len(rows), rejected=len(rows) - rows["reason"].null_count)
                if time.monotonic() - saved > _SAVE_SECONDS:
                    table.add(pa.concat_tables(unsaved))
                    unsaved, saved = [], time.monotonic()
        finally:
            if unsaved:
                table.add(pa.concat_tables(unsaved))


def local_stream(
    config: Config, ensemble: SavedEnsemble, pending: pa.Table, known: KnownContents
) -> Generator[pa.Table, None, None]:
    """Like `distributed.stream`, in processes of this machine and without Ray."""
    cpus = config.cluster.cpus or len(os.sched_getaffinity(0))
    size = audio_files.block_size(len(pending), config.tag.batch_files, cpus)
    starts = range(0, len(pending), size)
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        min(cpus, len(starts)),
        multiprocessing.get_context("spawn"),  # a fork would copy a process that has threads
        _start_worker,
        (ensemble, config.decoding, known),
    )
    try:
        # rows are copied: the pickle of a slice holds the complete table
        blocks = (pending.slice(start, size).take(np.arange(min(size, len(pending) - start))) for start in starts)
        for task in as_completed([pool.submit(_tag_block, block) for block in blocks]):
            yield task.result()
    except BrokenProcessPool:
        raise GenreError(
            "a process that tags files was killed, perhaps because memory ran out; run the same command again "
            f"to resume, with fewer than cluster.cpus={cpus} if it repeats"
        ) from None
    finally:
        # after Ctrl-C the results under way are not used, and one may take decoding.file_timeout_s
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()


_worker: _Worker | None = None  # of this process, when it belongs to the pool


def _start_worker(*arguments: Any) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    _worker = _Worker(*arguments)


def _tag_block(files: pa.Table) -> pa.Table:
    assert _worker is not None
    return _worker(files)


def _cluster_stream(
    config: Config, ensemble: SavedEnsemble, pending: pa.Table, known: KnownContents
) -> Iterator[pa.Table]:
    """Like `distributed.stream`, on a Ray that is connected for it."""
    from ray_jobs.engine import cluster, reach
    from ray_jobs.tagging import distributed

    with cluster.connected(config.cluster, config.output):
        reach.check_seen(pending, "inputs")
        yield from distributed.stream(config, ensemble, pending, known)


def check_any_readable(rows: pa.Table, failures: Location) -> None:
    """Raise `GenreError`, which names the file `failures`, when no row is of a readable file."""
    if rows["reason"].null_count:
        return
    first = rows.slice(0, 1).to_pylist()[0]
    cause = f"{first['path']}: {first['reason']}: {first['message']}".rstrip(".")
    if len(rows) == 1:
        raise GenreError(f"{cause}; nothing to tag")
    raise GenreError(f"none of {len(rows)} files could be read, the first is {cause}; see {failures}")


if __name__ == "__main__":
    sys.exit(cli.main("tag"))
