"""Name the genres of every audio file below `inputs` with a saved model.

Writes OUTPUT/tags/tags.parquet and tags.csv (genres ranked, with probabilities) and failures.csv (files that
could not be read, with the reason).
"""

from __future__ import annotations

import io
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from genre import checkpoint, report
from genre.config import Config, PrepareSettings
from genre.corpora import _walk
from genre.errors import ArtifactError
from genre.storage import Location
from genre.tagging import Tagger, Tags
from ray_jobs import cli, cluster
from ray_jobs.progress import TrackProgress

import ray.data  # isort: skip


def run(config: Config) -> None:
    """Tag `config.inputs` into OUTPUT/tags."""
    model = find_model(config)
    card, _ = checkpoint.load(model)
    console = cli.console()
    console.print(f"tag: {card.architecture} from {model}, {len(card.classes)} genres")
    started = time.monotonic()
    files = _list(config.inputs)
    if len(files) == 1:
        table = _rows(Tagger.load(str(model), config.prepare).tag(files["path"].to_pylist()), config.tag.top_k)
    else:
        with cluster.connected(config):
            table = _tag(config, model, files)
    _write(table.sort_by("path"), config, time.monotonic() - started)


def find_model(config: Config) -> Location:
    """The model that `model.path` names, or the best network of OUTPUT/leaderboard, or models/<model.name>."""
    if config.model.path:
        return Location.of(config.model.path)
    output = Location.of(config.output)
    named = output / "models" / config.model.name
    if not (output / "leaderboard" / "leaderboard.json").exists():
        if not (named / "model.json").exists():
            raise ArtifactError(
                f"{output}: neither a leaderboard nor models/{config.model.name} is here; "
                "train a model, or name one with model=FOLDER"
            )
        return named
    networks = report.tabulate(report.read_board(output / "leaderboard")).of("network")
    if not networks:
        raise ArtifactError(f"{output}: the leaderboard holds no network; run tune, or name a model with model=FOLDER")
    return output / "models" / networks[0].entry.name


class _Worker:
    """A tagger that lives as long as its process: the model is loaded once."""

    def __init__(self, folder: str, limits: PrepareSettings, top_k: int) -> None:
        self._tagger = Tagger.load(folder, limits)
        self._top_k = top_k

    def __call__(self, files: pa.Table) -> pa.Table:
        return _rows(self._tagger.tag(files["path"].to_pylist()), self._top_k)


def _tag(config: Config, model: Location, files: pa.Table) -> pa.Table:
    size = min(config.tag.batch_files, max(1, -(-len(files) // (4 * cluster.cpus()))))
    blocks = [files.slice(begin, size) for begin in range(0, len(files), size)]
    tagged = ray.data.from_arrow(blocks).map_batches(
        _Worker,
        fn_constructor_args=(str(model), config.prepare, config.tag.top_k),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=cluster.cpus()),
        num_cpus=1,
    )
    tables = []
    with TrackProgress("tag", total=len(files)) as progress:
        for table in tagged.iter_batches(batch_size=None, batch_format="pyarrow"):
            tables.append(table)
            progress.advance(len(table), rejected=len(table) - table["reason"].null_count)
    return pa.concat_tables(tables)


def _list(inputs: str) -> pa.Table:
    """Every audio file below `inputs`, or `inputs` itself when it is one."""
    place = _walk.open_root(inputs, "inputs")
    if place.exists() and not place.is_folder():
        return pa.table({"path": [str(place)]})
    root = _walk.open_folder(inputs, "inputs")
    return pa.table({"path": pa.array((file.path for file in _walk.walk(root, "inputs")), pa.string())})


def _rows(tags: list[Tags], top_k: int) -> pa.Table:
    """One row a file: path, the best genre, the next ones, or a reason and a message."""
    columns: dict[str, pa.Array] = {"path": pa.array([one.path for one in tags], pa.string())}
    for place in range(top_k):
        suffix = "" if place == 0 else f"_{place + 1}"
        ranked = [one.genres[place] if place < len(one.genres) else (None, None) for one in tags]
        columns[f"genre{suffix}"] = pa.array([genre for genre, _ in ranked], pa.string())
        columns[f"probability{suffix}"] = pa.array([p for _, p in ranked], pa.float32())
    columns["seconds"] = pa.array([one.seconds for one in tags], pa.float64())
    columns["reason"] = pa.array([one.reason for one in tags], pa.string())
    columns["message"] = pa.array([one.message for one in tags], pa.string())
    return pa.table(columns)


def _write(table: pa.Table, config: Config, seconds: float) -> None:
    folder = Location.of(config.output) / "tags"
    tagged = table.filter(pc.is_null(table["reason"])).drop_columns(["reason", "message"])
    failed = table.filter(pc.is_valid(table["reason"])).select(["path", "reason", "message"])
    (folder / "tags.parquet").write_table(tagged)
    (folder / "tags.csv").write_bytes(_csv(tagged))
    (folder / "failures.csv").write_bytes(_csv(failed))
    console = cli.console()
    music = pc.sum(tagged["seconds"]).as_py() or 0
    console.print(f"tag: {len(tagged)} files tagged, {len(failed)} not readable, in {seconds:.0f} s -> {folder}")
    console.print(f"  {music / 3600:.2f} hours of music, {music / max(seconds, 1e-9):.0f} times real time")
    for line in _summary(tagged):
        console.print(line)


def _summary(tagged: pa.Table) -> Iterator[str]:
    counts = Counter(tagged["genre"].to_pylist())
    for genre, number in counts.most_common():
        yield f"  {number:>6} {genre}"


def _csv(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(table, buffer)
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(cli.main("tag", __doc__, run))
