"""A function in a process of its own, so that a file that crashes or hangs a decoder costs only itself.

The child is a plain interpreter (not a fork: the parent has threads), started at the first item and used
for all; after a crash or a time-out it is replaced.

What a file can do to the child, and what comes of it:

- it raises an `AudioError`: that error;
- it raises anything else: `AudioError` unreadable, with the exception's name. One odd file must not end
  a job of a hundred thousand; a fault of the function itself hits all files and fails the job by their share;
- it needs more memory than allowed: absurd_header, or crashed where a library does not check what it allocates;
- it kills the process: crashed, once it has done so twice; the first time may have been somebody else's kill;
- it takes too long: timed_out.
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

from genre.audio.channel import Channel
from genre.errors import AudioError, Reason

_START_SECONDS = 120.0  # importing the decoders on a machine that is busy
_TRIES = 2  # before a file is blamed for a crash

# A decoder allocates and frees the same megabytes for every file. By default glibc gives such blocks back to
# the kernel at once and takes page faults for new ones, a third of the time of a 30 s clip and half of a 3 s one.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
# Parallelism is one child per CPU; threads of linear algebra and of OpenCV below it would only compete.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
_ONE_THREAD = dict.fromkeys(_THREADS, "1")

_shared: dict[bytes, IsolatedKernel] = {}
_shared_lock = threading.Lock()


class IsolatedKernel:
    """Calls `factory(*arguments)(item)` in a child process, with a time limit for each item.

    All of them must be picklable. `memory_mb` limits the child's private memory, 0 does not. Calls from
    several threads take turns.
    """

    def __init__(self, factory: Callable[..., Callable[[Any], Any]], *arguments: Any, memory_mb: int = 0) -> None:
        self._setup = factory, arguments, memory_mb
        self._child: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._lock = threading.Lock()

    @classmethod
    def shared(
        cls, factory: Callable[..., Callable[[Any], Any]], *arguments: Any, memory_mb: int = 0
    ) -> IsolatedKernel:
        """The one kernel of this process for these arguments; asking with others replaces it."""
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
        """The child's process, if there is one now."""
        return self._child.pid if self._child else None

    def __call__(self, item: Any, timeout: float) -> Any:
        """The function's result. Raises `AudioError`, or whatever the factory raised in the child."""
        with self._lock:
            for attempt in range(1, _TRIES + 1):
                try:
                    succeeded, value = self._ask(item, timeout)
                    break
                except (EOFError, ConnectionError):
                    death = self._how_it_died()
                    if attempt == _TRIES:
                        message = f"the decoding process died {_TRIES} times ({death})"
                        raise AudioError(Reason.CRASHED, message) from None
        if not succeeded:
            raise value
        return value

    def close(self) -> None:
        """End the child, if there is one. Waits for a call under way in another thread."""
        with self._lock:
            self._end()

    def _ask(self, item: Any, timeout: float) -> Any:
        channel = self._channel or self._start()
        try:
            channel.send((item, timeout))
            if not channel.poll(timeout):
                raise AudioError(Reason.TIMED_OUT, f"took longer than decoding.file_timeout_s={timeout:g}")
            return channel.receive()
        except (EOFError, ConnectionError):
            raise
        except BaseException:  # an interrupt among them: the next answer would be that to this item
            self._end()
            raise

    def _start(self) -> Channel:
        """A child that is ready. Raises what the factory raised, or `RuntimeError` when none comes up."""
        for _ in range(_TRIES):
            self._channel = channel = self._spawn()
            try:
                channel.send(self._setup)
                succeeded, error = (
                    channel.receive() if channel.poll(_START_SECONDS) else (False, _no_start("no answer"))
                )
            except (EOFError, ConnectionError):
                error = _no_start(self._how_it_died())
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

    def _how_it_died(self) -> str:
        assert self._child is not None
        try:  # the pipe may close a moment before the process ends
            code = self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = 0
        self._end()
        return _signal_name(-code) if code < 0 else f"exit code {code}"


def environment() -> dict[str, str]:
    """Variables of a child that finds the modules its parent finds, whatever put them on the path."""
    package_root = str(Path(__file__).resolve().parents[2])
    paths = [package_root, *(path for path in sys.path if path)]
    return _KEEP_MEMORY | os.environ | _ONE_THREAD | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def _no_start(why: str) -> RuntimeError:
    return RuntimeError(
        f"the decoding process did not start ({why}); see whether python can import genre.features.preparation"
    )


def _signal_name(number: int) -> str:
    try:
        return f"signal {signal.Signals(number).name}"
    except ValueError:  # real-time signals have no names
        return f"signal {number}"


# ---- the child ----------------------------------------------------------------------------------


def _serve(parent: int, descriptors: list[int]) -> None:
    """Build the function, then answer items until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_exit_without, args=(parent,), daemon=True).start()
    channel = Channel.of(descriptors)
    try:
        factory, arguments, memory_mb = channel.receive()
        function = factory(*arguments)
        _die_first(memory_mb)
    except Exception as error:
        channel.send((False, portable(error)))
        return
    channel.send((True, None))
    _silence_stderr()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            item, timeout = channel.receive()
            # should the parent be gone while a decoder holds Python's lock, nothing in here could notice
            signal.alarm(math.ceil(timeout) + 10)
            _answer(channel, function, item)
            signal.alarm(0)


def _answer(channel: Channel, function: Callable[[Any], Any], item: Any) -> None:
    try:
        channel.send((True, function(item)))
    except ConnectionError:
        raise
    except AudioError as error:
        channel.send((False, error))
    except MemoryError:
        message = "needs more than decoding.max_file_memory_mb to decode"
        channel.send((False, AudioError(Reason.ABSURD_HEADER, message)))
    except Exception as error:
        channel.send((False, AudioError(Reason.UNREADABLE, f"{type(error).__name__}: {error}")))


def portable(error: Exception) -> Exception:
    """The error, or its name where pickle cannot carry it."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - some errors break only when they are read
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _die_first(memory_mb: int) -> None:
    """Limit this process's private memory, and let it be the one that the kernel ends when memory runs out."""
    if memory_mb:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = memory_mb << 20
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _silence_stderr() -> None:
    """Decoders write what they think of a damaged file straight to the terminal."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)


def _exit_without(parent: int) -> None:
    """End this process when the parent is gone, even in the middle of a hanging decoder."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), [int(descriptor) for descriptor in sys.argv[2:]])
