"""The child process, with real crashes, hangs and memory limits, caused by functions of the standard library."""

from __future__ import annotations

import ctypes
import functools
import operator
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from genre.audio.isolation import IsolatedKernel
from genre.errors import AudioError, Reason

Isolate = Callable[..., IsolatedKernel]


@pytest.fixture
def isolated() -> Iterator[Isolate]:
    """Yield a factory of kernels that are closed at the end: `isolated(function)` calls `function(item)` in a child."""
    kernels: list[IsolatedKernel] = []

    def make(function: Callable[..., Any], *arguments: Any, **options: Any) -> IsolatedKernel:
        kernels.append(IsolatedKernel(functools.partial, function, *arguments, **options))
        return kernels[-1]

    yield make
    for kernel in kernels:
        kernel.close()


def child_of(kernel: IsolatedKernel) -> int:
    assert kernel.pid is not None
    return kernel.pid


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return not file.read().rsplit(")", 1)[1].startswith(" Z")
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_one_child_serves_all_items(isolated: Isolate) -> None:
    kernel = isolated(operator.mul, 3)
    assert kernel.pid is None
    assert kernel(2, 60) == 6
    child = kernel.pid
    assert [kernel(item, 60) for item in ("a", [1])] == ["aaa", [1, 1, 1]]
    assert kernel.pid == child != os.getpid()


@pytest.mark.parametrize(
    ("function", "item", "cause"),
    [
        (signal.raise_signal, signal.SIGKILL, "signal SIGKILL"),  # what the kernel does when memory runs out
        (ctypes.string_at, 1, "signal SIGSEGV"),
        (os._exit, 3, "exit code 3"),
        (signal.raise_signal, signal.SIGRTMIN + 1, "signal"),
    ],
)
def test_a_crash_affects_one_item(isolated: Isolate, function: Callable[..., Any], item: int, cause: str) -> None:
    kernel = isolated(function)
    with pytest.raises(AudioError, match=cause) as caught:
        kernel(item, 60)
    assert caught.value.reason is Reason.CRASHED
    assert "2 times" in str(caught.value)


def test_the_next_item_gets_a_new_child(isolated: Isolate) -> None:
    kernel = isolated(ctypes.string_at)
    with pytest.raises(AudioError):
        kernel(1, 60)
    buffer = b"music"
    assert kernel(buffer, 60) == buffer


def test_an_item_is_retried_after_a_kill_from_outside(isolated: Isolate) -> None:
    kernel = isolated(time.sleep)
    kernel(0, 60)
    os.kill(child_of(kernel), signal.SIGKILL)  # while it waits
    assert kernel(0.1, 60) is None
    threading.Timer(0.3, os.kill, (child_of(kernel), signal.SIGKILL)).start()  # while it works
    assert kernel(0.8, 60) is None


def test_a_hang_ends_at_the_timeout(isolated: Isolate) -> None:
    kernel = isolated(time.sleep)
    kernel(0, 60)
    child, started = child_of(kernel), time.monotonic()
    with pytest.raises(AudioError, match=r"longer than decoding.file_timeout_s=0.5") as caught:
        kernel(60, 0.5)
    assert caught.value.reason is Reason.TIMED_OUT
    assert time.monotonic() - started < 30
    assert not alive(child)
    assert kernel(0, 60) is None


def test_after_an_interrupt_results_belong_to_their_items(isolated: Isolate) -> None:
    kernel = isolated(operator.mul, 3)
    kernel(1, 60)
    os.kill(child_of(kernel), signal.SIGSTOP)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        kernel(5, 60)
    assert kernel(7, 60) == 21


def test_a_stopped_child_times_out(isolated: Isolate) -> None:
    kernel = isolated(time.sleep)
    kernel(0, 60)
    os.kill(child_of(kernel), signal.SIGSTOP)
    with pytest.raises(AudioError, match="took longer"):
        kernel(0, 0.5)


def test_memory_is_limited(isolated: Isolate) -> None:
    kernel = isolated(bytes, memory_mb=400)
    with pytest.raises(AudioError, match=r"decoding\.max_file_memory_mb") as caught:
        kernel(1 << 30, 60)
    assert caught.value.reason is Reason.ABSURD_HEADER
    assert kernel(10, 60) == bytes(10)
    assert len(isolated(bytes)(450 << 20, 60)) == 450 << 20  # no limit


def test_an_unexpected_exception_is_named(isolated: Isolate) -> None:
    kernel = isolated(operator.truediv, 1)
    with pytest.raises(AudioError, match="ZeroDivisionError: division by zero") as caught:
        kernel(0, 60)
    assert caught.value.reason is Reason.UNREADABLE
    assert kernel(2, 60) == 0.5


def test_a_result_that_cannot_be_pickled_is_named(isolated: Isolate) -> None:
    with pytest.raises(AudioError, match="cannot pickle"):
        isolated(memoryview)(b"music", 60)


def test_an_error_of_the_factory_is_raised_unchanged() -> None:
    kernel = IsolatedKernel(operator.truediv, 1, 0)
    with pytest.raises(ZeroDivisionError):
        kernel("any", 60)
    assert kernel.pid is None


def test_threads_take_turns(isolated: Isolate) -> None:
    kernel = isolated(operator.mul, 7)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda item: kernel(item, 60), range(200)))
    assert results == [7 * item for item in range(200)]


def test_shared_kernels_are_created_once() -> None:
    first = IsolatedKernel.shared(functools.partial, operator.mul, 2)
    assert first(1, 60) == 2
    child = child_of(first)
    assert IsolatedKernel.shared(functools.partial, operator.mul, 2) is first
    other = IsolatedKernel.shared(functools.partial, operator.mul, 3)
    assert other is not first
    assert not alive(child)
    other.close()


PARENT = """
import functools, sys, time
from genre.audio.isolation import IsolatedKernel
kernel = IsolatedKernel(functools.partial, time.sleep)
kernel(0, 60)
print(kernel.pid, flush=True)
kernel(float(sys.argv[1]), 60)
if sys.argv[1] == "0":
    sys.exit(0)
"""


@pytest.mark.parametrize("seconds", ["0", "30"])
def test_no_child_outlives_its_parent(seconds: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, seconds], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    if seconds != "0":
        parent.kill()  # in the middle of the call
    parent.wait()
    parent.stdout.close()
    assert wait_until(lambda: not alive(child))


def test_a_child_that_cannot_start_is_no_error_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match=r"did not start \(exit code 1\)"):
        IsolatedKernel(functools.partial, operator.mul, 2)(1, 60)
