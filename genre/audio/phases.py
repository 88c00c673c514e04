"""The phases of an item in a child process: its file is read, then decoded. Each has the item's time limit.

A read that takes too long is a fault of the storage; decoding that takes too long is a property of the file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from enum import Enum


class Phase(Enum):
    """What a child process is doing."""

    READING = "reading"
    DECODING = "decoding"


Listener = Callable[[Phase], None]
_listeners: list[Listener] = []


def listen(listener: Listener) -> None:
    """Call `listener` at the start of each phase, as long as this process lives."""
    _listeners.append(listener)


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Report that this process reads a file, and on leaving without an error that it decodes."""
    _report(Phase.READING)
    yield
    _report(Phase.DECODING)


def _report(phase: Phase) -> None:
    for listener in _listeners:
        listener(phase)
