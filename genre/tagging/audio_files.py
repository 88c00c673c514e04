"""The audio files to tag: one file, every audio file of a collection, or those whose paths are on standard input."""

from __future__ import annotations

import itertools
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TypedDict

import pyarrow as pa

from genre import corpora
from genre.corpora import MISSING
from genre.errors import ConfigError
from genre.storage import Location
from genre.storage.faults import STORAGE_SECONDS, retry

FILES = pa.schema([("path", pa.string()), ("size", pa.int64()), ("modified", pa.float64())])
STDIN = "-"  # as `inputs`
_BATCH = 10_000  # files that are objects at a time
_REQUESTS = 64  # at a time, to the storage of listed files
_PART = 256  # files that are looked up one after the other


class FileRow(TypedDict):
    """A row of `FILES`."""

    path: str
    size: int  # bytes; `MISSING` if there was no file
    modified: float


def list_files(inputs: str) -> pa.Table:
    """Return every audio file below `inputs`, or `inputs` itself when it is a file: a row of `FILES` each.

    With `STDIN`: the paths on standard input, each ended by a NUL, as `find -print0` writes them. Raises `ConfigError`
    when there is no file.
    """
    if inputs == STDIN:
        return _listed(sys.stdin.buffer.read())
    if (file := single_file(inputs)) is not None:
        return pa.Table.from_pylist([file_row(file)], FILES)
    files = iter(corpora.walk(corpora.open_folder(inputs, "inputs"), "inputs"))
    batches = []
    while batch := list(itertools.islice(files, _BATCH)):
        columns = [[getattr(audio, name) for audio in batch] for name in FILES.names]
        batches.append(pa.record_batch(columns, schema=FILES))
    return pa.Table.from_batches(batches, FILES)


def _listed(paths: bytes) -> pa.Table:
    """Return the audio files at these paths, each once. Folders and other files, as `find` lists them, are skipped."""
    texts = dict.fromkeys(os.fsdecode(path) for path in paths.split(b"\0") if path)
    audio = [text for text in texts if corpora.is_audio(os.path.basename(text))]
    # small parts, so that an interrupt waits for a few requests only
    steps = range(0, len(audio), min(_PART, max(1, -(-len(audio) // _REQUESTS))))
    with ThreadPoolExecutor(_REQUESTS) as pool:
        parts = pool.map(lambda begin: list(map(_listed_row, audio[begin : begin + steps.step])), steps)
        rows = [row for part in parts for row in part if row]
    if not rows:
        found = f"found {len(texts)} paths, of which none is an audio file" if texts else "found nothing"
        raise ConfigError(f"inputs={STDIN} reads paths that end in a NUL: find FOLDER -print0 | genre tag -; {found}")
    return pa.Table.from_pylist(list({row["path"]: row for row in rows}.values()), FILES).sort_by("path")


def _listed_row(text: str) -> FileRow | None:
    """Return the row of a listed file, with the size MISSING if there is none; None for a folder.

    Raises `StorageError` where the storage does not answer.
    """
    try:
        text.encode()
    except UnicodeEncodeError:  # Parquet cannot hold the name
        return {"path": os.fsencode(text).decode(errors="backslashreplace"), "size": MISSING, "modified": 0.0}
    location = Location.of(text)

    def look_up() -> FileRow | None:
        try:
            return None if location.is_folder() else file_row(location)
        except FileNotFoundError:
            return {"path": str(location), "size": MISSING, "modified": 0.0}

    return retry(look_up, location, STORAGE_SECONDS)


def single_file(inputs: str) -> Location | None:
    """Return the location that `inputs` names when it is a file, None when it is a folder, missing or `STDIN`."""
    if inputs == STDIN:
        return None
    location = corpora.open_root(inputs, "inputs")
    return location if location.exists() and not location.is_folder() else None


def file_row(location: Location) -> FileRow:
    """Return the row of `FILES` of an existing file, the same as listing its folder gives."""
    if location.is_local:
        status = os.stat(location.path)
        return {"path": str(location), "size": status.st_size, "modified": status.st_mtime}
    size, modified = corpora.size_and_time(location.filesystem.get_file_info(location.path))
    return {"path": str(location), "size": size, "modified": modified}


def block_size(files: int, limit: int, processes: int) -> int:
    """Return the number of files in a block: at most `limit`, fewer in a small collection, so that all processes work.

    Each process has several blocks, so that all end at about the same time.
    """
    return min(limit, max(1, -(-files // (4 * processes))))
