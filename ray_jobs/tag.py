"""Name the genres of one song, or of every audio file below `inputs`, with a saved model.

    genre tag song.mp3
    genre tag inputs=~/Music output=outputs/mine model=outputs/gtzan/models/resnet

Write OUTPUT/tags: the genres and a timeline of each file (Parquet and CSV), and the files that could not be read, with
the reason. Run again after an interruption, or after adding files, it does only new content.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from genre import collection, decoding, file_tags, models
from genre.calibration import UNKNOWN
from genre.collection import Jury, Ledger
from genre.config import Config, PrepareSettings
from genre.errors import ArtifactError, AudioError, ConfigError, GenreError
from genre.storage import Location
from ray_jobs import cli, tag_report

if TYPE_CHECKING:
    from genre.tagging import Tagger

_SAVE_SECONDS = 10.0  # of work that a killed job loses at most
_FEW = 8  # files answered before Ray would have started

# Neither torch nor Ray is imported above: one song must be answered in seconds.


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
        whole = Location.of(path)
        return [whole] if "," not in path or whole.exists() else [Location.of(one.strip()) for one in path.split(",")]
    output = Location.of(config.output)
    label = models.label(config.model.name, config.models.get(config.model.name, {}))
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
    """One ledger row, without Ray. The file is decoded in another process while this one imports torch."""
    decoder = decoding.Decoder(decoding.recipe_of_folder(jury.folders[0], config.prepare))
    with ThreadPoolExecutor(1) as pool:
        decoded = pool.submit(decoder, str(song))
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # on a busy machine waiting would cost more than computing
        gc.disable()  # torch makes a million objects when it is imported, none of them garbage
        from genre.tagging import Tagger

        gc.enable()
        tagger = Tagger.load(jury.addresses, config.tag.precision, config.prepare)
        try:
            tags = tagger.name(str(song), decoded.result())
        except AudioError as error:
            raise GenreError(f"{song}: {error.reason.value}: {' '.join(str(error).split())}; nothing to tag") from None
    return collection.file_row(song) | collection.answer_row(tags, tagger.classes)


class _Worker:
    """A tagger that lives as long as its process: the models are loaded once."""

    def __init__(self, folders: list[str], limits: PrepareSettings, known: dict[str, int], device: str) -> None:
        import torch

        from genre import memory
        from genre.tagging import Tagger

        torch.set_num_threads(1)
        memory.keep_freed()
        self._tagger: Tagger = Tagger.load(folders, limits=limits, device=device)
        self._known = known

    def __call__(self, files: pa.Table) -> pa.Table:
        return collection.answer(self._tagger, files, self._known)


def _answer_all(config: Config, jury: Jury, ledger: Ledger, todo: pa.Table) -> None:
    """Answer all files of `todo` on all CPUs of the cluster, a model in each."""
    # Ray's core complains of how Ray Data itself starts actors, as if a restart would fail (ray-project/ray#57733)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    from ray_jobs import cluster
    from ray_jobs.progress import TrackProgress

    with cluster.connected(config), TrackProgress("tag", total=len(todo)) as progress:
        cluster.check_seen(todo["path"][0].as_py(), "inputs")
        waiting: list[pa.Table] = []
        saved = time.monotonic()
        try:
            for rows in stream(config, jury, todo, ledger.contents):
                waiting.append(rows)
                progress.advance(len(rows), rejected=len(rows) - rows["reason"].null_count)
                if time.monotonic() - saved > _SAVE_SECONDS:
                    ledger.add(pa.concat_tables(waiting))
                    waiting, saved = [], time.monotonic()
        finally:
            if waiting:
                ledger.add(pa.concat_tables(waiting))


def stream(config: Config, jury: Jury, todo: pa.Table, known: dict[str, int]) -> Iterator[pa.Table]:
    """Ledger rows of the files of `todo` as they are answered, on the Ray that is connected; see `collection.answer`.

    One actor on each CPU decodes and answers: decoding is most of the work, and where both compete for the same
    CPUs two pools of actors would only add the way between them. With a GPU the actors share it.
    """
    from ray_jobs import cluster  # before ray
    from ray_jobs.blocks import as_they_come

    import ray.data  # isort: skip

    # small batches at first sight cost little, and give every CPU some of a small collection
    size = min(config.tag.batch_files, max(1, -(-len(todo) // (4 * cluster.cpus()))))
    blocks = [todo.slice(begin, size) for begin in range(0, len(todo), size)]
    workers = min(cluster.cpus(), len(blocks))
    gpus = cluster.gpus() if config.train.device != "cpu" else 0
    answered = ray.data.from_arrow(blocks).map_batches(
        _Worker,
        fn_constructor_args=(jury.addresses, config.prepare, known, "cuda" if gpus else "cpu"),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers),
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
