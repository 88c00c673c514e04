"""A function in a process of its own, so that a file that crashes or hangs a decoder costs only itself.

The child is a plain interpreter (not a fork: the parent has threads), started once and used for every
file; after a crash or a time-out it is replaced. Parent and child speak over a pipe.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from genre.errors import AudioError, Reason

_START_SECONDS = 120.0  # importing the decoders on a machine that is busy
_shared: dict[str, IsolatedKernel] = {}


class IsolatedKernel:
    """Calls `factory(*arguments)(item)` in a child process, with a time limit for each item."""

    def __init__(self, factory: Callable[..., Callable[[Any], Any]], *arguments: Any) -> None:
        self._setup = pickle.dumps((factory, arguments))
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    @classmethod
    def shared(cls, factory: Callable[..., Callable[[Any], Any]], *arguments: Any) -> IsolatedKernel:
        """The one kernel of this process for these arguments; another one replaces it."""
        key = pickle.dumps((factory, arguments)).hex()
        if key not in _shared:
            for other in _shared.values():
                other.close()
            _shared.clear()
            _shared[key] = cls(factory, *arguments)
        return _shared[key]

    def __call__(self, item: Any, timeout: float) -> Any:
        """The function's result. Raises what it raised, or `AudioError` (timed_out, crashed)."""
        pipe = self._pipe or self._start()
        try:
            pipe.send(item)
            if not pipe.poll(timeout):
                self.close()
                raise AudioError(Reason.TIMED_OUT, f"took longer than prepare.file_timeout_s={timeout:g}")
            succeeded, value = pipe.recv()
        except (EOFError, ConnectionError):
            raise AudioError(Reason.CRASHED, f"the decoding process died ({self._how_it_died()})") from None
        if not succeeded:
            raise value
        return value

    def close(self) -> None:
        """End the child, if there is one."""
        if self._pipe is not None:
            self._pipe.close()
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        self._pipe = self._child = None

    def _start(self) -> Connection:
        ours, theirs = socket.socketpair()
        package_root = str(Path(__file__).resolve().parent.parent)
        paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._child = subprocess.Popen(
            [sys.executable, "-m", "genre.isolation", str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._pipe = Connection(ours.detach())
        self._pipe.send_bytes(self._setup)
        if not self._pipe.poll(_START_SECONDS) or self._pipe.recv() != "ready":
            raise RuntimeError("the decoding process did not start")
        return self._pipe

    def _how_it_died(self) -> str:
        assert self._child is not None
        code = self._child.wait()
        self.close()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _serve(descriptor: int, parent: int) -> None:
    """The child: build the function, then answer items until the parent is gone."""
    threading.Thread(target=_exit_without, args=(parent,), daemon=True).start()
    pipe = Connection(descriptor)
    factory, arguments = pickle.loads(pipe.recv_bytes())  # noqa: S301 - from our own parent
    function = factory(*arguments)
    pipe.send("ready")
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            item = pipe.recv()
            try:
                answer = (True, function(item))
            except AudioError as error:
                answer = (False, error)
            except MemoryError:
                answer = (False, AudioError(Reason.ABSURD_HEADER, "decoding it needs more memory than there is"))
            pipe.send(answer)


def _exit_without(parent: int) -> None:
    """End this process when the parent is gone, even in the middle of a hanging decoder."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]))
