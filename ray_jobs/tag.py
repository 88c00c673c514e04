"""Name the genres of one song, or of every audio file below `inputs`, with a saved model.

    genre tag song.mp3
    genre tag inputs=~/Music output=outputs/mine model=outputs/gtzan/models/resnet

Write OUTPUT/tags: the genres and a timeline of each file (Parquet and CSV), and the files that could not be read, with
the reason. Run again after an interruption, or after adding files, it does only new content.
"""

from __future__ import annotations

import gc
import importlib.util
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from genre import architectures, memory
from genre.config import Config, PrepareSettings
from genre.errors import ArtifactError, AudioError, ConfigError, GenreError
from genre.model.calibration import UNKNOWN
from genre.storage import Location
from genre.tagging import collection, file_tags
from genre.tagging.collection import Jury, Ledger
from genre.tagging.tagger import Tagger, decoder, ensemble
from ray_jobs.engine import cli, tag_report

_SAVE_SECONDS = 10.0  # of work that a killed job loses at most
_FEW = 8  # files answered before Ray would have started

# Neither torch nor Ray is imported above: one song must be answered in seconds, and a light install has neither.


def run(config: Config) -> None:
    """Tag `config.inputs`: one song on the screen, and whatever has an output in OUTPUT/tags."""
    if config.tag.write_genres != "never" and "://" in config.inputs:
        raise ConfigError(
            f"tag.write_genres={config.tag.write_genres} changes files in folders alone, found inputs={config.inputs}; "
            "copy the music to this machine, or leave tag.write_genres out"
        )
    jury = Jury.of(find_models(config), config.tag.precision)
    if config.tag.write_genres != "never":
        _require_confidence(jury, config)
    song = collection.single_file(config.inputs)
    if song and config.tag.write_genres == "never" and "output" not in config.model_fields_set:
        tag_report.show_song(_answer_song(config, jury, song), jury)
        return
    jury.check()
    files = collection.list_files(config.inputs)
    started = time.monotonic()
    ledger = Ledger(Location.of(config.output) / "tags", jury)
    todo = ledger.pending(files, config.prepare.retry_rejects)
    tag_report.show_start(jury, len(files), len(todo))
    if song and len(todo):
        ledger.add(pa.Table.from_pylist([_answer_song(config, jury, song)], collection.LEDGER))
    elif len(todo) > _FEW:
        _answer_all(config, jury, ledger, todo)
    elif len(todo):
        ledger.add(_Worker(jury.addresses, config.prepare, ledger.contents, "cpu")(todo))
    rows = ledger.finish(files, Location.of(config.inputs), config.tag.top_k)
    if song:
        tag_report.show_song(rows.to_pylist()[0], jury)
    todo_seconds = pc.sum(rows.filter(pc.is_in(rows["path"], todo["path"].combine_chunks()))["seconds"]).as_py() or 0.0
    tag_report.show_end(rows, jury, todo_seconds, time.monotonic() - started, Location.of(config.output) / "tags")
    if config.tag.write_genres != "never":
        _write_genres(config, jury, ledger, rows)


def find_models(config: Config) -> list[Location]:
    """What `model.path` names, or the best network of OUTPUT/leaderboard, or what `train` makes of these settings."""
    path = config.model.path
    if path:
        if "," not in path or Location.of(path).exists():
            return [Location.of(path)]
        return [Location.of(name) for name in map(str.strip, path.split(",")) if name]
    output = Location.of(config.output)
    label = architectures.label(config.model.name, config.models.get(config.model.name, {}))
    named = output / "models" / label
    if not (output / "leaderboard" / "leaderboard.json").exists():
        if not (named / "model.json").exists():
            raise ArtifactError(
                f"{output}: neither a leaderboard nor models/{label} is here; "
                "train a model, or name one with model=FOLDER"
            )
        return [named]
    from genre import report

    networks = report.tabulate(report.read_board(output / "leaderboard")).of("network")
    if not networks:
        raise ArtifactError(f"{output}: the leaderboard holds no network; run tune, or name a model with model=FOLDER")
    return [output / "models" / networks[0].entry.name]


def _answer_song(config: Config, jury: Jury, song: Location) -> dict[str, Any]:
    """One ledger row, without Ray. The file is decoded in another process while this one loads the models."""
    decode = decoder(jury.models[0], config.prepare)
    with ThreadPoolExecutor(1) as pool:
        decoded = pool.submit(decode, str(song))
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # on a busy machine waiting would cost more than computing
        gc.disable()  # torch makes a million objects when it is imported, none of them garbage
        tagger = Tagger(ensemble(jury.models, config.prepare), jury.calibration)
        gc.enable()
        try:
            tags = tagger.name(str(song), decoded.result())
        except AudioError as error:
            raise GenreError(f"{song}: {error.reason.value}: {' '.join(str(error).split())}; nothing to tag") from None
    return collection.file_row(song) | collection.answer_row(tags, tagger.classes)


class _Worker:
    """A tagger that lives as long as its process: the models are loaded once."""

    def __init__(self, models: list[str], limits: PrepareSettings, known: dict[str, int], device: str) -> None:
        memory.keep_freed()
        self._tagger = Tagger.load(models, limits=limits, device=device, threads=1)
        self._known = known

    def __call__(self, files: pa.Table) -> pa.Table:
        return collection.answer(self._tagger, files, self._known)


def _answer_all(config: Config, jury: Jury, ledger: Ledger, todo: pa.Table) -> None:
    """Answer all files of `todo`, a model on each CPU: of the cluster, or of this machine in a light install."""
    from ray_jobs.engine.progress import TrackProgress

    light = jury.models[0].is_exported and importlib.util.find_spec("ray") is None
    with TrackProgress("tag", total=len(todo)) as progress:
        waiting: list[pa.Table] = []
        saved = time.monotonic()
        try:
            for rows in (local_stream if light else _cluster_stream)(config, jury, todo, ledger.contents):
                waiting.append(rows)
                progress.advance(len(rows), rejected=len(rows) - rows["reason"].null_count)
                if time.monotonic() - saved > _SAVE_SECONDS:
                    ledger.add(pa.concat_tables(waiting))
                    waiting, saved = [], time.monotonic()
        finally:
            if waiting:
                ledger.add(pa.concat_tables(waiting))


def local_stream(config: Config, jury: Jury, todo: pa.Table, known: dict[str, int]) -> Iterator[pa.Table]:
    """Like `stream`, in processes of this machine and without Ray."""
    cpus = config.cluster.cpus or len(os.sched_getaffinity(0))
    blocks = _blocks(config, todo, cpus)
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        min(cpus, len(blocks)),
        multiprocessing.get_context("spawn"),  # a fork would copy a process that has threads
        _start_worker,
        (jury.addresses, config.prepare, known, "cpu"),
    )
    try:
        for answered in as_completed([pool.submit(_answer_block, block) for block in blocks]):
            yield answered.result()
    except BrokenProcessPool:
        raise GenreError(
            "a process that tags files was killed, perhaps because memory ran out; run the same command again "
            f"to resume, with fewer than cluster.cpus={cpus} if it repeats"
        ) from None
    finally:
        # after Ctrl-C nobody takes the answers under way, and one may take prepare.file_timeout_s
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()


_worker: _Worker | None = None  # of this process, where it is one of the pool's


def _start_worker(*arguments: Any) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    _worker = _Worker(*arguments)


def _answer_block(files: pa.Table) -> pa.Table:
    assert _worker is not None
    return _worker(files)


def _blocks(config: Config, todo: pa.Table, cpus: int) -> list[pa.Table]:
    """Cut the files into batches: small ones cost little, and give every CPU some of a small collection."""
    size = min(config.tag.batch_files, max(1, -(-len(todo) // (4 * cpus))))
    return [todo.slice(begin, size) for begin in range(0, len(todo), size)]


def _cluster_stream(config: Config, jury: Jury, todo: pa.Table, known: dict[str, int]) -> Iterator[pa.Table]:
    """Like `stream`, on a Ray that is connected for it."""
    # Ray's core complains of how Ray Data itself starts actors, as if a restart would fail (ray-project/ray#57733)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    from ray_jobs.engine import cluster

    with cluster.connected(config):
        cluster.check_seen(todo["path"][0].as_py(), "inputs")
        yield from stream(config, jury, todo, known)


def stream(config: Config, jury: Jury, todo: pa.Table, known: dict[str, int]) -> Iterator[pa.Table]:
    """Ledger rows of the files of `todo` as they are answered, on the Ray that is connected; see `collection.answer`.

    One actor on each CPU decodes and answers: decoding is most of the work, and where both compete for the same
    CPUs two pools of actors would only add the way between them. With a GPU the actors share it.
    """
    from ray_jobs.engine import cluster  # before ray
    from ray_jobs.engine.blocks import as_they_come

    blocks = _blocks(config, todo, cluster.cpus())
    workers = min(cluster.cpus(), len(blocks))
    gpus = 0 if config.train.device == "cpu" or jury.models[0].is_exported else cluster.gpus()
    data = cluster.data()
    answered = data.from_arrow(blocks).map_batches(
        _Worker,
        fn_constructor_args=(jury.addresses, config.prepare, known, "cuda" if gpus else "cpu"),
        batch_size=None,
        batch_format="pyarrow",
        compute=data.ActorPoolStrategy(size=workers),
        num_cpus=1,
        num_gpus=min(1.0, gpus / workers),
    )
    with as_they_come(answered) as tables:
        for rows in tables:
            yield rows.cast(collection.LEDGER)


def _require_confidence(jury: Jury, config: Config) -> None:
    """Genres are written into files only where a stated precision was shown on validation tracks."""
    file_tags.require()
    if not jury.calibration.tracks or not config.tag.precision:
        why = "tag.precision=0 asks for none" if jury.calibration.tracks else "the model has no validation answers"
        raise ConfigError(
            f"tag.write_genres={config.tag.write_genres} needs a known precision, but {why}; "
            "set tag.precision, or train the model again with this version"
        )


def _write_genres(config: Config, jury: Jury, ledger: Ledger, rows: pa.Table) -> None:
    """State the genres of `rows` in their files, and list what was done in OUTPUT/tags/written.csv."""
    tags = collection.tags_table(rows.filter(pc.is_null(rows["reason"])), jury, top_k=1)
    sure = tags.filter(pc.not_equal(tags["genre"], UNKNOWN)).to_pylist()
    preview = config.tag.write_genres == "preview"
    done: list[dict[str, Any]] = []
    for tag in sure:
        outcome = file_tags.write_genre(tag["path"], tag["genre"], config.tag.replace_genres, preview)
        done.append({"path": tag["path"], "genre": tag["genre"]} | vars(outcome))
    table = pa.Table.from_pylist(done, pa.schema([(name, pa.string()) for name in tag_report.WRITTEN_COLUMNS]))
    place = Location.of(config.output) / "tags" / "written.csv"
    place.write_bytes(collection.csv_bytes(table))
    ledger.refresh(table.filter(pc.equal(table["action"], file_tags.Action.WRITTEN.value))["path"].to_pylist())
    tag_report.show_written(table, place, unknown=len(tags) - len(sure))


if __name__ == "__main__":
    sys.exit(cli.main("tag"))
