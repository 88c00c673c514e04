"""What a job says in a log."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from ray_jobs.engine import cli, progress


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], list[str]]:
    """What is printed where there is no terminal, and a clock that tests turn."""
    written, now = io.StringIO(), [0.0]
    monkeypatch.setattr(cli, "console", lambda: Console(file=written, soft_wrap=True))
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def after(seconds: float) -> list[str]:
        now[0] += seconds
        return written.getvalue().splitlines()

    return after


def test_a_log_is_not_silent_while_nothing_is_done(log: Callable[[float], list[str]]) -> None:
    with progress.JobProgress("judging", total=4) as bar:
        bar.step(1, "models scored")
        assert log(14) == []
        bar.step()
        log(2)
        bar.step()
        assert log(15) == ["judging: 1 of 4, models scored"]
        bar.step()
        assert len(log(0)) == 2


def test_the_time_left_follows_from_the_parts_after_the_first(log: Callable[[float], list[str]]) -> None:
    with progress.JobProgress("judging", total=5) as bar:
        log(100)  # workers start
        bar.step(1, "models scored")
        log(15)
        bar.step(2)
        assert log(0)[-1] == "judging: 3 of 5, models scored, about 15 s left"


def test_tracks_are_counted_with_their_rate(log: Callable[[float], list[str]]) -> None:
    with progress.TrackProgress("prepare", total=100) as bar:
        log(20)
        bar.advance(40, rejected=3)
        assert log(20) == ["prepare: 40 of 100, 2.0 tracks/s, 3 rejected"]
        bar.advance(40, rejected=0)
        assert log(0)[-1] == "prepare: 80 of 100, 2.0 tracks/s, 3 rejected, about 10 s left"


def test_a_rate_of_ten_or_more_has_no_decimals(log: Callable[[float], list[str]]) -> None:
    with progress.TrackProgress("prepare", total=1000) as bar:
        log(20)
        bar.advance(500, rejected=0)
        assert log(20) == ["prepare: 500 of 1000, 25 tracks/s, 0 rejected"]
