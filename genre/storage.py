"""Files and folders at any address that pyarrow's file systems take: local paths, s3://, gs://, ..."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from genre.errors import ArtifactError


@dataclass(frozen=True)
class Location:
    """One address. `location / "name"` goes down; reading and writing never leave half a file behind."""

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
            filesystem, path = fs.FileSystem.from_uri(text)
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
        """What lies directly in this folder, by name; nothing when the folder does not exist."""
        selector = fs.FileSelector(self.path, allow_not_found=True)
        return sorted(self.filesystem.get_file_info(selector), key=lambda info: str(info.path))

    def files(self, suffix: str = "") -> Iterator[Location]:
        """Files directly in this folder whose name ends in `suffix`, by name; hidden ones are skipped."""
        for info in self.children():
            if info.type == fs.FileType.File and info.base_name.endswith(suffix) and not info.base_name.startswith("."):
                yield self / info.base_name

    def read_bytes(self) -> bytes:
        with self.filesystem.open_input_file(self.path) as stream:
            return bytes(stream.read())

    def read_json(self) -> Any:
        try:
            return json.loads(self.read_bytes())
        except ValueError:
            raise ArtifactError(f"{self}: not JSON; it was altered or cut, make it again") from None

    def read_table(self, columns: list[str] | None = None) -> pa.Table:
        try:
            return pq.read_table(self.path, columns=columns, filesystem=self.filesystem, partitioning=None)
        except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
            raise ArtifactError(
                f"{self}: not the Parquet file that was expected ({_first_line(error)}); make it again"
            ) from None

    def write_bytes(self, content: bytes) -> None:
        """Write all of `content` or nothing: a reader never sees a part of it."""
        with self._whole() as target, self.filesystem.open_output_stream(target) as stream:
            stream.write(content)

    def write_text(self, content: str) -> None:
        self.write_bytes(content.encode())

    def write_json(self, content: Any) -> None:
        self.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")

    def write_table(self, table: pa.Table, **options: Any) -> None:
        with self._whole() as target:
            pq.write_table(table, target, filesystem=self.filesystem, **options)

    def make_folder(self) -> None:
        self.filesystem.create_dir(self.path, recursive=True)

    def delete(self) -> None:
        """Remove this file or folder, if it is there."""
        kind = self._type()
        if kind == fs.FileType.Directory:
            self.filesystem.delete_dir(self.path)
        elif kind == fs.FileType.File:
            self.filesystem.delete_file(self.path)

    def _type(self) -> fs.FileType:
        return self.filesystem.get_file_info(self.path).type

    def _whole(self) -> _WholeFile:
        return _WholeFile(self)


class _WholeFile:
    """Where to write so that the file appears at once: beside it and renamed locally.

    Object stores show an object only once its upload is complete, so there it is the place itself.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        folder, _, name = location.path.rpartition("/")
        self._folder = folder
        self._target = f"{folder}/.{name}.{uuid.uuid4().hex[:8]}" if location.is_local else location.path

    def __enter__(self) -> str:
        self._location.filesystem.create_dir(self._folder, recursive=True)
        return self._target

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._location.is_local:
            return
        if kind is None:
            self._location.filesystem.move(self._target, self._location.path)
        elif os.path.exists(self._target):
            os.remove(self._target)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
