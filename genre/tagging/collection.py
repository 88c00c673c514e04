"""The tags of a collection on disk: what is done, what is to do, and the tables people read.

    tags/
      models.json              the models that answer here; others are refused
      parts/*.parquet          what the present run has done so far; gone when it ends
      ledger.parquet           one row a file: its content, every probability, the timeline, or a reason
      tags.parquet, .csv       one row a file that could be read: its genre and the next best ones
      timeline.parquet, .csv   one row a clip of each of them
      failures.csv             one row a file that could not be read, with the reason

A file is done when the ledger has its path with the same size and time, or its content under another name.
"""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from genre import corpora
from genre.config import fingerprint
from genre.errors import ArtifactError
from genre.features import Float32
from genre.model import calibration, saved_model
from genre.model.calibration import UNKNOWN, Calibration
from genre.model.saved_model import SavedModel
from genre.spreadsheet import FORMULA
from genre.storage import Location

if TYPE_CHECKING:
    from genre.tagging.tagger import Tagger, Tags

FILES = pa.schema([("path", pa.string()), ("size", pa.int64()), ("modified", pa.float64())])
_ROW = pa.list_(pa.float32())  # calibrated probabilities in the order of the classes
LEDGER = pa.schema(
    [
        *FILES,
        ("content", pa.string()),  # SHA-256; null when the file could not be opened
        ("seconds", pa.float64()),
        ("probabilities", _ROW),
        ("timeline", pa.list_(pa.struct([("start", pa.float32()), ("end", pa.float32()), ("probabilities", _ROW)]))),
        ("reason", pa.string()),  # null: the file has tags
        ("message", pa.string()),
    ]
)


@dataclass(frozen=True)
class Jury:
    """The models that answer, as far as that is known without loading their weights."""

    models: list[SavedModel]
    calibration: Calibration

    @classmethod
    def of(cls, places: Sequence[Location], precision: float) -> Jury:
        """Read the models' cards. Raises `ArtifactError` for a missing or altered one, or when they do not fit."""
        models = saved_model.read_together(places)
        return cls(models, calibration.fit([model.answers for model in models], precision))

    @property
    def classes(self) -> list[str]:
        return self.models[0].card.classes

    @property
    def architectures(self) -> list[str]:
        return [model.card.architecture for model in self.models]

    @property
    def weights(self) -> list[str]:
        """SHA-256 of each model's weights."""
        return [model.weights for model in self.models]

    @property
    def addresses(self) -> list[str]:
        return [str(model.place) for model in self.models]

    def check(self) -> None:
        """Before a cluster starts for them: raise `ArtifactError` when weights are missing or altered."""
        for model in self.models:
            if model.is_exported:  # one file, which was read already
                continue
            path = model.place / "weights.safetensors"
            if not path.exists():
                raise ArtifactError(f"{path} is missing; copy the whole folder again, or train the model again")
            if path.sha256() != model.weights:
                raise ArtifactError(f"{path}: not the weights that model.json lists; copy the whole folder again")


class Ledger:
    """What is known of the files of OUTPUT/tags."""

    def __init__(self, folder: Location, jury: Jury) -> None:
        """Claim `folder` for these models. Raises `ArtifactError` when it holds tags of others."""
        self._folder, self._jury = folder, jury
        claim = folder / "models.json"
        mine = fingerprint({"weights": jury.weights})
        if claim.exists() and (found := claim.read_json()).get("fingerprint") != mine:
            raise ArtifactError(
                f"{folder} holds tags of {', '.join(found.get('models', ['other models']))}; "
                "choose another output for this model, or delete it"
            )
        if not claim.exists():
            claim.write_json({"fingerprint": mine, "models": jury.addresses})
        self._rows = self._read()
        self._added: list[pa.Table] = []

    @property
    def contents(self) -> dict[str, int]:
        """Content and size of every file that has a row."""
        known = self._rows.filter(pc.is_valid(self._rows["content"]))
        return dict(zip(known["content"].to_pylist(), known["size"].to_pylist(), strict=True))

    def pending(self, files: pa.Table, retry_failures: bool = False) -> pa.Table:
        """Those of `files` that are not done. What could not be opened is tried again, other failures when told."""
        done = self._rows.filter(pc.is_valid(self._rows["content"]))
        if retry_failures:
            done = done.filter(pc.is_null(done["reason"]))
        return files.join(done.select(FILES.names), keys=FILES.names, join_type="left anti").sort_by("path")

    def add(self, rows: pa.Table) -> None:
        """Keep rows for good. A row without an answer and a reason has the content of a file that is known."""
        rows = self._resolved(rows)
        (self._folder / "parts" / f"{uuid.uuid4().hex}.parquet").write_table(rows)
        self._added.append(rows)

    def refresh(self, paths: Sequence[str]) -> None:
        """Take note that the files at `paths` were changed by this job, so that it does not tag them again."""
        changed = set(paths)
        rows = self._rows.to_pylist()
        for row in rows:
            if row["path"] in changed:
                row |= file_row(Location.of(row["path"])) | {"content": _content(row["path"])}
        if changed:
            (self._folder / "ledger.parquet").write_table(pa.Table.from_pylist(rows, LEDGER))

    def finish(self, files: pa.Table, inputs: Location, top_k: int) -> pa.Table:
        """Write the tables; returns the ledger rows of `files`. Files that are gone from `inputs` are forgotten."""
        rows = _newest(pa.concat_tables([self._rows, *self._added]))
        below = pc.starts_with(rows["path"], f"{str(inputs).rstrip('/')}/")
        listed = pc.is_in(rows["path"], files["path"].combine_chunks())
        self._rows, self._added = rows.filter(pc.or_(listed, pc.invert(below))).sort_by("path"), []
        good = self._rows.filter(pc.is_null(self._rows["reason"]))
        failed = self._rows.filter(pc.is_valid(self._rows["reason"]))
        (self._folder / "ledger.parquet").write_table(self._rows)
        for name, build in (("tags", tags_table), ("timeline", timeline_table)):
            table = build(good, self._jury, top_k)
            (self._folder / f"{name}.parquet").write_table(table)
            (self._folder / f"{name}.csv").write_bytes(csv_bytes(table))
        (self._folder / "failures.csv").write_bytes(csv_bytes(failed.select(["path", "reason", "message"])))
        (self._folder / "parts").delete()
        return self._rows.filter(pc.is_in(self._rows["path"], files["path"].combine_chunks()))

    def _read(self) -> pa.Table:
        places = [self._folder / "ledger.parquet", *(self._folder / "parts").files(".parquet")]
        tables = [place.read_table().cast(LEDGER) for place in places if place.exists()]
        return _newest(pa.concat_tables(tables)) if tables else LEDGER.empty_table()

    def _resolved(self, rows: pa.Table) -> pa.Table:
        copies = pc.and_(pc.is_null(rows["probabilities"]), pc.is_null(rows["reason"]))
        if not pc.any(copies).as_py():
            return rows
        wanted = pc.is_in(self._rows["content"], rows["content"].combine_chunks())
        known = {row["content"]: row for row in self._rows.filter(wanted).to_pylist()}
        whole = [
            known[row["content"]] | {name: row[name] for name in FILES.names} if copy else row
            for row, copy in zip(rows.to_pylist(), copies.to_pylist(), strict=True)
        ]
        return pa.Table.from_pylist(whole, LEDGER)


def list_files(inputs: str) -> pa.Table:
    """Every audio file below `inputs`, or `inputs` itself when it is one. Raises `ConfigError` when there is none."""
    if (song := single_file(inputs)) is not None:
        return pa.Table.from_pylist([file_row(song)], FILES)
    found = list(corpora.walk(corpora.open_folder(inputs, "inputs"), "inputs"))
    columns = [[file.path for file in found], [file.size for file in found], [file.modified for file in found]]
    return pa.table(columns, schema=FILES)


def single_file(inputs: str) -> Location | None:
    """The place that `inputs` names when it is a file, not a folder."""
    place = corpora.open_root(inputs, "inputs")
    return place if place.exists() and not place.is_folder() else None


def file_row(place: Location) -> dict[str, Any]:
    """path, size and modified of a file that is there, the same as a walk of its folder finds."""
    if place.is_local:
        status = os.stat(place.path)
        return {"path": str(place), "size": status.st_size, "modified": status.st_mtime}
    size, modified = corpora.size_and_time(place.filesystem.get_file_info(place.path))
    return {"path": str(place), "size": size, "modified": modified}


def answer(tagger: Tagger, files: pa.Table, known: dict[str, int]) -> pa.Table:
    """Ledger rows of `files`. One whose content (with its size) is `known` is not decoded, and gets no answer."""
    sizes = set(known.values())
    rows: list[dict[str, Any]] = files.select(FILES.names).to_pylist()
    fresh = []
    for row in rows:
        content = _content(row["path"]) if row["size"] in sizes else None
        if content in known:
            row["content"] = content
        else:
            fresh.append(row)
    for row, tags in zip(fresh, tagger.tag([row["path"] for row in fresh]), strict=True):
        row |= answer_row(tags, tagger.classes)
    return pa.Table.from_pylist(rows, LEDGER)


def answer_row(tags: Tags, classes: list[str]) -> dict[str, Any]:
    """What the ledger keeps of an answer, or of a failure."""
    if tags.reason is not None:
        return {"content": _content(tags.path), "reason": tags.reason, "message": tags.message}
    timeline = [
        {"start": moment.start, "end": moment.end, "probabilities": _in_order(moment.genres, classes)}
        for moment in tags.timeline
    ]
    return {
        "reason": None,
        "content": tags.content,
        "seconds": tags.seconds,
        "probabilities": _in_order(tags.genres, classes),
        "timeline": timeline,
    }


def tags_table(rows: pa.Table, jury: Jury, top_k: int) -> pa.Table:
    """path, genre (or unknown), its probability, best (always a genre), the next best ones, seconds."""
    probabilities = np.array(rows["probabilities"].to_pylist(), np.float32).reshape(len(rows), len(jury.classes))
    ranked = _ranked_columns(probabilities, jury.classes, top_k)
    best = ranked.pop("genre")
    believed = [jury.calibration.believes(p) for p in ranked["probability"].to_pylist()]
    named = [genre if sure else UNKNOWN for genre, sure in zip(best.to_pylist(), believed, strict=True)]
    first = {"path": rows["path"], "genre": pa.array(named, pa.string()), "probability": ranked.pop("probability")}
    return pa.table(first | {"best": best} | ranked | {"seconds": rows["seconds"]})


def timeline_table(rows: pa.Table, jury: Jury, top_k: int) -> pa.Table:
    """path, start and end in seconds, and the best genres of each clip."""
    moments = [
        (row["path"], moment) for row in rows.select(["path", "timeline"]).to_pylist() for moment in row["timeline"]
    ]
    probabilities = np.array([moment["probabilities"] for _, moment in moments], np.float32)
    columns = {
        "path": pa.array([path for path, _ in moments], pa.string()),
        "start": pa.array([moment["start"] for _, moment in moments], pa.float32()),
        "end": pa.array([moment["end"] for _, moment in moments], pa.float32()),
    }
    return pa.table(
        columns | _ranked_columns(probabilities.reshape(len(moments), len(jury.classes)), jury.classes, top_k)
    )


def csv_bytes(table: pa.Table) -> bytes:
    """`table` for people: text that a spreadsheet would run as a formula gets an apostrophe in front."""
    for number, column in enumerate(table.columns):
        if pa.types.is_string(column.type):
            runs = pc.match_substring_regex(column, FORMULA)
            table = table.set_column(
                number, table.field(number), pc.if_else(runs, pc.binary_join_element_wise("'", column, ""), column)
            )
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(table, buffer)
    return buffer.getvalue()


def _ranked_columns(probabilities: Float32, classes: list[str], top_k: int) -> dict[str, pa.Array]:
    """genre, probability, genre_2, probability_2, ... of rows of `probabilities` (rows, classes)."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    columns: dict[str, pa.Array] = {}
    for place in range(min(top_k, len(classes))):
        suffix = "" if place == 0 else f"_{place + 1}"
        which = order[:, place]
        columns[f"genre{suffix}"] = pa.array([classes[index] for index in which], pa.string())
        columns[f"probability{suffix}"] = pa.array(probabilities[np.arange(len(which)), which], pa.float32())
    return columns


def _in_order(genres: list[tuple[str, float]], classes: list[str]) -> list[float]:
    by_name = dict(genres)
    return [by_name[name] for name in classes]


def _content(path: str) -> str | None:
    try:
        return Location.of(path).sha256()
    except OSError:
        return None


def _newest(table: pa.Table) -> pa.Table:
    """The last row of each path."""
    numbered = table.append_column("row", pa.array(range(len(table)), pa.int64()))
    return table.take(numbered.group_by("path").aggregate([("row", "max")])["row_max"])
