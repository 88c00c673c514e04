"""What the search says while it works: one live table on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from rich.live import Live
from rich.table import Table

from genre.storage import Location
from ray_jobs import cli
from ray_jobs.search import METRIC, architecture_of, last_report

from ray.tune import Callback  # isort: skip
from ray.tune.experiment import Trial  # isort: skip

_LOG_EVERY_SECONDS = 20.0
_STATES = ("waiting", "running", "done", "stopped", "failed")
_IN_A_LINE = ("done", "stopped", "failed", "running", "waiting")


class SearchProgress(Callback):
    """Trials by architecture: waiting, running, done, stopped early, failed, the best score so far, and time left.

    Keeps the wall time of an experiment in `clock`, over all the runs that it takes.
    """

    def __init__(
        self, phase: str, architectures: list[str], trials: int, epochs: int, concurrent: int, clock: Location
    ) -> None:
        self._phase, self._architectures, self._per_architecture, self._epochs = phase, architectures, trials, epochs
        self._concurrent, self._clock = concurrent, clock
        self._epoch_seconds: dict[str, float] = {}  # of the latest epoch

    def setup(self, **info: Any) -> None:
        """See `Callback`. Terminals cannot be pickled, and Tune pickles callbacks before it sets them up."""
        self._console = cli.console()
        self._before = wall_seconds(self._clock)
        self._started = self._logged = time.monotonic()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        if self._console.is_terminal:
            self._live.start()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """See `Callback`."""
        self._show(trials)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """See `Callback`."""
        self._epoch_seconds[architecture_of(trial)] = float(result["time_this_iter_s"])
        self._show(trials)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """See `Callback`."""
        self._show(trials)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """See `Callback`."""
        self._show(trials)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """See `Callback`."""
        if self._live.is_started:
            self._live.stop()
        if self._epoch_seconds:  # else all was done before
            self._keep_time()
        self._console.print(self._line(trials))

    def _show(self, trials: list[Trial]) -> None:
        if self._live.is_started:
            self._live.update(self._table(trials), refresh=True)
        if time.monotonic() - self._logged >= _LOG_EVERY_SECONDS:
            self._logged = time.monotonic()
            self._keep_time()
            if not self._live.is_started:
                self._console.print(self._line(trials))

    def _keep_time(self) -> None:
        self._clock.write_json({"seconds": self._seconds()})

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    def _states(self, architecture: str, trials: list[Trial]) -> Counter[str]:
        """How many trials of `architecture` are in each state; those not yet made are waiting."""
        mine = [trial for trial in trials if architecture_of(trial) == architecture]
        states = Counter(self._state(trial) for trial in mine)
        states["waiting"] += self._per_architecture - len(mine)
        return states

    def _state(self, trial: Trial) -> str:
        if trial.status == "TERMINATED":
            if last_report(trial).get("failure"):
                return "failed"
            return "done" if _epoch(trial) >= self._epochs else "stopped"
        return {"RUNNING": "running", "ERROR": "failed"}.get(trial.status, "waiting")

    def _table(self, trials: list[Trial]) -> Table:
        table = Table(title=f"{self._phase}, {self._time(trials)}", title_justify="left")
        table.add_column("architecture")
        for heading in (*_STATES, "best valid F1"):
            table.add_column(heading, justify="right")
        best = _best(trials)
        for name in self._architectures:
            states = self._states(name, trials)
            counts = [str(states[key] or "") for key in _STATES]
            table.add_row(name, *counts, f"{best[name]:.3f}" if name in best else "")
        return table

    def _line(self, trials: list[Trial]) -> str:
        total: Counter[str] = sum((self._states(name, trials) for name in self._architectures), Counter())
        counts = ", ".join(f"{total[key]} {key}" for key in _IN_A_LINE if total[key])
        best = _best(trials)
        scores = ", ".join(f"{name} {best[name]:.2f}" for name in self._architectures if name in best)
        return f"{self._phase}: {counts}, {self._time(trials)}; best valid F1: {scores or 'none yet'}"

    def _time(self, trials: list[Trial]) -> str:
        """Time so far, and what is left at most: epochs to come at the pace of each architecture's latest."""
        left = self._left(trials)
        return duration(self._seconds()) + (f", at most about {duration(left)} left" if left >= 1 else "")

    def _left(self, trials: list[Trial]) -> float:
        if not self._epoch_seconds:
            return 0.0
        others = sum(self._epoch_seconds.values()) / len(self._epoch_seconds)
        left = 0.0
        for name in self._architectures:
            mine = [trial for trial in trials if architecture_of(trial) == name]
            unmade = self._per_architecture - len(mine)
            epochs = unmade * self._epochs + sum(self._epochs - _epoch(t) for t in mine if not t.is_finished())
            left += epochs * self._epoch_seconds.get(name, others)
        return left / self._concurrent


def wall_seconds(clock: Location) -> float:
    """What an experiment has taken so far, over all the runs that it took."""
    return float(clock.read_json()["seconds"]) if clock.exists() else 0.0


def duration(seconds: float) -> str:
    """In words: "3 min 05 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _epoch(trial: Trial) -> int:
    return int(last_report(trial).get("epoch", 0))


def _best(trials: list[Trial]) -> dict[str, float]:
    """The best score so far of each architecture that has one."""
    best: dict[str, float] = {}
    for trial in trials:
        if _epoch(trial):
            name = architecture_of(trial)
            best[name] = max(best.get(name, 0.0), float(last_report(trial)[METRIC]))
    return best
