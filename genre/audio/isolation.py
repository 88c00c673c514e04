"""Run a function in a child process, so that a file that crashes or hangs a decoder affects no other file.

The child is a new interpreter (not a fork: the parent has threads). It starts with the first item and serves all
items; after a crash or a timeout it is replaced.

Possible failures, and the `AudioError` that the parent raises:

- the function raises an `AudioError`: that error;
- it raises another exception: unreadable, with the exception's name. A single file must not end a job of a hundred
  thousand. An error in the function itself rejects all files, and the job fails by `prepare.max_reject_fraction`;
- it needs more memory than allowed: absurd_header, or crashed where a library does not check its allocations;
- the child dies twice: crashed. The first time, the item is tried again: the kill may have had another cause;
- decoding takes too long: timed_out.

A fault of the storage, or a read that takes too long, is no property of the file: the parent raises `StorageError`.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genre import memory
from genre.audio import phases
from genre.audio.channel import Channel
from genre.audio.phases import Phase
from genre.errors import AudioError, Reason, StorageError

_START_SECONDS = 120.0  # importing the decoders on a busy machine
_TRIES = 2  # before a file is considered the cause of a crash

# There is one child per CPU; threads of linear algebra and OpenCV in each would only compete.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
_ONE_THREAD = dict.fromkeys(_THREADS, "1")

_shared: dict[bytes, IsolatedFunction] = {}
_shared_lock = threading.Lock()


class IsolatedFunction:
    """Calls `factory(*arguments)(item)` in a child process, with a time limit for each item.

    Factory, arguments, items and results must be picklable. `memory_mb` limits the child's private memory; 0 is no
    limit. Calls from several threads take turns.
    """

    def __init__(self, factory: Callable[..., Callable[[Any], Any]], *arguments: Any, memory_mb: int = 0) -> None:
        self._setup = factory, arguments, memory_mb
        self._child: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._lock = threading.Lock()

    @classmethod
    def shared(
        cls, factory: Callable[..., Callable[[Any], Any]], *arguments: Any, memory_mb: int = 0
    ) -> IsolatedFunction:
        """Return this process's shared child for these arguments; a call with other arguments replaces it."""
        key = pickle.dumps((factory, arguments, memory_mb))
        with _shared_lock:
            if key not in _shared:
                for other in _shared.values():
                    other.close()
                _shared.clear()
                _shared[key] = cls(factory, *arguments, memory_mb=memory_mb)
            return _shared[key]

    @property
    def pid(self) -> int | None:
        """The child's process id, None when there is no child."""
        return self._child.pid if self._child else None

    def __call__(self, item: Any, timeout: float) -> Any:
        """Return the function's result. Reading a file and decoding it may each take `timeout` seconds.

        Raises `AudioError`, `StorageError`, or the exception of the factory in the child.
        """
        with self._lock:
            for attempt in range(1, _TRIES + 1):
                try:
                    succeeded, value = self._ask(item, timeout)
                    break
                except (EOFError, ConnectionError):
                    cause = self._cause_of_death()
                    if attempt == _TRIES:
                        message = f"the decoding process died {_TRIES} times ({cause})"
                        raise AudioError(Reason.CRASHED, message) from None
        if not succeeded:
            raise value
        return value

    def close(self) -> None:
        """End the child, if there is one. Waits for a running call of another thread."""
        with self._lock:
            self._end()

    def _ask(self, item: Any, timeout: float) -> Any:
        channel = self._channel or self._start()
        try:
            channel.send((item, timeout))
            phase = Phase.DECODING
            while True:
                if not channel.poll(timeout):
                    raise _overdue(item, phase, timeout)
                answer = channel.receive()
                if not isinstance(answer, Phase):
                    return answer
                phase = answer
        except (EOFError, ConnectionError):
            raise
        except BaseException:  # also an interrupt: the next answer of this child would belong to this item
            self._end()
            raise

    def _start(self) -> Channel:
        """Start a child. Raises the factory's exception, or `RuntimeError` when the child does not start."""
        for _ in range(_TRIES):
            self._channel = channel = self._spawn()
            try:
                channel.send(self._setup)
                succeeded, error = (
                    channel.receive() if channel.poll(_START_SECONDS) else (False, _start_error("no answer"))
                )
            except (EOFError, ConnectionError):
                error = _start_error(self._cause_of_death())
                continue
            if succeeded:
                return channel
            break
        self._end()
        raise error

    def _spawn(self) -> Channel:
        channel, descriptors = Channel.pair()
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "genre.audio.isolation", str(os.getpid()), *map(str, descriptors)],
                pass_fds=descriptors,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return channel

    def _end(self) -> None:
        if self._channel is not None:
            self._channel.close()
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        self._channel = self._child = None

    def _cause_of_death(self) -> str:
        assert self._child is not None
        try:  # the connection may close a moment before the process ends
            code: int | None = self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        self._end()
        if code is None:
            return "killed after it closed its connection"
        return _signal_name(-code) if code < 0 else f"exit code {code}"


def environment() -> dict[str, str]:
    """Return the environment of a child that finds the same modules as this process, however they are found."""
    package_root = str(Path(__file__).resolve().parents[2])
    paths = [package_root, *(path for path in sys.path if path)]
    return memory.REUSING | os.environ | _ONE_THREAD | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def _overdue(item: Any, phase: Phase, timeout: float) -> Exception:
    limit = f"decoding.file_timeout_s={timeout:g}"
    if phase is Phase.READING:
        return StorageError(f"{item} was not read within {limit}; run the same command again when its storage answers")
    return AudioError(Reason.TIMED_OUT, f"took longer than {limit}")


def _start_error(cause: str) -> RuntimeError:
    return RuntimeError(f"the decoding process did not start ({cause}); run the command again with --verbose")


def _signal_name(number: int) -> str:
    try:
        return f"signal {signal.Signals(number).name}"
    except ValueError:  # real-time signals have no names
        return f"signal {number}"


# ---- the child ----------------------------------------------------------------------------------


def _serve(parent: int, descriptors: list[int]) -> None:
    """Build the function, then process items until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()
    channel = Channel.of(descriptors)
    try:
        factory, arguments, memory_mb = channel.receive()
        function = factory(*arguments)
        _limit_memory(memory_mb)
    except Exception as error:
        channel.send((False, portable(error)))
        return
    channel.send((True, None))
    phases.listen(channel.send)
    _silence_stderr()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            item, timeout = channel.receive()
            # ends the child if the parent dies while a decoder holds the GIL, when no thread here could notice
            signal.alarm(2 * math.ceil(timeout) + 10)
            _answer(channel, function, item)
            signal.alarm(0)


def _answer(channel: Channel, function: Callable[[Any], Any], item: Any) -> None:
    try:
        channel.send((True, function(item)))
    except ConnectionError:
        raise
    except (AudioError, StorageError) as error:
        channel.send((False, error))
    except MemoryError:
        message = "needs more than decoding.max_file_memory_mb to decode"
        channel.send((False, AudioError(Reason.ABSURD_HEADER, message)))
    except Exception as error:
        channel.send((False, AudioError(Reason.UNREADABLE, f"{type(error).__name__}: {error}")))


def portable(error: Exception) -> Exception:
    """Return the error, or a `RuntimeError` with its name when it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - some errors fail only in loading
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _limit_memory(memory_mb: int) -> None:
    """Limit this process's private memory, and make the kernel end it first when memory runs out."""
    if memory_mb:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = memory_mb << 20
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _silence_stderr() -> None:
    """Discard standard error, where decoders write messages about damaged files."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)


def _exit_with(parent: int) -> None:
    """End this process when the process `parent` ends, even while a decoder hangs."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), [int(descriptor) for descriptor in sys.argv[2:]])
