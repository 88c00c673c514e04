"""Show the progress of a job: a bar on a terminal, a line every 15 seconds in a log."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from genre.wording import duration
from ray_jobs.engine import cli

LOG_SECONDS = 15.0  # between two lines in a log


class JobProgress:
    """Shows how many parts of a job are done, with a short description. `unit` names the parts."""

    def __init__(self, job: str, total: int, unit: str = "") -> None:
        self._job, self._total, self._unit = job, total, f" {unit}" if unit else ""
        self._console = cli.console()
        self._done, self._detail = 0, ""
        self._started = self._logged = time.monotonic()
        self._first: tuple[float, int] | None = None  # when the first parts were done, and how many
        self._bar = Progress(
            TextColumn(f"{job}:"),
            BarColumn(),
            MofNCompleteColumn(),
            *([TextColumn(unit)] if unit else []),
            TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task(job, total=total, detail="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def step(self, parts: int = 0, detail: str | None = None) -> None:
        """Add `parts` that are done. To be called every few seconds, also without parts, so that a log gets lines."""
        self._done += parts
        self._detail = self._detail if detail is None else detail
        self._bar.update(self._task, completed=self._done, detail=self._detail)
        now = time.monotonic()
        if parts and self._first is None:
            self._first = now, self._done
        if not self._console.is_terminal and now - self._logged >= LOG_SECONDS:
            self._logged = now
            details = ", ".join(filter(None, (self._detail, self._left(now))))
            self._console.print(f"{self._job}: {self._done} of {self._total}{self._unit}, {details}".removesuffix(", "))

    def _left(self, now: float) -> str:
        """Return the time that the other parts take if each takes as long as those after the first step with parts.

        Before that step workers start and load models.
        """
        since, first = self._first or (now, self._done)
        counted = self._done - first
        if not counted or self._done >= self._total:
            return ""
        return f"about {duration((now - since) * (self._total - self._done) / counted)} left"


class TrackProgress(JobProgress):
    """Shows how many tracks are done, their rate, and how many were rejected."""

    def __init__(self, job: str, total: int) -> None:
        super().__init__(job, total)
        self._rejected = 0

    def advance(self, tracks: int, rejected: int) -> None:
        """Add `tracks`, of which `rejected` were rejected."""
        self._rejected += rejected
        rate = (self._done + tracks) / max(1e-9, time.monotonic() - self._started)
        shown = f"{rate:.1f}" if rate < 10 else f"{rate:.0f}"
        self.step(tracks, f"{shown} tracks/s, {self._rejected} rejected")
