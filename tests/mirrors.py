"""A real HTTP server on this machine, with the faults that mirrors have, and the archives that it serves."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

PIECE = 1 << 14


@dataclass
class Mirror:
    """Serves `files` by name within the block."""

    files: dict[str, bytes]
    cut_after: int | None = None  # bytes of each answer before the connection is cut
    resumes: bool = True  # answers to a Range
    has_length: bool = True  # declares the length
    content_type: str = "application/octet-stream"
    pause: float = 0.0  # seconds between two pieces
    after_cut: Callable[[], None] = lambda: None
    ranges: list[str] = field(default_factory=list)  # Range of each request, or nothing
    sent: int = 0  # bytes of all answers

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"mirror": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{name}"


class _Handler(BaseHTTPRequestHandler):
    mirror: Mirror

    def do_GET(self) -> None:
        mirror, content = self.mirror, self.mirror.files.get(self.path.lstrip("/"))
        asked = self.headers.get("Range", "")
        mirror.ranges.append(asked)
        if content is None:
            self.send_error(404)
            return
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        start = 0
        if mirror.resumes and asked and self.headers.get("If-Range", etag) == etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Type", mirror.content_type)
        self.send_header("ETag", etag)
        if mirror.has_length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self._send(content[start:])

    def _send(self, body: bytes) -> None:
        limit = len(body) if self.mirror.cut_after is None else min(len(body), self.mirror.cut_after)
        try:
            for position in range(0, limit, PIECE):
                piece = body[position : min(limit, position + PIECE)]
                self.wfile.write(piece)
                self.mirror.sent += len(piece)
                time.sleep(self.mirror.pause)
        except (BrokenPipeError, ConnectionResetError):  # the client was killed
            return
        if limit < len(body):
            self.mirror.after_cut()
            self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def tar_of(files: Mapping[str, bytes], *others: tarfile.TarInfo) -> bytes:
    """Return a tar.gz of files by name, and of `others`, which have no content."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for other in others:
            tar.addfile(other)
    return target.getvalue()


def zip_of(files: Mapping[str, bytes], *others: zipfile.ZipInfo) -> bytes:
    """Return a zip of files by name, compressed by bzip2 as FMA's are, and of `others`, which are links to /etc."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_BZIP2) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
        for other in others:
            opened.writestr(other, "/etc")
    return target.getvalue()


def checksum_of(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
