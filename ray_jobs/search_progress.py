"""What the search says while it works: one live table on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from rich.live import Live
from rich.table import Table

from ray_jobs import cli
from ray_jobs.search import architecture_of

from ray.tune import Callback  # isort: skip
from ray.tune.experiment import Trial  # isort: skip

_LOG_EVERY_SECONDS = 20.0


class SearchProgress(Callback):
    """Trials by architecture: waiting, running, done, stopped early, failed, and the best score so far."""

    def __init__(self, phase: str, architectures: list[str], trials: int, epochs: int) -> None:
        self._phase, self._architectures, self._per_architecture, self._epochs = phase, architectures, trials, epochs
        self._best: dict[str, float] = {}
        self._trials: dict[str, Trial] = {}
        self._epoch: dict[str, int] = {}

    def setup(self, **info: Any) -> None:
        """See `Callback`. Terminals cannot be pickled, and Tune pickles callbacks before it sets them up."""
        self._console = cli.console()
        self._started = self._logged = time.monotonic()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        if self._console.is_terminal:
            self._live.start()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """See `Callback`."""
        self._note(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """See `Callback`."""
        name = architecture_of(trial)
        self._epoch[trial.trial_id] = int(result["epoch"])
        self._best[name] = max(self._best.get(name, 0.0), float(result["best_f1"]))
        self._note(trial)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """See `Callback`."""
        self._note(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """See `Callback`."""
        self._note(trial)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """See `Callback`."""
        for trial in trials:
            self._trials[trial.trial_id] = trial
        if self._live.is_started:
            self._live.stop()
        self._console.print(self._line())

    def _note(self, trial: Trial) -> None:
        self._trials[trial.trial_id] = trial
        if self._live.is_started:
            self._live.update(self._table(), refresh=True)
        elif time.monotonic() - self._logged >= _LOG_EVERY_SECONDS:
            self._logged = time.monotonic()
            self._console.print(self._line())

    def _states(self, architecture: str) -> Counter[str]:
        """How many trials of `architecture` are in each state; those not yet made are waiting."""
        mine = [trial for trial in self._trials.values() if architecture_of(trial) == architecture]
        states = Counter(self._state(trial) for trial in mine)
        states["waiting"] += self._per_architecture - len(mine)
        return states

    def _state(self, trial: Trial) -> str:
        if trial.status == "TERMINATED":
            return "done" if self._epoch.get(trial.trial_id, 0) >= self._epochs else "stopped"
        return {"RUNNING": "running", "ERROR": "failed"}.get(trial.status, "waiting")

    def _table(self) -> Table:
        table = Table(title=f"{self._phase}, {self._clock()}", title_justify="left")
        table.add_column("architecture")
        for heading in ("waiting", "running", "done", "stopped", "failed", "best valid F1"):
            table.add_column(heading, justify="right")
        for name in self._architectures:
            states = self._states(name)
            counts = [str(states[key] or "") for key in ("waiting", "running", "done", "stopped", "failed")]
            table.add_row(name, *counts, f"{self._best[name]:.3f}" if name in self._best else "")
        return table

    def _line(self) -> str:
        total: Counter[str] = sum((self._states(name) for name in self._architectures), Counter())
        counts = ", ".join(
            f"{total[key]} {key}" for key in ("done", "stopped", "running", "waiting", "failed") if total[key]
        )
        best = "  ".join(f"{name} {self._best[name]:.2f}" for name in self._architectures if name in self._best)
        return f"{self._phase}: {counts}, {self._clock()}; best valid F1: {best or 'none yet'}"

    def _clock(self) -> str:
        """Time so far, and a guess of what is left from the epochs done."""
        spent = time.monotonic() - self._started
        total = len(self._architectures) * self._per_architecture * self._epochs
        done = sum(self._epochs if t.is_finished() else self._epoch.get(i, 0) for i, t in self._trials.items())
        left = f", about {_duration(spent * (total - done) / done)} left" if 0 < done < total else ""
        return f"{_duration(spent)}{left}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
