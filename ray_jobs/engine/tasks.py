"""Wait for Ray tasks, with progress."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import ray

from ray_jobs.engine.progress import JobProgress

POLL_SECONDS = 1.0


def collect(tasks: Sequence[Any], progress: JobProgress, label: str) -> list[Any]:
    """Return the results of all tasks, in their order. Raises the error of the first task that failed."""
    for task in finished(tasks, progress, label):
        ray.get(task)
    return list(ray.get(list(tasks)))


def finished(tasks: Sequence[Any], progress: JobProgress, label: str) -> Iterator[Any]:
    """Yield each task when it has finished or failed, and show "3 of 7 LABEL" as progress."""
    waiting, done = list(tasks), 0
    while waiting:
        ready, waiting = ray.wait(waiting, timeout=POLL_SECONDS)
        yield from ready
        done += len(ready)
        progress.step(len(ready), f"{done} of {len(tasks)} {label}")
