"""The tag table of a collection: one row for each file that was tagged, kept on disk so that a run can resume.

    tags/
      models.json              the models whose tags these are; others are refused
      parts/*.parquet          rows of the current run; removed when it ends
      ledger.parquet           the tag table: content, every probability and the timeline of each file, or a reason
      tags.parquet, .csv       one row for each readable file: its genre and the next best genres
      timeline.parquet, .csv   one row for each clip of these files
      failures.csv             one row for each file that could not be read, with the reason

A file is done when the tag table has its path with the same size and time, or its content under another path.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from genre.config import fingerprint
from genre.errors import ArtifactError
from genre.model.saved_model import SavedEnsemble
from genre.storage import Location
from genre.tagging.audio_files import FILES, file_row
from genre.tagging.result_tables import csv_bytes, tags_table, timeline_table

if TYPE_CHECKING:
    from genre.tagging.tagger import Tagger, Tags

_PROBABILITIES = pa.list_(pa.float32())  # calibrated, in the order of the classes
_MOMENT = pa.struct([("start", pa.float32()), ("end", pa.float32()), ("probabilities", _PROBABILITIES)])
SCHEMA = pa.schema(
    [
        *FILES,
        ("content", pa.string()),  # SHA-256; null when the file could not be opened
        ("seconds", pa.float64()),
        ("probabilities", _PROBABILITIES),
        ("timeline", pa.list_(_MOMENT)),
        ("reason", pa.string()),  # null: the file has tags
        ("message", pa.string()),
    ]
)


class TagTable:
    """The rows of OUTPUT/tags, and the files written from them."""

    def __init__(self, folder: Location, ensemble: SavedEnsemble) -> None:
        """Reserve `folder` for these models. Raises `ArtifactError` when it holds tags of other models."""
        self.folder, self._ensemble = folder, ensemble
        models = folder / "models.json"
        expected = fingerprint({"weights": ensemble.weights})
        if models.exists() and (owner := models.read_json()).get("fingerprint") != expected:
            raise ArtifactError(
                f"{folder} holds tags of {', '.join(owner.get('models', ['other models']))}; "
                "choose another output for this model, or delete it"
            )
        if not models.exists():
            models.write_json({"fingerprint": expected, "models": ensemble.addresses})
        self._rows = self._read()
        self._added: list[pa.Table] = []

    @property
    def contents(self) -> dict[str, int]:
        """Content and size of every file that has a row."""
        known = self._rows.filter(pc.is_valid(self._rows["content"]))
        return dict(zip(known["content"].to_pylist(), known["size"].to_pylist(), strict=True))

    def pending(self, files: pa.Table, retry_failures: bool = False) -> pa.Table:
        """Return the rows of `files` that are not done.

        Files that could not be opened are always pending, other failures only with `retry_failures`.
        """
        done = self._rows.filter(pc.is_valid(self._rows["content"]))
        if retry_failures:
            done = done.filter(pc.is_null(done["reason"]))
        return files.join(done.select(FILES.names), keys=FILES.names, join_type="left anti").sort_by("path")

    def add(self, rows: pa.Table) -> None:
        """Save rows on disk. A row with neither tags nor a reason gets those of the file with the same content."""
        rows = self._resolved(rows)
        (self.folder / "parts" / f"{uuid.uuid4().hex}.parquet").write_table(rows)
        self._added.append(rows)

    def refresh(self, paths: Sequence[str]) -> None:
        """Record that this job changed the files at `paths`, so that it does not tag them again."""
        changed = set(paths)
        rows = self._rows.to_pylist()
        for row in rows:
            if row["path"] in changed:
                row |= file_row(Location.of(row["path"])) | {"content": _content(row["path"])}
        if changed:
            (self.folder / "ledger.parquet").write_table(pa.Table.from_pylist(rows, SCHEMA))

    def finish(self, files: pa.Table, inputs: Location, top_k: int) -> pa.Table:
        """Write all tables; return the rows of `files`. Rows of files that no longer exist in `inputs` are removed."""
        rows = _newest(pa.concat_tables([self._rows, *self._added]))
        below = pc.starts_with(rows["path"], f"{str(inputs).rstrip('/')}/")
        listed = pc.is_in(rows["path"], files["path"].combine_chunks())
        self._rows, self._added = rows.filter(pc.or_(listed, pc.invert(below))).sort_by("path"), []
        (self.folder / "ledger.parquet").write_table(self._rows)
        self._write_results(top_k)
        (self.folder / "parts").delete()
        return self._rows.filter(pc.is_in(self._rows["path"], files["path"].combine_chunks()))

    def _write_results(self, top_k: int) -> None:
        tagged = self._rows.filter(pc.is_null(self._rows["reason"]))
        failed = self._rows.filter(pc.is_valid(self._rows["reason"]))
        classes, calibration = self._ensemble.classes, self._ensemble.calibration
        tables = {
            "tags": tags_table(tagged, classes, calibration, top_k),
            "timeline": timeline_table(tagged, classes, top_k),
        }
        for name, table in tables.items():
            (self.folder / f"{name}.parquet").write_table(table)
            (self.folder / f"{name}.csv").write_bytes(csv_bytes(table))
        (self.folder / "failures.csv").write_bytes(csv_bytes(failed.select(["path", "reason", "message"])))

    def _read(self) -> pa.Table:
        locations = [self.folder / "ledger.parquet", *(self.folder / "parts").files(".parquet")]
        tables = [location.read_table().cast(SCHEMA) for location in locations if location.exists()]
        return _newest(pa.concat_tables(tables)) if tables else SCHEMA.empty_table()

    def _resolved(self, rows: pa.Table) -> pa.Table:
        copies = pc.and_(pc.is_null(rows["probabilities"]), pc.is_null(rows["reason"]))
        if not pc.any(copies).as_py():
            return rows
        same_content = pc.is_in(self._rows["content"], rows["content"].combine_chunks())
        known = {row["content"]: row for row in self._rows.filter(same_content).to_pylist()}
        resolved = [
            known[row["content"]] | {name: row[name] for name in FILES.names} if is_copy else row
            for row, is_copy in zip(rows.to_pylist(), copies.to_pylist(), strict=True)
        ]
        return pa.Table.from_pylist(resolved, SCHEMA)


def tag_files(tagger: Tagger, files: pa.Table, known: dict[str, int]) -> pa.Table:
    """Return rows of the tag table for `files`.

    A file whose content (and size) is `known` is not decoded; its row has neither tags nor a reason.
    """
    sizes = set(known.values())
    rows: list[dict[str, Any]] = files.select(FILES.names).to_pylist()
    unknown = []
    for row in rows:
        content = _content(row["path"]) if row["size"] in sizes else None
        if content in known:
            row["content"] = content
        else:
            unknown.append(row)
    for row, tags in zip(unknown, tagger.tag([row["path"] for row in unknown]), strict=True):
        row |= tag_columns(tags, tagger.classes)
    return pa.Table.from_pylist(rows, SCHEMA)


def tag_columns(tags: Tags, classes: list[str]) -> dict[str, Any]:
    """Return the columns of the tag table that hold the tags of a file, or its failure."""
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


def _in_order(genres: list[tuple[str, float]], classes: list[str]) -> list[float]:
    by_name = dict(genres)
    return [by_name[name] for name in classes]


def _content(path: str) -> str | None:
    try:
        return Location.of(path).sha256()
    except OSError:
        return None


def _newest(table: pa.Table) -> pa.Table:
    """Return the last row of each path."""
    numbered = table.append_column("row", pa.array(range(len(table)), pa.int64()))
    return table.take(numbered.group_by("path").aggregate([("row", "max")])["row_max"])
