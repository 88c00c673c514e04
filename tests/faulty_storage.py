"""An HTTP proxy in front of an S3 server that does what storage does on a bad day."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from genre.storage import location

Fault = Callable[
    ["Handler", int], bool
]  # takes a request and its number among those of its kind; returns whether it answered

_OF_THE_CONNECTION = ("connection", "transfer-encoding", "content-length", "expect")


class Handler(BaseHTTPRequestHandler):
    """Forwards a request to the server behind the proxy, unless the proxy's fault answers it."""

    protocol_version = "HTTP/1.1"
    server: Proxy

    def respond(self) -> None:
        number = self.server.count(self.command)
        self.body = self._read_body()
        self.server.requests.append(f"{self.command} {self.path}")
        if self.server.fault(self, number):
            self.server.faults += 1
        else:
            self.forward()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = respond  # noqa: N815 - names of the standard library

    def ask(self) -> tuple[http.client.HTTPResponse, bytes]:
        """Return the answer of the server and its body."""
        connection = http.client.HTTPConnection(*self.server.behind)
        headers = {name: text for name, text in self.headers.items() if name.lower() not in _OF_THE_CONNECTION}
        connection.request(self.command, self.path, self.body, headers | {"Content-Length": str(len(self.body))})
        with contextlib.closing(connection):
            answer = connection.getresponse()
            return answer, answer.read()

    def forward(self, share: float = 1.0) -> None:
        """Send the server's answer; with a `share` below 1 only that part of the body, then cut the connection."""
        answer, content = self.ask()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _OF_THE_CONNECTION:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(content[: int(share * len(content))])
        if share < 1:
            self.close_connection = True

    def refuse(self, status: int, code: str) -> None:
        """Answer with an error of S3."""
        content = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():  # headers behind the body
            pass
        return b"".join(pieces)

    def log_message(self, *_: Any) -> None:
        """Stay silent."""


class Proxy(ThreadingHTTPServer):
    """Counts requests, and gives each to `fault` first."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, endpoint: str, fault: Fault) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        host, _, port = endpoint.removeprefix("http://").partition(":")
        self.behind = host, int(port)
        self.fault = fault
        self.requests: list[str] = []
        self.faults = 0
        self._numbers: dict[str, Iterator[int]] = defaultdict(itertools.count)
        self._lock = threading.Lock()

    def count(self, command: str) -> int:
        """Return the number of earlier requests with this command."""
        with self._lock:
            return next(self._numbers[command])

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """Stay silent: clients close connections that they have given up."""


@contextlib.contextmanager
def proxy(endpoint: str, fault: Fault) -> Iterator[Proxy]:
    """Start a proxy of an endpoint with a fault."""
    with Proxy(endpoint, fault) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@contextlib.contextmanager
def behind(variables: dict[str, str], fault: Fault, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Send the requests of this process through a proxy with a fault; `variables` point to the server."""
    with proxy(variables["AWS_ENDPOINT_URL"], fault) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        location._client.cache_clear()
        yield server
    location._client.cache_clear()


def healthy(request: Handler, number: int) -> bool:
    """Answer nothing: the server behind does."""
    return False


def busy(request: Handler, number: int) -> bool:
    """Answer 503 to every tenth request."""
    if number % 10 == 3:
        request.refuse(503, "SlowDown")
        return True
    return False


def stalling(request: Handler, number: int) -> bool:
    """Accept every fortieth request and say nothing, longer than a client waits."""
    if number % 40 == 7:
        time.sleep(6)
        request.close_connection = True
        return True
    return False


def cutting(request: Handler, number: int) -> bool:
    """Cut the connection in the middle of the body of every tenth answer."""
    if request.command == "GET" and number % 10 == 3:
        request.forward(share=0.5)
        return True
    return False


def losing(request: Handler, number: int) -> bool:
    """Do what every tenth request to write or delete asks for, and cut the connection instead of an answer."""
    if request.command in ("PUT", "DELETE") and number % 10 == 3:
        request.ask()
        request.close_connection = True
        return True
    return False


def refusing(status: int, code: str, applies: Callable[[Handler], bool]) -> Fault:
    """Return a fault that answers with an error of S3 where it applies."""

    def fault(request: Handler, number: int) -> bool:
        if applies(request):
            request.refuse(status, code)
            return True
        return False

    return fault
