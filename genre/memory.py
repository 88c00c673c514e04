"""Memory of this process: its peak, on the device that it computes on, and what becomes of freed blocks."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa


def reset_peak() -> None:
    """Forget earlier peaks: a process may train one model after another. Linux only, elsewhere they stay."""
    import torch  # not at the top: processes that decode need `keep_freed` and no torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float | None:
    """MiB allocated on the GPU where there is one, else resident in main memory; None where nobody knows."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), None)


def keep_freed() -> None:
    """Let this process reuse the memory of one batch in the next, where the C library is glibc.

    By default glibc gives large blocks back to the system when they are freed. Then every batch on a CPU
    spends up to half its time on page faults, for activations that lay there a moment before; and a worker of
    `prepare` a fifth of its own.
    """
    _tell_malloc({-4: 0, -1: 2**31 - 1})  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h


def return_freed() -> None:
    """Let the columns of long lists go back to the system as soon as they are freed, where the C library is glibc.

    Arrow's own allocator keeps for good what was needed for a moment, and glibc takes blocks for itself that are
    smaller than the largest one freed so far.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    _tell_malloc({-3: 64 << 10})  # M_MMAP_THRESHOLD of malloc.h


@contextlib.contextmanager
def reuse_freed() -> Iterator[None]:
    """Within the block, reuse freed memory as after `keep_freed`; afterwards freed blocks go back to the system.

    For work on large arrays in a process that called `return_freed`: there every new array costs page faults.
    """
    _tell_malloc({-3: 32 << 20, -1: 256 << 20})  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    try:
        yield
    finally:
        _tell_malloc({-3: 64 << 10, -1: 128 << 10})


def _tell_malloc(options: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)
