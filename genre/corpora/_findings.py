"""What a scan read of files, kept so that the next scan reads only new and changed ones, also after an interruption.

A file is known by its path below the root, its size and its time. What was read of it is a text, such as JSON. New
findings are written every few seconds, each time as a complete Parquet file of its own; the end of a scan joins the
files and drops what is no longer listed.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from genre.errors import ArtifactError
from genre.storage import Location
from genre.storage.faults import is_fault

_SCHEMA = pa.schema(
    [("relative", pa.string()), ("size", pa.int64()), ("modified", pa.float64()), ("found", pa.string())]
)
_WRITE_SECONDS = 10.0  # what a kill loses at most
_log = logging.getLogger(__name__)


class Listed(Protocol):
    """A file as its storage lists it."""

    @property
    def relative(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def modified(self) -> float: ...


class Findings:
    """Findings in a folder. Without a folder nothing is known and nothing is kept. One scan at a time may use it."""

    def __init__(self, folder: Location | None) -> None:
        self._folder = folder
        self._new: list[tuple[str, int, float, str]] = []  # not written yet
        self._last_write = time.monotonic()

    def known(self, files: Sequence[Listed]) -> list[str | None]:
        """Return what was found in each file; None for a new or changed one."""
        table, names = self._read(), pa.array([file.relative for file in files], pa.string())
        rows = table.take(pc.index_in(names, value_set=table["relative"].combine_chunks()))
        same = pc.and_(
            pc.equal(rows["size"], pa.array([file.size for file in files], pa.int64())),
            pc.equal(rows["modified"], pa.array([file.modified for file in files], pa.float64())),
        )
        return list(pc.if_else(pc.fill_null(same, False), rows["found"], None).to_pylist())

    @contextlib.contextmanager
    def written(self) -> Iterator[None]:
        """Write what is added within the block also when it ends early, by Ctrl-C or an error."""
        try:
            yield
        finally:
            self._write()

    def add(self, file: Listed, finding: str) -> None:
        """Keep the finding in a file."""
        if self._folder is None:
            return
        self._new.append((file.relative, file.size, file.modified, finding))
        if time.monotonic() - self._last_write > _WRITE_SECONDS:
            self._write()

    def finish(self, files: Sequence[Listed]) -> None:
        """Join the files of the folder, without the findings in other files than `files`."""
        parts = self._parts()
        if self._folder is None or not parts:
            return
        table = self._read()
        names = pa.array([file.relative for file in files], pa.string())
        rows = pc.drop_null(pc.index_in(names, value_set=table["relative"].combine_chunks()))
        if len(parts) == 1 and len(rows) == len(table):
            return
        self._next_part(parts).write_table(table.take(rows))
        for part in parts:
            part.delete()

    def _read(self) -> pa.Table:
        """Return all rows, the newest first. What a damaged file held is found again."""
        tables = [_SCHEMA.empty_table()]
        for part in reversed(self._parts()):
            try:
                tables.append(part.read_table().select(_SCHEMA.names).cast(_SCHEMA))
            except (ArtifactError, OSError, KeyError, ValueError) as error:
                if isinstance(error, OSError) and is_fault(error, part):
                    raise
                # without its address: a forecast reads a copy
                _log.warning("OUTPUT/scan/%s/%s is damaged; what it held is read again", part.parent.name, part.name)
                part.delete()
        return pa.concat_tables(tables)

    def _write(self) -> None:
        if self._folder is not None and self._new:
            columns = dict(zip(_SCHEMA.names, zip(*self._new, strict=True), strict=True))
            self._next_part(self._parts()).write_table(pa.Table.from_pydict(columns, _SCHEMA))
            self._new = []
        self._last_write = time.monotonic()

    def _parts(self) -> list[Location]:
        return list(self._folder.files(".parquet")) if self._folder is not None else []

    def _next_part(self, parts: list[Location]) -> Location:
        """Return the file after these; their names are numbers of equal length."""
        assert self._folder is not None
        number = int(parts[-1].name.partition(".")[0]) + 1 if parts else 1
        return self._folder / f"{number:06d}.parquet"
