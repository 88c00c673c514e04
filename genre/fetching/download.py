"""Download one archive: resumed after any interruption, from the first mirror that has it, checked by its checksum.

What has arrived is in `<archive>.part`, and what the server said about it in `<archive>.part.json`. A file with the
name of the archive is complete and has the right checksum.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import genre
from genre.errors import ArtifactError, GenreError, one_line
from genre.fetching.published import Archive
from genre.storage import Location

CHUNK_BYTES = 1 << 20
# tries in a row without a byte, until the next mirror: of a mirror that has sent none so far, and of one that has
_FIRST_TRIES, _TRIES = 2, 9
_TIMEOUT_SECONDS = 60.0  # without an answer or a byte
_BUSY = (408, 425, 429)  # temporary refusals, as all answers from 500 on: worth another try


class Watch(Protocol):
    """Shows a person what happens."""

    def say(self, line: str) -> None:
        """Show a line."""

    def bar(self, action: str, done: int, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show a bar within the block, for `done` of `total` bytes. What it yields adds bytes."""


class _RefusedError(Exception):
    """A mirror does not have the file, and another try would not help."""


@dataclass
class _Origin:
    """The source of a partial download."""

    url: str = ""
    validator: str = ""  # ETag or date of the file, which the server compares before it continues
    total: int | None = None  # size of the complete file in bytes


class _Part:
    """The bytes of an archive that have arrived."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._record = Location.of(f"{self.path}.json")
        try:
            self.origin = _Origin(**self._record.read_json())
        except (FileNotFoundError, ArtifactError, TypeError):
            self.origin = _Origin()

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def is_complete(self) -> bool:
        return self.origin.total is not None and self.size == self.origin.total

    def begin(self, origin: _Origin) -> None:
        """Start again without bytes, for the file of `origin`."""
        self.path.unlink(missing_ok=True)
        self.origin = origin
        with writing(self.path):
            self._record.write_json(asdict(origin))

    @contextmanager
    def opened(self) -> Iterator[Callable[[bytes], None]]:
        """Yield a function that appends bytes within the block. They are in the file when it returns."""
        with writing(self.path):
            file = self.path.open("ab", buffering=0)

        def write(piece: bytes) -> None:
            rest = memoryview(piece)
            with writing(self.path):
                while rest:
                    rest = rest[file.write(rest) :]

        with file:
            yield write

    def discard(self) -> None:
        """Delete the bytes and their record."""
        self.path.unlink(missing_ok=True)
        self._record.delete()
        self.origin = _Origin()

    def accept(self, target: Path) -> None:
        """Rename the complete part to `target`, the archive."""
        os.replace(self.path, target)
        self._record.delete()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise `GenreError` for an `OSError` of the disk within the block, which writes `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # not of the disk: the bzip2 of an archive is damaged
            raise
        raise GenreError(f"{path}: cannot be written ({one_line(error)}); make room and run again") from None


def obtain(archive: Archive, root: Path, watch: Watch) -> Path:
    """Return the verified archive in `root`, which is downloaded unless it is there.

    Raises `ArtifactError` when the file there has another checksum, and `GenreError` when no mirror has the right one.
    """
    target = root / archive.file
    if target.exists():
        checksum = _checksum(target, archive, watch)
        if checksum != archive.checksum:
            raise ArtifactError(f"{target}: found {checksum}, expected {archive.checksum}; move it away and run again")
        return target
    part, refusals = _Part(target), []
    for url in archive.urls:
        try:
            _transfer(url, part, watch)
            checksum = _checksum(part.path, archive, watch)
            if checksum == archive.checksum:
                part.accept(target)
                return target
            part.discard()
            raise _RefusedError(f"found {checksum}, expected {archive.checksum}")
        except _RefusedError as refusal:
            watch.say(f"{archive.file}: {_host(url)}: {refusal}")
            refusals.append(f"{_host(url)}: {refusal}")
    raise GenreError(
        f"{archive.file}: no mirror has it ({'; '.join(refusals)}); run the same command again later, or save the file "
        f"as {target} yourself"
    )


def present_bytes(archive: Archive, root: Path) -> int:
    """Return how many bytes of an archive are in `root`."""
    target = root / archive.file
    return target.stat().st_size if target.exists() else _Part(target).size


def _transfer(url: str, part: _Part, watch: Watch) -> None:
    """Complete `part`. Raises `_RefusedError` when the mirror does not have the file or does not answer."""
    failures, tries = 0, _FIRST_TRIES
    while not part.is_complete:
        before = part.size
        try:
            if _attempt(url, part, watch):
                return
            reason = "the connection was cut"
        except HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}".rstrip()
            if error.code == 416 and part.size:
                reason = "the file there is shorter than what has arrived; starting over"
                part.discard()
            elif error.code < 500 and error.code not in _BUSY:
                raise _RefusedError(reason) from None
        except (HTTPException, OSError) as error:
            reason = _describe(error)
        failures, tries = (0, _TRIES) if part.size > before else (failures + 1, tries)
        if failures == tries:
            raise _RefusedError(f"{reason}, {tries} times")
        pause = 2.0**failures / 4 if failures else 0.0
        watch.say(f"{part.path.name}: {_host(url)}: {reason}; {part.size:,} bytes so far, next try in {pause:g} s")
        time.sleep(pause)


def _attempt(url: str, part: _Part, watch: Watch) -> bool:
    """Add the bytes that one connection gives to `part`. Return whether it is complete."""
    with urlopen(Request(url, headers=_headers(url, part)), timeout=_TIMEOUT_SECONDS) as response:
        if response.headers.get_content_type() == "text/html":
            raise _RefusedError("answers with a web page")  # a login or an error; what has arrived is kept
        if response.status == 206:
            _continue(url, part, response)
        else:
            _start_over(url, part, response, watch)
        done, total = part.size, part.origin.total
        with watch.bar(part.path.stem, done, total or done) as advance, part.opened() as write:
            # not to the end of the stream: after the last byte, read1 may wait for the server to hang up
            while (total is None or done < total) and (piece := response.read1(CHUNK_BYTES)):
                write(piece)
                done += len(piece)
                advance(len(piece))
    return total is None or done == total


def _headers(url: str, part: _Part) -> dict[str, str]:
    headers = {"User-Agent": f"genre/{genre.__version__}", "Accept-Encoding": "identity"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
        # other mirrors have other ETags for the same file: for them, size and checksum are compared instead
        if part.origin.url == url and part.origin.validator:
            headers["If-Range"] = part.origin.validator
    return headers


def _continue(url: str, part: _Part, response: HTTPResponse) -> None:
    """Raise an error unless an answer continues `part`."""
    start, total = _start_and_total(response)
    expected = part.origin.total
    if start == part.size and expected in (None, total):
        part.origin.total = total
    elif part.origin.url != url:
        raise _RefusedError(f"has a file of {total} bytes, expected {expected}; to start over, delete {part.path}")
    else:
        part.discard()
        raise HTTPException("the file has changed; starting over")


def _start_over(url: str, part: _Part, response: HTTPResponse, watch: Watch) -> None:
    """Make `part` empty, for an answer that begins with the first byte."""
    etag, length = response.headers.get("ETag", ""), response.headers.get("Content-Length", "")
    # a weak ETag says that the content means the same, not that its bytes are
    validator = response.headers.get("Last-Modified", "") if not etag or etag.startswith("W/") else etag
    if part.size:
        has_changed = part.origin.url == url and part.origin.validator not in ("", validator)
        reason = "the file has changed" if has_changed else "the server cannot resume"
        watch.say(f"{part.path.name}: {_host(url)}: {reason}; starting over")
    part.begin(_Origin(url, validator, int(length) if length.isdecimal() else None))


def _start_and_total(response: HTTPResponse) -> tuple[int, int]:
    """Return the first byte of an answer and the size of the complete file, by `Content-Range: bytes 5-9/10`."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if not match:
        raise HTTPException("an answer without its range")
    return int(match[1]), int(match[2])


def _checksum(file: Path, archive: Archive, watch: Watch) -> str:
    """Return the checksum of a file as the table writes it."""
    algorithm = archive.checksum.partition(":")[0]
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with file.open("rb") as stream, watch.bar(f"checking {archive.file}", 0, file.stat().st_size) as advance:
        while piece := stream.read(CHUNK_BYTES):
            digest.update(piece)
            advance(len(piece))
    return f"{algorithm}:{digest.hexdigest()}"


def _describe(error: Exception) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    return cause if isinstance(cause, str) else one_line(cause)


def _host(url: str) -> str:
    return urlsplit(url).hostname or url
