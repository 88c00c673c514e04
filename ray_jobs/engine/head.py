"""Notice that the head of a cluster is gone: Ray would wait for it without end, and for one that was never there."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator

PATIENCE_SECONDS = 20.0
_EVERY_SECONDS = 1.0
_ANSWER_SECONDS = 5.0


def answers(address: str) -> bool:
    """Whether something listens at `address`, a host and a port."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def watched(address: str) -> Iterator[None]:
    """While a job runs: when the head at `address` has not answered for some time, say so and end this process.

    Whatever else went wrong by then follows from it, and what Ray does at its own end would never return.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_EVERY_SECONDS):
            _require(address)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except Exception:
        _require(address)
        raise
    finally:
        over.set()


def _require(address: str) -> None:
    """Return when the head answers, or end this process."""
    began = time.monotonic()
    while not answers(address):
        if time.monotonic() - began > PATIENCE_SECONDS:
            told = f"error: the head of the cluster, {address}, has not answered for {PATIENCE_SECONDS:.0f} s; "
            print(told + "start a new one, and the same command goes on there", file=sys.stderr, flush=True)
            os._exit(1)
        time.sleep(_EVERY_SECONDS)
