"""What a job says while it works: a live bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ray_jobs import cli

_LOG_EVERY_SECONDS = 15.0


class TrackProgress:
    """Counts tracks done, their rate, and how many were rejected."""

    def __init__(self, job: str, total: int) -> None:
        self._job, self._total = job, total
        self._console = cli.console()
        self._done = self._rejected = 0
        self._started = self._logged = time.monotonic()
        self._bar = Progress(
            TextColumn(f"{job}:"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.0f} tracks/s, {task.fields[rejected]} rejected"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task(job, total=total, rate=0.0, rejected=0)

    def __enter__(self) -> TrackProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def advance(self, tracks: int, rejected: int) -> None:
        """So many more tracks are done, so many of them rejected."""
        self._done += tracks
        self._rejected += rejected
        now = time.monotonic()
        rate = self._done / max(1e-9, now - self._started)
        self._bar.update(self._task, completed=self._done, rate=rate, rejected=self._rejected)
        if not self._console.is_terminal and now - self._logged >= _LOG_EVERY_SECONDS:
            self._logged = now
            self._console.print(
                f"{self._job}: {self._done} of {self._total}, {rate:.0f} tracks/s, {self._rejected} rejected"
            )
