"""Messages between a process and its child, with large arrays in shared memory.

A pipe copies every byte into the kernel and out again, a few kilobytes at a time, and wakes both sides each time. The
spectrogram of a clip takes 0.2 ms through a pipe and 0.01 ms through shared memory.
"""

from __future__ import annotations

import math
import mmap
import os
import pickle
import select
import socket
import struct
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, Self

_SHARED = 32 << 20  # bytes; if a message needs more, all of it goes through the socket. Unused pages cost no memory
_SIZE = struct.Struct("=q")


class Channel:
    """One of two ends that take turns: either side sends only after the previous message was received."""

    def __init__(self, connection: Connection, memory: mmap.mmap) -> None:
        self._connection, self._memory = connection, memory
        # one poller for all calls: Connection.poll creates one each time, which takes as long as everything else
        self._poller = select.poll()
        self._poller.register(connection, select.POLLIN)

    @classmethod
    def pair(cls) -> tuple[Self, list[int]]:
        """Return one end, and the descriptors from which the child makes the other end. The caller closes them."""
        ours, theirs = socket.socketpair()
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("genre")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, _SHARED)
        end = cls(Connection(ours.detach()), mmap.mmap(descriptor, _SHARED))
        return end, [theirs.detach(), descriptor]

    @classmethod
    def of(cls, descriptors: list[int]) -> Self:
        """Return the other end, in the child."""
        connection, memory = descriptors
        return cls(Connection(connection), mmap.mmap(memory, _SHARED))

    def send(self, message: Any) -> None:
        """Send a message.

        Raises pickle's errors, before anything is sent, and `ConnectionError` when the other end is gone.
        """
        buffers: list[pickle.PickleBuffer] = []
        content = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
        views = [buffer.raw() for buffer in buffers]
        if sum(_SIZE.size + view.nbytes for view in views) > _SHARED:
            content, views = pickle.dumps(message, protocol=5), []
        end = 0
        for view in views:
            begin = end + _SIZE.size
            _SIZE.pack_into(self._memory, end, view.nbytes)
            end = begin + view.nbytes
            self._memory[begin:end] = view
        self._connection.send_bytes(content)

    def receive(self) -> Any:
        """Return the next message, with read-only copies of its arrays.

        Raises `EOFError` or `ConnectionError` when the other end is gone.
        """
        content = self._connection.recv_bytes()
        return pickle.loads(content, buffers=self._buffers())  # noqa: S301 - from our own parent or child

    def poll(self, seconds: float) -> bool:
        """Return whether, within `seconds`, a message arrives or the other end closes."""
        return bool(self._poller.poll(math.ceil(1000 * seconds)))

    def _buffers(self) -> Iterator[bytes]:
        """Yield the buffers of a message as pickle requests them; each is stored after its size."""
        end = 0
        while True:
            (size,) = _SIZE.unpack_from(self._memory, end)
            begin, end = end + _SIZE.size, end + _SIZE.size + size
            yield self._memory[begin:end]

    def close(self) -> None:
        self._connection.close()
        self._memory.close()
