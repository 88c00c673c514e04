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

from genre.audio.isolation import IsolatedFunction
from genre.errors import AudioError, Reason

Isolate = Callable[..., IsolatedFunction]


@pytest.fixture
def isolated() -> Iterator[Isolate]:
    """Yield a factory of kernels that are closed at the end: `isolated(function)` calls `function(item)` in a child."""
    kernels: list[IsolatedFunction] = []

    def make(function: Callable[..., Any], *arguments: Any, **options: Any) -> IsolatedFunction:
        kernels.append(IsolatedFunction(functools.partial, function, *arguments, **options))
        return kernels[-1]

    yield make
    for runner in kernels:
        runner.close()


def child_of(runner: IsolatedFunction) -> int:
    assert runner.pid is not None
    return runner.pid


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
    runner = isolated(operator.mul, 3)
    assert runner.pid is None
    assert runner(2, 60) == 6
    child = runner.pid
    assert [runner(item, 60) for item in ("a", [1])] == ["aaa", [1, 1, 1]]
    assert runner.pid == child != os.getpid()


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
    runner = isolated(function)
    with pytest.raises(AudioError, match=cause) as caught:
        runner(item, 60)
    assert caught.value.reason is Reason.CRASHED
    assert "2 times" in str(caught.value)


def test_the_next_item_gets_a_new_child(isolated: Isolate) -> None:
    runner = isolated(ctypes.string_at)
    with pytest.raises(AudioError):
        runner(1, 60)
    buffer = b"music"
    assert runner(buffer, 60) == buffer


def test_an_item_is_retried_after_a_kill_from_outside(isolated: Isolate) -> None:
    runner = isolated(time.sleep)
    runner(0, 60)
    os.kill(child_of(runner), signal.SIGKILL)  # while it waits
    assert runner(0.1, 60) is None
    threading.Timer(0.3, os.kill, (child_of(runner), signal.SIGKILL)).start()  # while it works
    assert runner(0.8, 60) is None


def test_a_hang_ends_at_the_timeout(isolated: Isolate) -> None:
    runner = isolated(time.sleep)
    runner(0, 60)
    child, started = child_of(runner), time.monotonic()
    with pytest.raises(AudioError, match=r"longer than decoding.file_timeout_s=0.5") as caught:
        runner(60, 0.5)
    assert caught.value.reason is Reason.TIMED_OUT
    assert time.monotonic() - started < 30
    assert not alive(child)
    assert runner(0, 60) is None


def test_after_an_interrupt_results_belong_to_their_items(isolated: Isolate) -> None:
    runner = isolated(operator.mul, 3)
    runner(1, 60)
    os.kill(child_of(runner), signal.SIGSTOP)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        runner(5, 60)
    assert runner(7, 60) == 21


def test_a_stopped_child_times_out(isolated: Isolate) -> None:
    runner = isolated(time.sleep)
    runner(0, 60)
    os.kill(child_of(runner), signal.SIGSTOP)
    with pytest.raises(AudioError, match="took longer"):
        runner(0, 0.5)


def test_memory_is_limited(isolated: Isolate) -> None:
    runner = isolated(bytes, memory_mb=400)
    with pytest.raises(AudioError, match=r"decoding\.max_file_memory_mb") as caught:
        runner(1 << 30, 60)
    assert caught.value.reason is Reason.ABSURD_HEADER
    assert runner(10, 60) == bytes(10)
    assert len(isolated(bytes)(450 << 20, 60)) == 450 << 20  # no limit


def test_an_unexpected_exception_is_named(isolated: Isolate) -> None:
    runner = isolated(operator.truediv, 1)
    with pytest.raises(AudioError, match="ZeroDivisionError: division by zero") as caught:
        runner(0, 60)
    assert caught.value.reason is Reason.UNREADABLE
    assert runner(2, 60) == 0.5


def test_a_result_that_cannot_be_pickled_is_named(isolated: Isolate) -> None:
    with pytest.raises(AudioError, match="cannot pickle"):
        isolated(memoryview)(b"music", 60)


def test_an_error_of_the_factory_is_raised_unchanged() -> None:
    runner = IsolatedFunction(operator.truediv, 1, 0)
    with pytest.raises(ZeroDivisionError):
        runner("any", 60)
    assert runner.pid is None


def test_threads_take_turns(isolated: Isolate) -> None:
    runner = isolated(operator.mul, 7)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda item: runner(item, 60), range(200)))
    assert results == [7 * item for item in range(200)]


def test_shared_kernels_are_created_once() -> None:
    first = IsolatedFunction.shared(functools.partial, operator.mul, 2)
    assert first(1, 60) == 2
    child = child_of(first)
    assert IsolatedFunction.shared(functools.partial, operator.mul, 2) is first
    other = IsolatedFunction.shared(functools.partial, operator.mul, 3)
    assert other is not first
    assert not alive(child)
    other.close()


PARENT = """
import functools, sys, time
from genre.audio.isolation import IsolatedFunction
runner = IsolatedFunction(functools.partial, time.sleep)
runner(0, 60)
print(runner.pid, flush=True)
runner(float(sys.argv[1]), 60)
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
        IsolatedFunction(functools.partial, operator.mul, 2)(1, 60)
