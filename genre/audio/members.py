"""Recordings inside other files: rows of a Parquet file and members of a tar file.

    /data/train-00000.parquet#row=audio/2/17      column audio, row group 2, row 17 of the group
    s3://bucket/shard-0001.tar#bytes=1536+48000   48,000 bytes from byte 1536

Nothing is written to disk. Rows are read forward within a row group. Where its bytes are one page, as pyarrow writes
them, Arrow holds them twice, decompressed and as a dictionary: memory for two row groups, never for a file.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa

from genre.errors import ArtifactError, AudioError, Reason
from genre.storage import Location

_ROW = re.compile(r"(?s)(.+)#row=([^/]+)/(\d+)/(\d+)")
_RANGE = re.compile(r"(?s)(.+)#bytes=(\d+)\+(\d+)")
_BATCH = 8  # rows that are copied from their page at a time

_local = threading.local()  # the row group that a thread reads


def row_address(file: Location, column: str, group: int, row: int) -> str:
    """Return the address of the recording in a row of a row group."""
    return f"{file}#row={quote(column, safe='')}/{group}/{row}"


def range_address(file: Location, offset: int, size: int) -> str:
    """Return the address of the recording in `size` bytes from `offset`."""
    return f"{file}#bytes={offset}+{size}"


def file_of(address: str) -> str:
    """Return the address of the file that holds a recording: the address itself unless it is of a row or a member."""
    match = _ROW.fullmatch(address) or _RANGE.fullmatch(address)
    return match[1] if match else address


def read(address: str) -> bytes:
    """Return the bytes of the recording at an address. Raises `AudioError` (unreadable, truncated) or `OSError`."""
    if match := _ROW.fullmatch(address):
        file, column, group, row = match.groups()
        return _read_row(file, unquote(column), int(group), int(row))
    if match := _RANGE.fullmatch(address):
        return _read_range(match[1], int(match[2]), int(match[3]))
    return Location.of(address).read_bytes()


def _read_range(file: str, offset: int, size: int) -> bytes:
    location = Location.of(file)
    with location.filesystem.open_input_file(location.path) as stream:
        content: bytes = stream.read_at(size, offset) if offset < stream.size() else b""
    if len(content) < size:
        raise AudioError(Reason.TRUNCATED, f"{location.name} ends after {len(content)} of {size} bytes")
    return content


def _read_row(file: str, column: str, group: int, row: int) -> bytes:
    key = file, column, group
    try:
        rows: _Rows | None = getattr(_local, "rows", None)
        if rows is None or rows.key != key or rows.first > row:
            if rows is not None:
                rows.close()
            # Its buffers, as large as the row group, are free before the next are allocated, which reuse their pages:
            # page faults of new ones took up to a tenth of the time of a track.
            rows = _local.rows = None
            rows = _local.rows = _Rows(*key)
        value = rows.value(row)
    except (OSError, MemoryError):
        _local.rows = None  # its reader cannot continue where it failed
        raise
    except (ArtifactError, pa.ArrowException, IndexError) as error:
        _local.rows = None
        raise AudioError(Reason.UNREADABLE, str(error)) from None
    return _bytes_of(value)


def _bytes_of(value: Any) -> bytes:
    """Return the bytes in a value of an audio column: binary, or a struct of bytes and path."""
    if isinstance(value, dict):
        path, value = value.get("path"), value.get("bytes")
        if value is None and path:
            raise AudioError(Reason.UNREADABLE, f"the row holds the path {path!r}, not the bytes of the file")
    if value is None:
        raise AudioError(Reason.UNREADABLE, "the row holds no bytes")
    return bytes(value)


class _Rows:
    """The values of a column in a row group, read forward from its start."""

    def __init__(self, file: str, column: str, group: int) -> None:
        self.key = file, column, group
        self.first = 0  # row of the batch
        self._stack = contextlib.ExitStack()
        reader = self._stack.enter_context(Location.of(file).open_parquet())
        self._batches: Iterator[pa.RecordBatch] = reader.iter_batches(
            _BATCH, row_groups=[group], columns=[column], use_threads=False
        )
        self._batch = next(self._batches, None)

    def value(self, row: int) -> Any:
        """Return the value of a row, which must not be before `first`. Raises `IndexError` after the last."""
        while self._batch is not None and row >= self.first + len(self._batch):
            self.first += len(self._batch)
            self._batch = next(self._batches, None)
        if self._batch is None:
            raise IndexError(f"the row group has no row {row}")
        return self._batch.column(0)[row - self.first].as_py()

    def close(self) -> None:
        self._stack.close()
