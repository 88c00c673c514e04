"""Files and folders at any address that pyarrow can open: local paths, s3://, gs://, ...

A file is written completely or not at all. A local file is written under a hidden name next to its own, forced to the
disk and renamed. A file of an object store is written to a temporary file of this machine and uploaded when it is
complete: pyarrow publishes what was written so far when an error ends the writing, and has no call to abandon it. So
the pieces of a large file whose upload to S3 fails stay there; docs/CLUSTER.md has the rule that deletes them.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import truediv
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from genre.credentials import without_credentials
from genre.errors import ArtifactError, first_line

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_CHUNK_BYTES = 1 << 20  # read at a time to hash a file
_UPLOAD_BYTES = 16 << 20  # read at a time to upload a file
BUCKETS = ("s3", "gcs")  # file systems of buckets: there, a request to make a folder has no effect
# The AWS SDK repeats requests that are answered with 503, stall for 3 s or break off, over some 15 s. Where a tenth of
# all requests fails, one in a million does so six times.
_S3_ATTEMPTS = 6
_S3_CONNECTIONS = 64  # at a time, since a request to look up a file takes some 30 ms


@dataclass(frozen=True)
class Location:
    """The address of a file or folder; `location / "name"` is below it. Other processes get the address only."""

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
            shown, reason = without_credentials(text), first_line(error)
            if shown != text:  # the message of pyarrow repeats a part of the secret
                reason = "in a secret, write %2F for / and %2B for +"
            raise ArtifactError(
                f"{shown}: not an address pyarrow can open ({reason}); use a path, s3:// or gs://"
            ) from None
        return cls(filesystem, path.rstrip("/"), text)

    def __truediv__(self, name: str) -> Location:
        parts = urlsplit(self.address)
        if "://" in self.address:  # keep a query such as ?region=... behind the longer path
            address = urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}"))
        else:
            address = f"{self.address.rstrip('/')}/{name}"
        return Location(self.filesystem, f"{self.path.rstrip('/')}/{name}", address)

    def below(self, names: Iterable[str]) -> Location:
        """Return what these names lead to, one below the other."""
        return functools.reduce(truediv, names, self)

    def __str__(self) -> str:
        return self.address

    def __reduce__(self) -> tuple[Callable[[str], Location], tuple[str]]:
        # the pickle of a file system loses its retries, and each copy would connect on its own
        return Location.of, (self.address,)

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rsplit("/", 1)[-1]

    @property
    def parent(self) -> Location:
        """The folder that this file or folder is in."""
        parts = urlsplit(self.address)
        if "://" in self.address:
            address = urlunsplit(parts._replace(path=parts.path.rstrip("/").rpartition("/")[0]))
        else:
            address = os.path.dirname(self.address)
        return Location(self.filesystem, self.path.rstrip("/").rpartition("/")[0] or "/", address)

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def exists(self) -> bool:
        return bool(self._type() != fs.FileType.NotFound)

    def is_folder(self) -> bool:
        return bool(self._type() == fs.FileType.Directory)

    def size(self) -> int:
        """Return the bytes of this file. Raises `FileNotFoundError`."""
        info = self.filesystem.get_file_info(self.path)
        if info.type != fs.FileType.File:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        return int(info.size)

    def children(self) -> list[fs.FileInfo]:
        """Return the entries of this folder, sorted by name; none when the folder does not exist."""
        selector = fs.FileSelector(self.path, allow_not_found=True)
        return sorted(self.filesystem.get_file_info(selector), key=lambda info: str(info.path))

    def files(self, suffix: str = "") -> Iterator[Location]:
        """Yield the files of this folder whose name ends in `suffix`, sorted by name, without hidden ones."""
        for info in self.children():
            if info.type == fs.FileType.File and info.base_name.endswith(suffix) and not info.base_name.startswith("."):
                yield self / info.base_name

    def folders(self, prefix: str = "") -> list[Location]:
        """Return the folders in this one whose name starts with `prefix`, sorted by name."""
        names = [info.base_name for info in self.children() if info.type == fs.FileType.Directory]
        return [self / name for name in names if name.startswith(prefix)]

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
        """Return the content of a JSON file. Raises `ArtifactError` when it is truncated or altered."""
        try:
            return json.loads(self.read_bytes())
        except ValueError:
            raise ArtifactError(f"{self}: not JSON; it was altered or truncated, make it again") from None

    def read_table(self, columns: list[str] | None = None) -> pa.Table:
        """Return a Parquet file, or some of its columns. Raises `ArtifactError` when it is not what was expected."""
        try:
            return pq.read_table(self.path, columns=columns, filesystem=self.filesystem, partitioning=None)
        except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
            # pyarrow raises a plain OSError without errno for a damaged page; errors of the system have an errno
            if isinstance(error, OSError) and not (self.is_local and type(error) is OSError and error.errno is None):
                raise
            raise ArtifactError(
                f"{self}: not the Parquet file that was expected ({first_line(error)}); make it again"
            ) from None

    @contextlib.contextmanager
    def open_parquet(self) -> Iterator[pq.ParquetFile]:
        """Open a Parquet file to read it in pieces; a local one is memory-mapped. Raises `ArtifactError` if damaged."""
        try:
            with pq.ParquetFile(
                self.path, filesystem=None if self.is_local else self.filesystem, memory_map=self.is_local
            ) as reader:
                yield reader
        except pa.ArrowInvalid as error:
            raise ArtifactError(f"{self}: not Parquet, or truncated ({first_line(error)}); make it again") from None

    def write_bytes(self, content: bytes) -> None:
        """Write `content`. A reader sees all of it or nothing."""
        with self.open_output() as stream:
            stream.write(content)

    @contextlib.contextmanager
    def open_output(self) -> Iterator[pa.NativeFile]:
        """Open a file to write it in pieces. It appears when the block ends without an error."""
        with self._complete() as path, pa.OSFile(path, "wb") as stream:
            yield stream

    def write_text(self, content: str) -> None:
        self.write_bytes(content.encode())

    def write_json(self, content: Any) -> None:
        self.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")

    def write_table(self, table: pa.Table, **options: Any) -> None:
        with self._complete() as path:
            pq.write_table(table, path, **options)

    @contextlib.contextmanager
    def table_writer(self, schema: pa.Schema, **options: Any) -> Iterator[pq.ParquetWriter]:
        """Open a Parquet file to write it in pieces. It appears when the block ends without an error."""
        with self._complete() as path, pq.ParquetWriter(path, schema, **options) as writer:
            yield writer

    def delete(self) -> None:
        """Delete this file or folder, if it exists."""
        kind = self._type()
        with contextlib.suppress(FileNotFoundError):  # another process may delete it at the same time
            if kind == fs.FileType.Directory:
                self.filesystem.delete_dir(self.path)
            elif kind == fs.FileType.File:
                self.filesystem.delete_file(self.path)

    def _type(self) -> fs.FileType:
        return self.filesystem.get_file_info(self.path).type

    @contextlib.contextmanager
    def _complete(self) -> Iterator[str]:
        """Yield the path of a local file to write, which becomes this file when the block ends without an error."""
        folder, _, name = self.path.rpartition("/")
        if self.is_local:
            make_folder(folder or "/")
            target = f"{folder}/.{name}.{uuid.uuid4().hex[:8]}"
        else:
            descriptor, target = tempfile.mkstemp(prefix="genre-")
            os.close(descriptor)
        try:
            yield target
            if self.is_local:
                sync(target)
                os.replace(target, self.path)
                sync(folder or "/")
            else:
                self._upload(target)
        except OSError as error:
            if error.errno in DISK_FULL and not error.filename:  # Arrow does not say which disk
                raise OSError(error.errno, os.strerror(error.errno), target) from None
            raise
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(target)

    def _upload(self, path: str) -> None:
        """Copy a local file here. In a thread, because an interrupt after opening would publish an empty file."""
        if self.filesystem.type_name not in BUCKETS:
            self.filesystem.create_dir(self.path.rpartition("/")[0], recursive=True)
        with ThreadPoolExecutor(1) as thread:
            thread.submit(_copy, path, self.filesystem, self.path).result()


def make_folder(path: str) -> None:
    """Make a local folder and the missing ones above it, and wait until the disk holds their names.

    Else a loss of power takes a file that was forced to the disk together with the name of a folder above it.
    """
    if os.path.isdir(path):
        return
    above = os.path.dirname(path)
    make_folder(above)
    os.makedirs(path, exist_ok=True)  # another process may make it at the same time
    with contextlib.suppress(PermissionError):  # a folder that may be written, but not listed
        sync(above)


def sync(path: str) -> None:
    """Wait until the disk holds a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy(path: str, filesystem: fs.FileSystem, target: str) -> None:
    """Copy a local file. pyarrow's `copy_files` reports no error when the last piece of an upload fails."""
    with filesystem.open_output_stream(target) as stream, pa.OSFile(path) as source:
        while piece := source.read_buffer(_UPLOAD_BYTES):
            stream.write(piece)


def _parse(address: str) -> tuple[fs.FileSystem, str]:
    """Return the file system and the path of a URI. Locations of a bucket share a client and its connections."""
    parts = urlsplit(address)
    filesystem, root = _client(parts.scheme, parts.netloc, parts.query)
    return filesystem, root + unquote(parts.path.lstrip("/"))


@functools.lru_cache(maxsize=64)
def _client(scheme: str, host: str, query: str) -> tuple[fs.FileSystem, str]:
    """Return a file system and the path of its root, which ends in a slash."""
    filesystem, path = fs.FileSystem.from_uri(urlunsplit((scheme, host, "/x", query, "")))
    if scheme == "s3":
        # an address has no setting for these
        changes = {
            "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=_S3_ATTEMPTS),
            # a file below 10 MB is one request, which leaves nothing when it fails, and no upload in pieces
            "allow_delayed_open": True,
        }
        rebuild, (options,) = filesystem.__reduce__()
        with _arrow_threads(_S3_CONNECTIONS):
            filesystem = rebuild(options | changes)
    return filesystem, str(path).removesuffix("x")


@contextlib.contextmanager
def _arrow_threads(count: int) -> Iterator[None]:
    """Within the block, let Arrow have at least `count` threads for requests.

    A new S3 client has as many connections as these threads, at least 25; other threads wait for one.
    """
    earlier = pa.io_thread_count()
    pa.set_io_thread_count(max(count, earlier))
    try:
        yield
    finally:
        pa.set_io_thread_count(earlier)
