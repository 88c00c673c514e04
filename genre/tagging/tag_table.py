"""The tag table of a collection: one row for each file that was tagged, kept on disk so that a run can resume.

    tags/
      models.json              the models whose tags these are; others are refused, or replace them
      parts/*.parquet          rows of the current run; removed when it ends
      ledger.parquet           the tag table: content, every probability, the timeline and the embedding of each file,
                               or a reason
      tags.parquet, .csv, .jsonl   one row for each readable file: its genre and the next best genres
      timeline.parquet, .csv   one row for each clip of these files
      failures.csv             one row for each file that could not be read, with the reason

A file is done when the tag table has its path with the same size and time, or its content under another path.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre.arrays import Bools
from genre.corpora import MISSING
from genre.errors import ArtifactError
from genre.features.columns import combined, last_rows, replaced
from genre.features.preparing.ledger import is_same_file
from genre.model.calibration import UNKNOWN
from genre.model.saved_model import SavedEnsemble
from genre.storage import Location, faults
from genre.tagging import tag_owner
from genre.tagging.albums import Albums, read_numbers
from genre.tagging.audio_files import FILES, file_row
from genre.tagging.known_contents import KnownContents
from genre.tagging.result_tables import Predictions, ResultFiles, matrix
from genre.tagging.row_files import RowFiles
from genre.tagging.tag_rows import SCHEMA, content_of

_KEYS = [*FILES.names, "content", "reason", "is_embedded", "has_clips"]
_INDEX = pa.schema([*(SCHEMA.field(name) for name in _KEYS), ("file", pa.int32()), ("row", pa.int64())])
_CHUNK = 16_384  # rows that are in memory at a time
_log = logging.getLogger(__name__)


class TagTable:
    """The rows of OUTPUT/tags, and the files written from them.

    Memory holds an index of the rows: path, size, time, content and reason of each, and where it is. Probabilities and
    timelines stay on disk.
    """

    def __init__(
        self,
        folder: Location,
        ensemble: SavedEnsemble,
        embeds: bool = False,
        clips: bool = False,
        replace: bool = False,
    ) -> None:
        """Reserve `folder` for these models. Raises `ArtifactError` when it holds tags of others, unless `replace`.

        If `embeds`, a file that has tags and no embedding is not done; if `clips`, one without those of its clips.
        """
        self.folder, self._ensemble, self._embeds, self._clips = folder, ensemble, embeds, clips
        tag_owner.reserve(folder, ensemble, replace)
        self._files = RowFiles(SCHEMA)
        self._index = _newest(self._read_index())
        self._added: list[pa.Table] = []

    def check_present(self, files: pa.Table, inputs: Location | None) -> None:
        """Raise `StorageError` when tagged files are away together with their folder, as with a disk.

        Without this error the rows of files below `inputs` that are not among `files` would be removed, and those of
        `files` that are missing be replaced by failures. To be called as soon as `files` are listed.
        """
        tagged = self._index["path"].filter(pc.is_null(self._index["reason"]))
        missing = files["path"].filter(pc.equal(files["size"], MISSING))
        missing = tagged.filter(pc.is_in(tagged, combined(missing))).to_pylist()
        unlisted = tagged.filter(_is_gone(tagged, files, inputs)).to_pylist() if inputs else []
        faults.check_present(map(Location.of, missing), map(Location.of, unlisted), "files", "tagged")

    def known(self, files: pa.Table) -> KnownContents:
        """Return the contents that have a row and the size of one of `files`."""
        same_size = pc.is_in(self._index["size"], value_set=combined(files["size"]))
        rows = self._index.filter(pc.and_(same_size, self._is_done()))
        return KnownContents.of(rows["content"], rows["size"])

    def pending(self, files: pa.Table, retry_failures: bool = False) -> pa.Table:
        """Return the rows of `files` that are not done.

        Files that could not be opened are always pending, other failures only with `retry_failures`.
        """
        done = self._index.filter(self._is_done())
        if retry_failures:
            done = done.filter(pc.is_null(done["reason"]))
        places = pc.index_in(files["path"], value_set=combined(done["path"]))
        earlier = done.select(["size", "modified"]).take(places)
        return files.filter(pc.invert(is_same_file(files, earlier))).sort_by("path")

    def _is_done(self) -> pa.ChunkedArray:
        """Return for each row of the index whether its file was read and has all that it should have."""
        done = pc.is_valid(self._index["content"])
        failed = pc.is_valid(self._index["reason"])
        for wanted, name in ((self._embeds, "is_embedded"), (self._clips, "has_clips")):
            if wanted:
                done = pc.and_(done, pc.or_(self._index[name], failed))
        return done

    def add(self, rows: pa.Table) -> None:
        """Save rows on disk. A row with neither tags nor a reason gets those of the file with the same content."""
        rows = self._resolved(rows if self._clips else _without_clips(rows))
        file = self.folder / "parts" / f"{len(self._added):06d}-{uuid.uuid4().hex}.parquet"
        file.write_table(rows)
        self._added.append(_index_of(rows, self._files.add(file)))

    def row(self, path: str) -> dict[str, Any]:
        """Return the row of a file after `finish`."""
        rows = self._take(self._index.filter(pc.equal(self._index["path"], path)))
        only: dict[str, Any] = rows.to_pylist()[0]
        return only

    def rows(self) -> Iterator[pa.Table]:
        """Yield all rows after `finish`, sorted by path, some at a time."""
        for begin in range(0, len(self._index), _CHUNK):
            yield self._take(self._index.slice(begin, _CHUNK))

    def refresh(self, paths: pa.ChunkedArray) -> None:
        """Record that this job changed the files at `paths`, so that it does not tag them again."""
        refresh(self.folder, paths)
        self._use_ledger()

    def finish(
        self, files: pa.Table, inputs: Location | None, top_k: int, with_albums: bool = False, values: int = 1
    ) -> pa.Table:
        """Write all tables. Rows of files below `inputs` that no longer exist are removed.

        Return path, seconds, reason, message, genre (null where there is a reason) and genres (a list: what to write
        into the file, at most `values`) of each of `files`.
        """
        index = _newest(pa.concat_tables([self._index, *self._added]))
        if inputs:
            index = index.filter(pc.invert(_is_gone(index["path"], files, inputs)))
        self._index = index.sort_by("path")
        self._added = []
        results = self._write(top_k, self._albums(files) if with_albums else None, values)
        self._use_ledger()
        (self.folder / "parts").delete()
        return results.filter(pc.is_in(results["path"], value_set=combined(files["path"])))

    def _albums(self, files: pa.Table) -> Albums:
        """Return the predictions of the albums that the files of the index are in, by their places in it.

        `files` are those of this job.
        """
        classes = len(self._ensemble.classes)
        listed = files.filter(pc.not_equal(files["size"], MISSING))
        present = pc.is_in(self._index["path"], value_set=combined(listed["path"]))
        numbers = read_numbers(self._index["path"].to_pylist(), present.to_pylist())
        albums = Albums(numbers, classes, self._ensemble.calibration)
        for begin in range(0, len(self._index), _CHUNK):
            rows = self._take(self._index.slice(begin, _CHUNK))
            readable = pc.is_null(rows["reason"])
            tracks = begin + np.flatnonzero(readable.to_numpy())
            albums.add(tracks, matrix(combined(rows.filter(readable)["probabilities"]), classes))
        return albums

    def _write(self, top_k: int, albums: Albums | None, values: int) -> pa.Table:
        """Write the ledger and the results from the rows of the index, in its order."""
        results: list[pa.Table] = []
        classes, calibration = self._ensemble.classes, self._ensemble.calibration
        with contextlib.ExitStack() as stack:
            ledger = stack.enter_context((self.folder / "ledger.parquet").table_writer(SCHEMA))
            outputs = ResultFiles(stack, self.folder, classes, top_k)
            for begin in range(0, max(1, len(self._index)), _CHUNK):
                rows = self._take(self._index.slice(begin, _CHUNK))
                ledger.write_table(rows)
                readable = pc.is_null(rows["reason"])
                tagged = rows.filter(readable)
                predictions = Predictions.of(matrix(combined(tagged["probabilities"]), len(classes)), calibration)
                mask = readable.to_numpy()
                if albums:
                    predictions = predictions.with_albums(albums, begin + np.flatnonzero(mask))
                outputs.write(tagged, predictions, rows.filter(pc.invert(readable)))
                results.append(_results(rows, predictions.genres(classes, values), mask))
        return pa.concat_tables(results)

    def _take(self, index: pa.Table) -> pa.Table:
        return self._files.take(index["file"].to_numpy(), index["row"].to_numpy())

    def _read_index(self) -> pa.Table:
        """Return the index of all rows on disk. The files of a truncated table are tagged again."""
        tables = [_INDEX.empty_table()]
        for location in (self.folder / "ledger.parquet", *(self.folder / "parts").files(".parquet")):
            if not location.exists():
                continue
            try:
                keys = location.read_table(_KEYS)
            except ArtifactError as error:
                _log.warning("%s", str(error).replace("make it again", "its files are tagged again"))
                continue
            tables.append(_index_of(keys, self._files.add(location)))
        return pa.concat_tables(tables)

    def _use_ledger(self) -> None:
        """Read the index again from the ledger, which holds all rows."""
        self._files = RowFiles(SCHEMA)
        ledger = self.folder / "ledger.parquet"
        self._index = _index_of(ledger.read_table(_KEYS), self._files.add(ledger))

    def _resolved(self, rows: pa.Table) -> pa.Table:
        is_copy = pc.and_(pc.is_null(rows["probabilities"]), pc.is_null(rows["reason"]))
        copies = rows.filter(is_copy)
        if not len(copies):
            return rows
        same = self._index.filter(pc.is_in(self._index["content"], value_set=combined(copies["content"])))
        # of several rows with one content, the last one counts: that with the most embeddings
        same = same.sort_by([("is_embedded", "ascending"), ("has_clips", "ascending")])
        place = {content: row for row, content in enumerate(same["content"].to_pylist())}
        tagged = self._take(same.take([place[content] for content in copies["content"].to_pylist()]))
        columns = [(copies if name in FILES.names else tagged)[name] for name in SCHEMA.names]
        return pa.concat_tables([rows.filter(pc.invert(is_copy)), pa.table(columns, schema=SCHEMA)])


def refresh(folder: Location, paths: pa.ChunkedArray) -> None:
    """Record in the ledger of `folder`, if there is one, that a job changed the files at `paths`."""
    ledger = folder / "ledger.parquet"
    if not len(paths) or not ledger.exists():
        return
    files, count = RowFiles(SCHEMA, [ledger]), len(ledger.read_table(["path"]))
    with ledger.table_writer(SCHEMA) as writer:
        for begin in range(0, count, _CHUNK):
            numbers = np.arange(begin, min(begin + _CHUNK, count))
            rows = files.take(np.zeros(len(numbers), np.int32), numbers)
            writer.write_table(_refreshed(rows, combined(pc.is_in(rows["path"], value_set=combined(paths)))))


def _is_gone(paths: pa.ChunkedArray, files: pa.Table, inputs: Location) -> pa.ChunkedArray:
    """Return for each path whether it is below `inputs`, and none of `files`, which are all that is there."""
    listed = pc.is_in(paths, value_set=combined(files["path"]))
    return pc.and_not(pc.starts_with(paths, f"{str(inputs).rstrip('/')}/"), listed)


def _without_clips(rows: pa.Table) -> pa.Table:
    """Return rows without the embeddings of clips, which take most of the space of a row."""
    for name in ("clip_embeddings", "has_clips"):
        rows = replaced(rows, name, pa.nulls(len(rows), SCHEMA.field(name).type))
    return rows


def _index_of(rows: pa.Table, file: int) -> pa.Table:
    """Return the index of the rows of a file, given its number."""
    count = len(rows)
    keys = rows.select(_KEYS)
    for name in ("is_embedded", "has_clips"):
        keys = replaced(keys, name, pc.fill_null(rows[name], False))
    return (
        keys.append_column("file", pa.array(np.full(count, file, np.int32)))
        .append_column("row", pa.array(np.arange(count)))
        .cast(_INDEX)
    )


def _newest(index: pa.Table) -> pa.Table:
    """Return the last row of each path."""
    last = last_rows(index["path"])
    return index if len(last) == len(index) else index.take(last)


def _results(rows: pa.Table, genres: list[list[str]], readable: Bools) -> pa.Table:
    """Return what `TagTable.finish` does; `genres` are those of the `readable` rows."""
    place = pa.array(np.cumsum(readable) - 1, mask=~readable)
    first = pa.array([each[0] if each else UNKNOWN for each in genres], pa.string())
    return (
        rows.select(["path", "seconds", "reason", "message"])
        .append_column("genre", first.take(place))
        .append_column("genres", pa.array(genres, pa.list_(pa.string())).take(place))
    )


def _refreshed(rows: pa.Table, changed: pa.BooleanArray) -> pa.Table:
    """Return rows with the present size, time and content of the `changed` files."""
    files = [file_row(Location.of(path)) for path in rows.filter(changed)["path"].to_pylist()]
    present = [file | {"content": content_of(file["path"])} for file in files]
    for name in ("size", "modified", "content"):
        values = pa.array([row[name] for row in present], SCHEMA.field(name).type)
        rows = replaced(rows, name, pc.replace_with_mask(combined(rows[name]), changed, values))
    return rows
