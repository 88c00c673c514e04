"""The processes of a job, read from /proc (Linux)."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def stat(pid: int) -> list[str]:
    """Return the fields of proc(5)'s stat after the name: state, parent, ...; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def command(pid: int) -> str:
    """Return the command line of a process; "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    fields = stat(pid)
    return bool(fields) and fields[0] != "Z"


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of a process so far; 0 when it is gone."""
    fields = stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND if fields else 0.0


def peak_mb(pid: int) -> float:
    """Return the peak of the resident memory of a process in MiB; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def children(parent: int) -> list[int]:
    """Return the ids of the processes that `parent` started."""
    pids = (int(folder.name) for folder in Path("/proc").glob("[0-9]*"))
    return [pid for pid in pids if (fields := stat(pid)) and int(fields[1]) == parent]


def descendants(ancestor: int) -> list[int]:
    """Return the ids of all processes below `ancestor`."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        fields = stat(int(folder.name))
        if fields:
            parents[int(folder.name)] = int(fields[1])
    family = [ancestor]
    for member in family:  # grows during the loop
        family += [pid for pid, parent in parents.items() if parent == member]
    return family[1:]


def held_mb(pid: int) -> float:
    """Return the anonymous and shared memory of a process in MiB, a page of n processes counted as 1/n; 0 if gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))


def watch_memory(job: subprocess.Popen[bytes], every_seconds: float = 0.5) -> tuple[float, float]:
    """Wait for a job. Return the peak of `held_mb` of it and its descendants together, and of it alone."""
    peak = alone = 0.0
    while job.poll() is None:
        own = held_mb(job.pid)
        peak = max(peak, own + sum(map(held_mb, descendants(job.pid))))
        alone = max(alone, own)
        time.sleep(every_seconds)
    return peak, alone


@contextlib.contextmanager
def memory_limit(gib: float) -> Iterator[None]:
    """Put this process into a memory cgroup within the block; processes that it starts there stay in it. 0: no limit.

    The limit covers the page cache as well. Needs root; both versions of cgroups are supported.
    """
    if not gib:
        yield
        return
    root = Path("/sys/fs/cgroup")
    old = (root / "memory").is_dir()
    base = root / "memory" if old else root
    own = next(
        line.split(":", 2)[2]
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if (line.split(":", 2)[1] == "memory" if old else line.startswith("0::"))
    )
    group = base / f"genre-{os.getpid()}"
    group.mkdir(exist_ok=True)
    (group / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(round(gib * 2**30)))
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (base / own.lstrip("/") / "cgroup.procs").write_text(str(os.getpid()))
        atexit.register(_remove, group)  # processes that were started there are still in it


def _remove(group: Path) -> None:
    with contextlib.suppress(OSError):  # it is not empty, or it is gone
        group.rmdir()
