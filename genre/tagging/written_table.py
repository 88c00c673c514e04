"""OUTPUT/tags/written.csv: the files in which genres were to be written, what was done, and how to take it back.

The table is saved before the first file is changed, every few seconds, and at the end, so that a killed job can be
undone as well. It keeps what earlier runs wrote: the column `undo` leads to the file as it was before the first run. An
undo removes our values from that column.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre.errors import ArtifactError, first_line, one_line
from genre.features.columns import combined, replaced
from genre.spreadsheet import csv_bytes, read_csv, write_csv
from genre.storage import Location
from genre.tagging import file_tags
from genre.tagging.file_tags import Action, Change, Result
from genre.tagging.tag_fields import Field

NAME, UNDONE_NAME = "written.csv", "undone.csv"
SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("genre", pa.string()),  # several separated by "; "
        ("field", pa.string()),
        ("action", pa.string()),
        ("before", pa.string()),
        ("message", pa.string()),
        ("undo", pa.string()),  # a `Change` as JSON; null where nothing of ours is in the field
    ]
)
_RESULT = pa.schema([SCHEMA.field(name) for name in ("action", "before", "message", "undo")])
_BATCH = 10_000  # files that are objects at a time
_WRITTEN_BATCH = 10  # files that are written between two looks at the clock
_SAVE_SECONDS = 10.0


class _Row(TypedDict):
    """A file in which genres are to be written, or to be taken back."""

    path: str
    genres: list[str]  # to plan
    is_label: bool  # to plan: whether a person gave the genres
    undo: str | None  # as in `SCHEMA`


class Plan(NamedTuple):
    """What would be written, and what earlier runs wrote: how to take it back, and the rows that stay in the table."""

    rows: pa.Table  # with the columns of `SCHEMA`
    undo: pa.Array  # of earlier runs, for each row; null where they wrote nothing
    kept: pa.Table  # of other files and fields


def plan(folder: Location, genres: pa.Table, field: Field, overwrite: bool) -> Plan:
    """Return what would be written into the files of `genres` (path, genres, is_label), after what is in `folder`."""
    file, genres = folder / NAME, genres.sort_by("path")
    undo, kept = _of_earlier_runs(file, combined(genres["path"]), field)
    results = _results(genres.append_column("undo", pa.chunked_array([undo])), lambda row: _plan(row, field, overwrite))
    columns = {
        "path": combined(genres["path"]),
        "genre": pc.binary_join(combined(genres["genres"]), "; "),
        "field": pa.array([field] * len(genres), pa.string()),
    }
    planned = pa.table(columns | dict(zip(_RESULT.names, results.columns, strict=True))).cast(SCHEMA)
    return Plan(planned, undo, kept)


def preview(folder: Location, planned: Plan) -> None:
    """Save what would be written. Nothing is ours by it: a person may write the same before any job does."""
    _save(folder / NAME, replaced(planned.rows, "undo", planned.undo), planned.kept)


def write(folder: Location, planned: Plan) -> pa.Table:
    """Write the genres as planned, save what was done, and return it.

    It is saved also in between: of the files that a killed job wrote last, only the fields can be restored.
    """
    done: list[pa.RecordBatch] = []

    def save() -> pa.Table:
        written = _with_results(planned.rows, done)
        _save(folder / NAME, written, planned.kept)
        return written

    save()  # before the first file is changed
    next_save = time.monotonic() + _SAVE_SECONDS
    try:
        for results in _batches(_to_write(planned.rows), _WRITTEN_BATCH, _write):
            done.append(results)
            if (started := time.monotonic()) > next_save:
                save()
                # a long table may take most of the time otherwise
                next_save = time.monotonic() + max(_SAVE_SECONDS, 20 * (time.monotonic() - started))
    finally:
        written = save()
    return written


def undo(file: Location) -> pa.Table:
    """Take back what the table at `file` lists. Save in undone.csv next to it what was done, and return it.

    The table keeps its rows, without the values of ours that are gone from their files: a person may write the same.
    Raises `ArtifactError` when it is no such table.
    """
    table = _read(file)
    rows = _latest_first(table.filter(pc.is_valid(table["undo"])))
    results = _results(rows, lambda row: _with_change(row, file_tags.undo))
    undone = rows.select(["path", "field"])
    for name in ("action", "before", "message"):
        undone = undone.append_column(name, results[name])
    (file.parent / UNDONE_NAME).write_bytes(csv_bytes(undone))
    others = table.filter(pc.is_null(table["undo"]))
    _save(file, pa.concat_tables([replaced(rows, "undo", results["undo"]), others]), SCHEMA.empty_table())
    return undone


def _latest_first(rows: pa.Table) -> pa.Table:
    """Return the rows with those of each file together, the field that was written last first.

    Each delta restores the bytes that the delta of the field before it applies to, so the last one has to be taken back
    first. The order of the table does not say which was last: it is that of the runs that listed the files, also where
    a later run had nothing to write.
    """
    places: dict[str, list[int]] = {}
    for place, path in enumerate(rows["path"].to_pylist()):
        places.setdefault(path, []).append(place)
    for path, fields in places.items():
        if len(fields) > 1:
            places[path] = _by_delta({place: rows["undo"][place].as_py() for place in fields})
    return rows.take(pa.array([place for fields in places.values() for place in fields], pa.int64()))


def _by_delta(texts: dict[int, str]) -> list[int]:
    """Return the places of a file's changes, so that each delta restores the bytes to which the next applies."""
    deltas = {}
    for place, text in texts.items():
        with contextlib.suppress(ValueError):  # it was altered, which the result of the row will say
            if delta := Change.from_json(text).delta:
                deltas[place] = delta
    order: list[int] = []
    while deltas:
        restored = {delta.before for delta in deltas.values()}
        last = next((place for place, delta in deltas.items() if delta.after not in restored), next(iter(deltas)))
        order.append(last)
        del deltas[last]
    return order + [place for place in texts if place not in order]


def _plan(row: _Row, field: Field, overwrite: bool) -> Result:
    if not row["undo"]:
        return file_tags.plan(row["path"], row["genres"], field, overwrite, None, row["is_label"])

    def plan_again(path: str, earlier: Change) -> Result:
        result = file_tags.plan(path, row["genres"], field, overwrite, earlier, row["is_label"])
        # a file that cannot be read now can still be taken back later
        return replace(result, change=earlier) if result.action == Action.FAILED else result

    return _with_change(row, plan_again)


def _write(row: _Row) -> Result:
    return _with_change(row, file_tags.write)


def _with_change(row: _Row, action: Callable[[str, Change], Result]) -> Result:
    text = row["undo"] or ""
    try:
        change = Change.from_json(text)
    except ValueError:
        return Result(Action.FAILED, message=f"the column undo was altered: {text[:80]}")
    return action(row["path"], change)


def _results(rows: pa.Table, action: Callable[[_Row], Result]) -> pa.Table:
    """Return the result of `action` for each row, as columns of `_RESULT`."""
    return pa.Table.from_batches(list(_batches(rows.to_batches(), _BATCH, action)), _RESULT)


def _batches(rows: Iterable[pa.RecordBatch], size: int, action: Callable[[_Row], Result]) -> Iterator[pa.RecordBatch]:
    """Yield the results of `action` for at most `size` rows at a time, as columns of `_RESULT`."""
    for batch in rows:
        for begin in range(0, len(batch), size):
            results = []
            for row in batch.slice(begin, size).to_pylist():
                result = action(row)
                undo = row["undo"] if result.action == Action.FAILED else None
                undo = result.change.to_json() if result.change else undo
                results.append(
                    {"action": result.action, "before": result.before, "message": result.message, "undo": undo}
                )
            yield pa.RecordBatch.from_pylist(results, _RESULT)


def _to_write(planned: pa.Table) -> Iterator[pa.RecordBatch]:
    """Yield the rows whose file is to be written, some at a time: a long table has no second copy."""
    for batch in planned.to_batches(max_chunksize=_BATCH):
        yield batch.filter(pc.equal(batch["action"], Action.WOULD_WRITE.value))


def _with_results(planned: pa.Table, done: list[pa.RecordBatch]) -> pa.Table:
    """Return the table with the results of the first rows to write; `before` stays as planned."""
    results = pa.Table.from_batches(done, _RESULT)
    places = np.flatnonzero(pc.equal(planned["action"], Action.WOULD_WRITE.value))[: len(results)]
    is_done = np.zeros(len(planned), dtype=bool)
    is_done[places] = True
    for name in ("action", "message", "undo"):
        column = pc.replace_with_mask(planned[name], pa.array(is_done), combined(results[name]))
        planned = replaced(planned, name, column)
    return planned


def _read(file: Location) -> pa.Table:
    """Return the table at `file`. A text that a spreadsheet would run keeps the apostrophe in front of it."""
    try:
        with file.filesystem.open_input_stream(file.path) as stream:
            return read_csv(stream, SCHEMA.names).cast(SCHEMA)
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be read ({one_line(error)}); name the written.csv of tag") from None
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise ArtifactError(
            f"{file}: not the written.csv of this version of tag ({first_line(error)}); name another"
        ) from None


def _of_earlier_runs(file: Location, paths: pa.Array, field: Field) -> tuple[pa.Array, pa.Table]:
    """Return the column `undo` of these files and this field, (paths,), and the rows of others that can be undone."""
    earlier = _read(file) if file.exists() else SCHEMA.empty_table()
    is_listed = pc.and_(pc.equal(earlier["field"], field), pc.is_in(earlier["path"], value_set=paths))
    ours = earlier.select(["path", "undo"]).filter(is_listed)
    undo = combined(ours["undo"]).take(pc.index_in(paths, value_set=combined(ours["path"])))
    return undo, earlier.filter(pc.and_(pc.is_valid(earlier["undo"]), pc.invert(is_listed)))


def _save(file: Location, rows: pa.Table, kept: pa.Table) -> None:
    """Write `rows` and the rows of earlier runs that are `kept`."""
    with file.open_output() as stream:
        write_csv(pa.concat_tables([rows, kept]), stream)
