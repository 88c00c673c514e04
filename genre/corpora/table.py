"""A list of tracks: a CSV, TSV or Parquet file with one row per track. `corpus.root` is its address.

    path      the file: relative to `params.folder`, by default that of the table, an absolute path, or an address
    genre     its class; empty: the track is unlabelled, so that only `pretrain` learns from it
    group     optional: artist or album; all its tracks are in the same split. Names are compared without case,
              accents, punctuation and featured artists, and "Various Artists" and the like are no artist
    split     optional: train, valid, test (or one of the other names in `SPLIT_OF`) or excluded, in any case; empty:
              decided by `genre.features.splitting.splits`
    fold      optional: the published fold, a number or a name: a cross-validation over as many folds takes these
    track_id  optional: unique and stable; default: the path as written
    size      optional: bytes of the file; with `modified`, no file is looked up before it is decoded
    modified  optional: time of the file's last change in seconds since 1970; changed files need a new time or size

Other names for the columns are set in `params`; further columns are ignored. `_table_file` reads the file, in the
encodings and with the separators of spreadsheets. Only an empty field counts as missing: NA and null are valid genres.
Genres are compared without case, accents, spaces and punctuation, as in the corpus `tags`, and named as most rows write
them. Where paths have backslashes, and in none a slash comes first, backslashes separate folders. Empty
rows are skipped.

Rows keep their order. They are read several times, first to find repeated ids and to count the genres. Rows that repeat
an earlier one are left out; those that contradict it are an error. A listed file that does not exist is yielded with
size `MISSING` and ends in the rejects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs
from pydantic import Field

from genre.corpora import EXCLUDED, MISSING, SPLITS, UNLABELLED, Track, open_folder, open_root, size_and_time
from genre.corpora._artists import artist_key
from genre.corpora._shards import SPLIT_OF
from genre.corpora._table_file import TableFile
from genre.corpora._table_report import TableReport
from genre.corpora._table_rows import ROW, TableRows
from genre.errors import ConfigError, one_line
from genre.settings import CorpusSettings, Settings
from genre.storage import Location
from genre.storage.faults import STORAGE_SECONDS, is_denied, is_fault, retry
from genre.wording import plural

_SPLITS = SPLIT_OF | {EXCLUDED: EXCLUDED}
_NAMES = ("path", "genre", "group", "split", "fold", "track_id", "size", "modified")
_OF_MISSING = {"size": float(MISSING), "modified": 0.0}
_REQUESTS = 64  # at a time: one takes some 30 ms, and a batch 4 s


class Params(Settings):
    """Where the files are, what is learned, and the names of the table's columns."""

    folder: str = Field("", description="folder or address that relative paths start from; empty: that of the table")
    min_tracks: int = Field(1, ge=1, description="genres with fewer tracks are not learned")
    path_column: str = Field("path", description="column of the path or address of the file")
    genre_column: str = Field("genre", description="column of the genre")
    group_column: str | None = Field(None, description="column of the artist or album; null: 'group' if it exists")
    split_column: str | None = Field(
        None, description="column of train, valid, test or excluded; null: 'split' if it exists"
    )
    fold_column: str | None = Field(None, description="column of the published fold; null: 'fold' if it exists")
    track_id_column: str | None = Field(
        None, description="column of a unique id; null: 'track_id' if it exists, else the path"
    )
    size_column: str | None = Field(None, description="column of the file's bytes; null: 'size' if it exists")
    modified_column: str | None = Field(
        None, description="column of the file's time in seconds since 1970; null: 'modified' if it exists"
    )


def scan(settings: CorpusSettings, params: Params) -> Iterator[Track]:
    """Yield what `scan_with_report` does, without the report."""
    return scan_with_report(settings, params, lambda line: None, None)


def scan_with_report(
    settings: CorpusSettings, params: Params, report: Callable[[str], None], folder: Location | None
) -> Iterator[Track]:
    """Yield every row, in the order of the table, after reporting its genres and what is odd, a line each.

    Raises `StorageError` when the storage of a listed file stays unavailable, and `ConfigError` for a table that cannot
    be read, lacks a column or has only paths of a Windows machine, for a row without a path or with an unknown split,
    and for rows with the track id of an earlier row and other labels; the message names the rows and the values.
    """
    table, reads_splits = _open(settings, params), settings.split != "random"
    rows = TableRows(table, reads_splits=reads_splits)
    counted = TableReport(rows, reads_splits=reads_splits, min_tracks=params.min_tracks)
    for line in counted.lines():
        report(line)
    rows.check()
    finder = _Finder(open_folder(params.folder, "corpus.params.folder") if params.folder else table.file.parent)
    missing, example = 0, ""
    for texts in rows.batches(_NAMES):
        texts["track_id"] = pc.coalesce(texts["track_id"], texts["path"])
        checked = [
            _checked(row, table)
            for row in pa.table(texts).to_pylist()
            if any(value is not None for name, value in row.items() if name != ROW)  # spreadsheets save empty rows
        ]
        if table.columns.keys() >= {"size", "modified"}:
            stated = [(finder.address(row.path), row.size, row.modified) for row in checked]
        else:
            stated = finder.find([row.path for row in checked])
        for row, (path, size, modified) in zip(checked, stated, strict=True):
            split, fold = (None, None) if settings.split == "random" else (row.split, row.fold)
            genre, group = counted.name_of(row.genre), artist_key(row.group)
            if genre is None and split != EXCLUDED:
                split = UNLABELLED
            if size == MISSING:
                missing, example = missing + 1, example or row.path
            yield Track(row.track_id, path, genre, size, modified, group, split, fold)
    if missing:
        report(f"odd: {plural(missing, 'listed file')} cannot be found, the first is {example}")


def _open(settings: CorpusSettings, params: Params) -> TableFile:
    """Return the table. Raises `ConfigError` where it lacks a column."""
    table = TableFile(open_root(settings.root), {name: getattr(params, f"{name}_column") for name in _NAMES})
    if settings.split == "official" and "split" not in table.columns:
        raise ConfigError(f"corpus.split=official: {table.file} has no column 'split'; use random or auto")
    return table


class _Row(NamedTuple):
    path: str
    genre: str | None
    group: str | None
    split: str | None
    fold: str | None
    track_id: str
    size: int
    modified: float


def _checked(values: dict[str, Any], table: TableFile) -> _Row:
    """Return a row of the table."""
    path, genre, split, track_id = values["path"], values["genre"], values["split"], values["track_id"]

    def where() -> str:  # reads the complete text, so for errors only
        return f"{table.file}: {table.place(values[ROW])}"

    if not path or not track_id:
        raise ConfigError(f"{where()} has no path; fill it in or remove the row")
    if split is not None and split.lower() not in _SPLITS:
        raise ConfigError(f"{where()}: split {split!r} is not known; use {', '.join(SPLITS)}, {EXCLUDED} or nothing")
    size, modified = (_number(values[name], name, where) for name in ("size", "modified"))
    known_split = split and _SPLITS[split.lower()]
    return _Row(path, genre, values["group"], known_split, values["fold"], track_id, int(size), modified)


def _number(text: str | None, name: str, where: Callable[[], str]) -> float:
    """Return a size or a time; without a value, that of a file that does not exist."""
    try:
        number = float(text) if text is not None else _OF_MISSING[name]
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < _OF_MISSING[name]:
        raise ConfigError(f"{where()}: {name} {text!r} is no number of bytes or seconds; correct it or leave it empty")
    return number


class _Finder:
    """Looks up listed files: address, size and time, with many requests at a time."""

    def __init__(self, folder: Location) -> None:
        self._folder = folder

    def find(self, paths: list[str]) -> list[tuple[str, int, float]]:
        """Return (address, bytes, seconds since 1970) of each path; `MISSING` bytes where the file does not exist."""
        with ThreadPoolExecutor(_REQUESTS) as pool:
            steps = range(0, len(paths), max(1, -(-len(paths) // _REQUESTS)))
            parts = (paths[begin : begin + steps.step] for begin in steps)
            results = pool.map(lambda part: [self._look_up(path) for path in part], parts)
            return [row for rows in results for row in rows]

    def address(self, path: str) -> str:
        """Return the address of a listed path, without a request."""
        return path if "://" in path else self._locate(path).address

    def _look_up(self, path: str) -> tuple[str, int, float]:
        file = self._locate(path)

        def ask() -> fs.FileInfo:
            try:
                return file.filesystem.get_file_info(file.path)
            except OSError as error:
                if is_fault(error, file) and not is_denied(error):
                    raise
                raise ConfigError(
                    f"files listed as {path!r} cannot be reached ({one_line(error)}); check your access"
                ) from None

        return (file.address, *size_and_time(retry(ask, file, STORAGE_SECONDS)))

    def _locate(self, path: str) -> Location:
        return open_root(path, "path") if "://" in path or path.startswith(("/", "~")) else self._folder / path
