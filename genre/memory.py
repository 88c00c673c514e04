"""Peak memory of this process, on the device that it computes on."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch


def reset_peak() -> None:
    """Forget earlier peaks: a process may train one model after another. Linux only, elsewhere they stay."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float | None:
    """MiB allocated on the GPU where there is one, else resident in main memory; None where nobody knows."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), None)
