"""Detect that the head of a cluster does not answer. Ray would wait for it forever."""

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


def is_listening(address: str) -> bool:
    """Return whether a process listens at `address`, a host and a port."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def watched(address: str) -> Iterator[None]:
    """Within the block, end this process with a message when the head at `address` stops answering.

    Errors that this causes are not reported. The process exits at once: `ray.shutdown` would not return.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_EVERY_SECONDS):
            _require(address)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except Exception:
        _require(address)
        raise
    finally:
        done.set()


def _require(address: str) -> None:
    """Wait until the head answers. End this process if it does not within `PATIENCE_SECONDS`."""
    began = time.monotonic()
    while not is_listening(address):
        if time.monotonic() - began > PATIENCE_SECONDS:
            message = (
                f"error: the head of the cluster, {address}, has not answered for {PATIENCE_SECONDS:.0f} s; "
                "start a new cluster and run the same command again to resume"
            )
            print(message, file=sys.stderr, flush=True)
            os._exit(1)
        time.sleep(_EVERY_SECONDS)
