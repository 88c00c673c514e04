"""What the search says while it works: one live table on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from rich.live import Live
from rich.table import Table

from genre.wording import duration
from ray_jobs.engine import cli
from ray_jobs.search.search_plan import Slot
from ray_jobs.search.terms import METRIC, architecture_of, folder_of, last_report
from ray_jobs.search.trial_folder import Record, wall_seconds

_LOG_EVERY_SECONDS = 15.0
_STATES = ("waiting", "running", "done", "stopped", "failed")
_IN_A_LINE = ("done", "stopped", "failed", "running", "waiting")


class SearchProgress(Callback):
    """Trials by architecture: waiting, running, done, stopped early, failed, the best score so far, and time left.

    Counts the trials of all `slots`, those that ran before as well; `missing` are those that run now.
    """

    def __init__(self, phase: str, slots: Sequence[Slot], missing: Sequence[Slot], concurrent: int) -> None:
        self._phase = phase
        self._epochs = {slot.architecture: slot.epochs for slot in slots}
        self._architectures = list(self._epochs)
        self._to_run = Counter(slot.architecture for slot in missing)
        self._settled = [
            (slot.architecture, slot.record) for slot in slots if slot not in missing and slot.record is not None
        ]
        self._before = wall_seconds(slot.record for slot in slots if slot.record is not None)
        self._concurrent = concurrent
        self._epoch_seconds: dict[str, float] = {}  # of the latest epochs
        self._reached = {str(slot.folder.place): slot.record.epochs for slot in missing if slot.record is not None}

    def setup(self, **info: Any) -> None:
        """See `Callback`. Terminals cannot be pickled, and Tune pickles callbacks before it sets them up."""
        self._console = cli.console()
        self._started = self._logged = time.monotonic()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        if self._console.is_terminal:
            self._live.start()

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """See `Callback`. Called many times a second, so that a long epoch is not silent."""
        self._show(trials)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """See `Callback`."""
        epoch, folder = int(result["epoch"]), folder_of(trial)
        if (trained := epoch - self._reached.get(folder, 0)) > 0:  # a report covers all epochs since the last one
            self._epoch_seconds[architecture_of(trial)] = float(result["time_this_iter_s"]) / trained
            self._reached[folder] = epoch

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """See `Callback`."""
        if self._live.is_started:
            self._live.stop()
        self._console.print(self._line(trials))

    def _show(self, trials: list[Trial]) -> None:
        every = 1.0 if self._live.is_started else _LOG_EVERY_SECONDS
        if time.monotonic() - self._logged < every:
            return
        self._logged = time.monotonic()
        if self._live.is_started:
            self._live.update(self._table(trials), refresh=True)
        else:
            self._console.print(self._line(trials))

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    def _states(self, architecture: str, trials: list[Trial]) -> Counter[str]:
        """How many trials of `architecture` are in each state; those not yet made are waiting."""
        own = [trial for trial in trials if architecture_of(trial) == architecture]
        states = Counter(self._state(trial) for trial in own)
        states.update(_settled_state(record) for name, record in self._settled if name == architecture)
        states["waiting"] += self._to_run[architecture] - len(own)
        return states

    def _state(self, trial: Trial) -> str:
        if trial.status == "TERMINATED":
            if last_report(trial).get("failure"):
                return "failed"
            return "done" if _epoch(trial) >= self._epochs[architecture_of(trial)] else "stopped"
        return {"RUNNING": "running", "ERROR": "failed"}.get(trial.status, "waiting")

    def _table(self, trials: list[Trial]) -> Table:
        table = Table(title=f"{self._phase}, {self._time(trials)}", title_justify="left")
        table.add_column("architecture")
        for heading in (*_STATES, "best valid F1"):
            table.add_column(heading, justify="right")
        best = self._best(trials)
        for name in self._architectures:
            states = self._states(name, trials)
            counts = [str(states[key] or "") for key in _STATES]
            table.add_row(name, *counts, f"{best[name]:.3f}" if name in best else "")
        return table

    def _line(self, trials: list[Trial]) -> str:
        total: Counter[str] = sum((self._states(name, trials) for name in self._architectures), Counter())
        counts = ", ".join(f"{total[key]} {key}" for key in _IN_A_LINE if total[key])
        best = self._best(trials)
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
            own = [trial for trial in trials if architecture_of(trial) == name]
            unmade = self._to_run[name] - len(own)
            whole = self._epochs[name]
            epochs = unmade * whole + sum(whole - _epoch(t) for t in own if not t.is_finished())
            left += epochs * self._epoch_seconds.get(name, others)
        return left / self._concurrent

    def _best(self, trials: list[Trial]) -> dict[str, float]:
        """The best score so far of each architecture that has one."""
        scores = [(architecture_of(t), float(last_report(t)[METRIC])) for t in trials if _epoch(t)]
        scores += [(name, record.best_f1) for name, record in self._settled if record.best_f1 is not None]
        best: dict[str, float] = {}
        for name, score in scores:
            best[name] = max(best.get(name, 0.0), score)
        return best


def _settled_state(record: Record) -> str:
    return {"finished": "done", "stopped": "stopped"}.get(str(record.ended), "failed")


def _epoch(trial: Trial) -> int:
    return int(last_report(trial).get("epoch", 0))
