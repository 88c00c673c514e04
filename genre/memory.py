"""Memory of this process: its peak, on the device that it computes on, and what becomes of freed blocks."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path


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
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in ((-4, 0), (-1, 2**31 - 1)):  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
            mallopt(option, value)
