"""Memory of this process: its peak, and whether freed blocks are kept or returned to the system."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

_REUSED, _KEPT = 32 << 20, 256 << 20  # bytes: the largest block that is reused; freed memory that is kept
# The environment of a new process that reuses freed memory as in `reuse_freed`. A decoder allocates and frees the same
# megabytes for every file: page faults for new blocks take a third of the time of a 30 s clip and half of that of 3 s.
REUSING = {"MALLOC_MMAP_THRESHOLD_": str(_REUSED), "MALLOC_TRIM_THRESHOLD_": str(_KEPT)}


def reset_peak() -> None:
    """Reset the peak, since a process may train several models. Works on Linux only."""
    import torch  # processes that decode call `keep_freed` and never load torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float | None:
    """Return the peak in MiB, on the GPU where there is one, else in main memory; None where it is unknown."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), None)


def keep_freed() -> None:
    """Keep freed memory in this process, so that the next batch reuses it; glibc only.

    By default glibc returns large blocks to the system when they are freed. The page faults for the next ones take up
    to half of the time of a training step on a CPU, and a fifth of the time of a worker of `prepare`.
    """
    _set_malloc_options({-4: 0, -1: 2**31 - 1})  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h


def return_freed() -> None:
    """Return freed memory to the system at once; glibc only.

    For processes that hold long tables for a moment: Arrow's own allocator never returns memory, and glibc keeps
    blocks that are smaller than the largest one freed so far.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    _set_malloc_options({-3: 64 << 10})  # M_MMAP_THRESHOLD of malloc.h


@contextlib.contextmanager
def reuse_freed() -> Iterator[None]:
    """Reuse freed memory within the block as after `keep_freed`; return it to the system afterwards.

    For work on large arrays in a process that called `return_freed`, where every new array would cost page faults.
    """
    _set_malloc_options({-3: _REUSED, -1: _KEPT})  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    try:
        yield
    finally:
        _set_malloc_options({-3: 64 << 10, -1: 128 << 10})


def _set_malloc_options(options: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)
