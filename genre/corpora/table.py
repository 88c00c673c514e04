"""A list of tracks: a CSV, TSV or Parquet file with one row per track. `corpus.root` is its address.

    path      the file: relative to the table's folder, an absolute path, or an address (s3://...)
    genre     its class; empty: the track is unlabelled, so that only `pretrain` learns from it
    group     optional: artist or album; all its tracks are in the same split. Names are compared without case,
              accents, punctuation and featured artists, and "Various Artists" and the like are no artist
    split     optional: train, valid, test or excluded; empty: decided by `genre.features.splits`
    track_id  optional: unique and stable; default: the path as written
    size      optional: bytes of the file; with `modified`, no file is looked up before it is decoded
    modified  optional: time of the file's last change in seconds since 1970; changed files need a new time or size

Other names for the columns are set in `params`; further columns are ignored. Parquet is recognised by its first bytes,
TSV by its extension. Only an empty field counts as missing: NA and null are valid genres. Rows keep their order and
are read in batches; of earlier rows only a hash of 8 bytes is kept, to find repeated ids. A listed file that does not
exist is yielded with size `MISSING` and ends in the rejects.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from pyarrow import fs
from pydantic import Field

from genre.corpora import EXCLUDED, MISSING, SPLITS, UNLABELLED, Track, open_root, size_and_time
from genre.corpora._artists import artist_key
from genre.errors import ConfigError, one_line
from genre.faults import STORAGE_SECONDS, describe, is_denied, is_fault, retry
from genre.settings import CorpusSettings, Settings
from genre.storage import Location

_SPLITS = (*SPLITS, EXCLUDED)
_NAMES = ("path", "genre", "group", "split", "track_id", "size", "modified")
_OF_MISSING = {"size": float(MISSING), "modified": 0.0}
_ROWS = 8192  # per batch
_REQUESTS = 64  # at a time: one takes some 30 ms, and a batch 4 s


class Params(Settings):
    """The names of the table's columns."""

    path_column: str = Field("path", description="column of the path or address of the file")
    genre_column: str = Field("genre", description="column of the genre")
    group_column: str | None = Field(None, description="column of the artist or album; null: 'group' if it exists")
    split_column: str | None = Field(
        None, description="column of train, valid, test or excluded; null: 'split' if it exists"
    )
    track_id_column: str | None = Field(
        None, description="column of a unique id; null: 'track_id' if it exists, else the path"
    )
    size_column: str | None = Field(None, description="column of the file's bytes; null: 'size' if it exists")
    modified_column: str | None = Field(
        None, description="column of the file's time in seconds since 1970; null: 'modified' if it exists"
    )


def scan(settings: CorpusSettings, params: Params) -> Iterator[Track]:
    """Yield every row, in the order of the table.

    Raises `StorageError` when the storage of a listed file stays unavailable, and `ConfigError` for a table that cannot
    be read or lacks a column, and for a row without a path, with an unknown split, or with the track id of an earlier
    row; the message names the row (from 1) and the value.
    """
    table = open_root(settings.root)
    reader = _Table(table, params)
    if settings.split == "official" and "split" not in reader.columns:
        raise ConfigError(f"corpus.split=official: {table} has no column 'split'; use random or auto")
    finder = _Finder(table)
    seen: set[int] = set()
    for first, rows in reader.batches():
        checked = [_checked(row, f"{table}: row {number}", seen) for number, row in enumerate(rows, first)]
        if reader.columns.keys() >= {"size", "modified"}:
            stated = [(finder.address(row.path), row.size, row.modified) for row in checked]
        else:
            stated = finder.find([row.path for row in checked])
        for row, (path, size, modified) in zip(checked, stated, strict=True):
            split = None if settings.split == "random" else row.split
            if row.genre is None and split != EXCLUDED:
                split = UNLABELLED
            yield Track(row.track_id, path, row.genre, size, modified, artist_key(row.group), split)


class _Row(NamedTuple):
    path: str
    genre: str | None
    group: str | None
    split: str | None
    track_id: str
    size: int
    modified: float


def _checked(values: dict[str, str | None], where: str, seen: set[int]) -> _Row:
    path, genre, split, track_id = values["path"], values["genre"], values["split"], values["track_id"]
    if not path or not track_id:
        raise ConfigError(f"{where} has no path; fill it in or remove the row")
    if split is not None and split not in _SPLITS:
        raise ConfigError(f"{where}: split {split!r} is not known; use {', '.join(_SPLITS)} or nothing")
    digest = int.from_bytes(hashlib.blake2b(track_id.encode(), digest_size=8).digest(), "little")
    if digest in seen:
        raise ConfigError(
            f"{where}: track id {track_id!r} is that of an earlier row; make ids unique or remove the row"
        )
    seen.add(digest)
    size, modified = (_number(values[name], name, where) for name in ("size", "modified"))
    return _Row(path, genre, values["group"], split, track_id, int(size), modified)


def _number(text: str | None, name: str, where: str) -> float:
    """Return a size or a time; without a value, that of a file that does not exist."""
    try:
        number = float(text) if text is not None else _OF_MISSING[name]
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < _OF_MISSING[name]:
        raise ConfigError(f"{where}: {name} {text!r} is no number of bytes or seconds; correct it or leave it empty")
    return number


class _Table:
    """A table whose columns are read as text, under the names of this module."""

    def __init__(self, file: Location, params: Params) -> None:
        self._file = file
        self._is_parquet = self._peek()
        existing = self._columns()
        self.columns: dict[str, str] = {}  # from this module's name to the table's
        for field in type(params).model_fields:
            name, setting = field.removesuffix("_column"), getattr(params, field)
            column = setting or name
            if column in existing:
                self.columns[name] = column
            elif setting:
                names = ", ".join(existing)
                raise ConfigError(f"{file} has no column {column!r}; it has {names}; set corpus.params.{field}")

    def batches(self) -> Iterator[tuple[int, list[dict[str, str | None]]]]:
        """Yield (number of the first row, rows). Numbers start at 1, after the header; empty fields are None."""
        first = 1
        with self._explained():
            for batch in self._parquet() if self._is_parquet else self._csv():
                rows = _rows(batch, self.columns)
                yield first, rows
                first += len(rows)

    def _peek(self) -> bool:
        with self._explained(), self._file.filesystem.open_input_stream(self._file.path) as stream:
            return bool(stream.read(4) == b"PAR1")

    def _columns(self) -> list[str]:
        with self._explained(), self._file.filesystem.open_input_file(self._file.path) as stream:
            schema = (
                pq.read_schema(stream) if self._is_parquet else self._open_csv(stream, pa.csv.ConvertOptions()).schema
            )
            return list(schema.names)

    def _parquet(self) -> Iterator[pa.RecordBatch]:
        with self._file.filesystem.open_input_file(self._file.path) as stream:
            yield from pq.ParquetFile(stream).iter_batches(batch_size=_ROWS, columns=list(self.columns.values()))

    def _csv(self) -> Iterator[pa.RecordBatch]:
        columns = list(self.columns.values())
        convert = pa.csv.ConvertOptions(
            include_columns=columns,
            column_types=dict.fromkeys(columns, pa.string()),  # otherwise the artist 007 would become 7
            null_values=[""],
            strings_can_be_null=True,
        )
        with self._file.filesystem.open_input_stream(self._file.path) as stream:
            yield from self._open_csv(stream, convert)

    def _open_csv(self, stream: pa.NativeFile, convert: pa.csv.ConvertOptions) -> pa.csv.CSVStreamingReader:
        delimiter = "\t" if self._file.name.lower().endswith(".tsv") else ","
        parse = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
        return pa.csv.open_csv(stream, parse_options=parse, convert_options=convert)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of pyarrow about the table into a `ConfigError` of one line."""
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(
                f"corpus.root={self._file} is not a table ({one_line(error)}); point it at a CSV or Parquet file"
            ) from None


def _rows(batch: pa.RecordBatch, columns: dict[str, str]) -> list[dict[str, str | None]]:
    """Return the rows under this module's names, without whitespace around values other than paths."""
    texts: dict[str, pa.Array] = {name: pa.nulls(len(batch), pa.string()) for name in _NAMES}
    for name, column in columns.items():
        text = pc.cast(batch[column], pa.string())
        stripped = text if name == "path" else pc.utf8_trim_whitespace(text)
        texts[name] = pc.if_else(pc.equal(stripped, ""), None, stripped)
    texts["track_id"] = pc.coalesce(texts["track_id"], texts["path"])
    return list(pa.table(texts).to_pylist())


class _Finder:
    """Looks up listed files: address, size and time, with many requests at a time."""

    def __init__(self, table: Location) -> None:
        self._folder = table.parent

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
                    f"files listed as {path!r} cannot be reached ({describe(error)}); check your access"
                ) from None

        return (file.address, *size_and_time(retry(ask, file, STORAGE_SECONDS)))

    def _locate(self, path: str) -> Location:
        return open_root(path, "path") if "://" in path or path.startswith(("/", "~")) else self._folder / path
