"""Files and folders at any address that pyarrow can open: local paths, s3://, gs://, ..."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from genre.errors import ArtifactError

_CHUNK_BYTES = 1 << 20
_WITHOUT_FOLDERS = ("s3", "gcs")  # there, a request to make a folder has no effect


@dataclass(frozen=True)
class Location:
    """The address of a file or folder; `location / "name"` is below it. A file is written completely or not at all."""

    filesystem: fs.FileSystem
    path: str
    address: str

    @classmethod
    def of(cls, address: str | os.PathLike[str]) -> Location:
        """Parse a local path or a URI. Raises `ArtifactError` for a scheme that pyarrow does not know."""
        text = os.fspath(address)
        if "://" not in text:
            path = os.path.abspath(os.path.expanduser(text))
            return cls(fs.LocalFileSystem(), path, path)
        try:
            filesystem, path = _parse(text)
        except (pa.ArrowInvalid, OSError) as error:
            raise ArtifactError(
                f"{text}: not an address pyarrow can open ({_first_line(error)}); use a path, s3:// or gs://"
            ) from None
        return cls(filesystem, path.rstrip("/"), text)

    def __truediv__(self, name: str) -> Location:
        parts = urlsplit(self.address)
        if "://" in self.address:  # keep a query such as ?region=... behind the longer path
            address = urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}"))
        else:
            address = f"{self.address.rstrip('/')}/{name}"
        return Location(self.filesystem, f"{self.path.rstrip('/')}/{name}", address)

    def __str__(self) -> str:
        return self.address

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rsplit("/", 1)[-1]

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def exists(self) -> bool:
        return bool(self._type() != fs.FileType.NotFound)

    def is_folder(self) -> bool:
        return bool(self._type() == fs.FileType.Directory)

    def children(self) -> list[fs.FileInfo]:
        """Return the entries of this folder, sorted by name; none when the folder does not exist."""
        selector = fs.FileSelector(self.path, allow_not_found=True)
        return sorted(self.filesystem.get_file_info(selector), key=lambda info: str(info.path))

    def files(self, suffix: str = "") -> Iterator[Location]:
        """Yield the files of this folder whose name ends in `suffix`, sorted by name, without hidden ones."""
        for info in self.children():
            if info.type == fs.FileType.File and info.base_name.endswith(suffix) and not info.base_name.startswith("."):
                yield self / info.base_name

    def read_bytes(self) -> bytes:
        with self.filesystem.open_input_file(self.path) as stream:
            return bytes(stream.read())

    def sha256(self) -> str:
        """Return the SHA-256 of the content in hexadecimal. It is read in pieces."""
        digest = hashlib.sha256()
        with self.filesystem.open_input_stream(self.path) as stream:
            while piece := stream.read(_CHUNK_BYTES):
                digest.update(piece)
        return digest.hexdigest()

    def read_json(self) -> Any:
        try:
            return json.loads(self.read_bytes())
        except ValueError:
            raise ArtifactError(f"{self}: not JSON; it was altered or cut, make it again") from None

    def holds_json(self) -> bool:
        """Return whether this is a complete JSON file. Files that others write in place may be cut by a kill."""
        if not self.exists():
            return False
        try:
            self.read_json()
        except ArtifactError:
            return False
        return True

    def read_table(self, columns: list[str] | None = None) -> pa.Table:
        try:
            return pq.read_table(self.path, columns=columns, filesystem=self.filesystem, partitioning=None)
        except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
            raise ArtifactError(
                f"{self}: not the Parquet file that was expected ({_first_line(error)}); make it again"
            ) from None

    @contextlib.contextmanager
    def open_parquet(self) -> Iterator[pq.ParquetFile]:
        """Open a Parquet file to read it in pieces; a local one is memory-mapped, which saves a copy."""
        try:
            with pq.ParquetFile(
                self.path, filesystem=None if self.is_local else self.filesystem, memory_map=self.is_local
            ) as reader:
                yield reader
        except pa.ArrowInvalid as error:
            raise ArtifactError(f"{self}: not Parquet, or cut short ({_first_line(error)}); make it again") from None

    def write_bytes(self, content: bytes) -> None:
        """Write `content`. A reader sees all of it or nothing."""
        with self.open_output() as stream:
            stream.write(content)

    @contextlib.contextmanager
    def open_output(self) -> Iterator[pa.NativeFile]:
        """Open a file to write it in pieces. It appears when the block ends without an error."""
        with self._atomic() as target, self.filesystem.open_output_stream(target) as stream:
            yield stream

    def write_text(self, content: str) -> None:
        self.write_bytes(content.encode())

    def write_json(self, content: Any) -> None:
        self.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")

    def write_table(self, table: pa.Table, **options: Any) -> None:
        with self._atomic() as target:
            pq.write_table(table, target, filesystem=self.filesystem, **options)

    @contextlib.contextmanager
    def table_writer(self, schema: pa.Schema, **options: Any) -> Iterator[pq.ParquetWriter]:
        """Open a Parquet file to write it in pieces. It appears when the block ends without an error."""
        with (
            self._atomic() as target,
            pq.ParquetWriter(target, schema, filesystem=self.filesystem, **options) as writer,
        ):
            yield writer

    def delete(self) -> None:
        """Delete this file or folder, if it exists."""
        kind = self._type()
        if kind == fs.FileType.Directory:
            self.filesystem.delete_dir(self.path)
        elif kind == fs.FileType.File:
            self.filesystem.delete_file(self.path)

    def _type(self) -> fs.FileType:
        return self.filesystem.get_file_info(self.path).type

    def _atomic(self) -> _AtomicFile:
        return _AtomicFile(self)


class _AtomicFile:
    """The path to write to so that a file appears complete: a hidden file next to it, which is renamed at the end.

    An object store shows an object when its upload is complete, so there it is the path itself.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        folder, _, name = location.path.rpartition("/")
        self._folder = folder
        self._target = f"{folder}/.{name}.{uuid.uuid4().hex[:8]}" if location.is_local else location.path

    def __enter__(self) -> str:
        if self._location.filesystem.type_name not in _WITHOUT_FOLDERS:
            self._location.filesystem.create_dir(self._folder, recursive=True)
        return self._target

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._location.is_local:
            return
        if kind is None:
            self._location.filesystem.move(self._target, self._location.path)
        elif os.path.exists(self._target):
            os.remove(self._target)


def _parse(address: str) -> tuple[fs.FileSystem, str]:
    """Return the file system and the path of a URI. Locations of a bucket share a client and its connections."""
    parts = urlsplit(address)
    if parts.scheme != "s3":
        filesystem, path = fs.FileSystem.from_uri(address)
        return filesystem, str(path)
    return _s3(parts.netloc, parts.query), unquote(f"{parts.netloc.rpartition('@')[2]}{parts.path}")


@lru_cache(maxsize=64)
def _s3(bucket: str, query: str) -> fs.FileSystem:
    return fs.FileSystem.from_uri(urlunsplit(("s3", bucket, "", query, "")))[0]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
