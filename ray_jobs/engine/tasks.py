"""Wait for Ray tasks, with progress."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import ray

from ray_jobs.engine.progress import JobProgress

POLL_SECONDS = 1.0


def finished(tasks: Iterable[Any], progress: JobProgress, detail: str = "") -> Iterator[Any]:
    """Yield each task when it has finished or failed, and show it as progress, with `detail`: what the tasks do."""
    waiting = list(tasks)
    while waiting:
        ready, waiting = ray.wait(waiting, timeout=POLL_SECONDS)
        yield from ready
        progress.step(len(ready), detail)
