"""Show the progress of a search: a live table on a terminal, a line every 15 seconds in a log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from rich.live import Live
from rich.table import Table

from genre.report import formats
from genre.storage import Location
from genre.wording import duration
from ray_jobs.engine import cli
from ray_jobs.engine.progress import LOG_SECONDS
from ray_jobs.search.slots import Slot
from ray_jobs.search.stopper import METRIC
from ray_jobs.search.trial_folder import Record, TrialFolder, TrialSpec, wall_seconds

_STATES = ("waiting", "running", "finished", "out of patience", "stopped", "failed")  # columns of the table
_STATES_IN_LINE = ("finished", "out of patience", "stopped", "failed", "running", "waiting")


class SearchProgress(Callback):
    """Counts the trials of each architecture by state, and shows the best score so far and the time left.

    "out of patience" is a trial that train.patience ended, "stopped" one that the search stopped. All `slots` are
    counted, also those that ran before; `missing` are those that run now.
    """

    def __init__(self, phase: str, slots: Sequence[Slot], missing: Sequence[Slot], concurrent: int) -> None:
        self._phase = phase
        self._complete = {str(slot.folder.location): slot.all_epochs for slot in slots}
        self._epochs: dict[str, int] = {}  # the most that a trial of an architecture trains
        for slot in slots:
            self._epochs[slot.architecture] = max(slot.all_epochs, self._epochs.get(slot.architecture, 0))
        self._fold_epochs = {slot.architecture: slot.epochs for slot in slots}
        self._to_run = Counter(slot.architecture for slot in missing)
        self._settled = [(slot, slot.record) for slot in slots if slot not in missing and slot.record is not None]
        self._earlier_seconds = wall_seconds(slot.record for slot in slots if slot.record is not None)
        self._concurrent = concurrent
        self._epoch_seconds: dict[str, float] = {}  # seconds of an epoch in the latest report, by architecture
        self._reached = {str(slot.folder.location): slot.reached for slot in missing}  # fold and epoch
        self._ended: dict[str, str] = {}  # states of the trials that ended in this run, by folder
        self._forecast = 0.0, 0.0  # seconds left after the last report that changed them, and the time of it

    def setup(self, **info: Any) -> None:
        """Open the terminal: not in the constructor, after which Tune pickles callbacks. See `Callback`."""
        self._console = cli.console()
        self._started = self._logged = time.monotonic()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        if self._console.is_terminal:
            self._live.start()

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Show the progress if it is time; called many times a second, also during an epoch. See `Callback`."""
        every = 1.0 if self._live.is_started else LOG_SECONDS
        if time.monotonic() - self._logged < every:
            return
        self._logged = time.monotonic()
        if self._live.is_started:
            self._live.update(self._table(trials), refresh=True)
        else:
            self._console.print(self._line(trials))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Measure the time of an epoch. See `Callback`."""
        if "train_loss" not in result:  # the summary of a trial that ended, in which no epoch was trained
            return
        spec, fold, epoch = TrialSpec.of(trial.config), int(result.get("fold", 1)), int(result["epoch"])
        last_fold, last_epoch = self._reached[spec.folder]
        trained = epoch - (last_epoch if fold == last_fold else 0)  # a report covers all epochs since the last one
        if trained > 0:
            self._epoch_seconds[spec.architecture] = float(result["time_this_iter_s"]) / trained
            self._reached[spec.folder] = fold, epoch

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Look up how the trial ended. See `Callback`."""
        spec = TrialSpec.of(trial.config)
        record = TrialFolder(Location.of(spec.folder)).record()
        if record is not None:
            self._ended[spec.folder] = self._settled_state(spec.folder, record)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Print the final counts. See `Callback`."""
        if self._live.is_started:
            self._live.stop()
        self._console.print(self._line(trials))

    def _states(self, architecture: str, trials: list[Trial]) -> Counter[str]:
        """Count the trials of `architecture` by state; trials that Tune has not created yet are waiting."""
        specs = [(trial, TrialSpec.of(trial.config)) for trial in trials]
        own = [self._state(trial, spec) for trial, spec in specs if spec.architecture == architecture]
        states = Counter(own)
        states.update(
            self._settled_state(str(slot.folder.location), record)
            for slot, record in self._settled
            if slot.architecture == architecture
        )
        states["waiting"] += self._to_run[architecture] - len(own)
        return states

    def _state(self, trial: Trial, spec: TrialSpec) -> str:
        if trial.status == "TERMINATED":
            return self._ended.get(spec.folder, "stopped")
        return {"RUNNING": "running", "ERROR": "failed"}.get(trial.status, "waiting")

    def _settled_state(self, folder: str, record: Record) -> str:
        if record.ended == "finished":
            return "finished" if record.epochs >= self._complete[folder] else "out of patience"
        return "stopped" if record.ended == "stopped" else "failed"

    def _table(self, trials: list[Trial]) -> Table:
        table = Table(title=f"{self._phase}, {self._time(trials)}", title_justify="left")
        table.add_column("architecture")
        for heading in (*_STATES, "best valid F1"):
            table.add_column(heading, justify="right")
        best = self._best(trials)
        for name in self._epochs:
            states = self._states(name, trials)
            counts = [str(states[key] or "") for key in _STATES]
            table.add_row(name, *counts, formats.score(best[name]) if name in best else "")
        return table

    def _line(self, trials: list[Trial]) -> str:
        total: Counter[str] = sum((self._states(name, trials) for name in self._epochs), Counter())
        counts = ", ".join(f"{total[key]} {key}" for key in _STATES_IN_LINE if total[key])
        best = self._best(trials)
        scores = ", ".join(f"{name} {best[name]:.2f}" for name in self._epochs if name in best)
        return f"{self._phase}: {counts}, {self._time(trials)}; best valid F1: {scores or 'none yet'}"

    def _time(self, trials: list[Trial]) -> str:
        """Return the time so far and an estimate of the time left, in words."""
        now, left = time.monotonic(), self._left(trials)
        if left != self._forecast[0]:
            self._forecast = left, now
        left -= now - self._forecast[1]
        seconds = self._earlier_seconds + now - self._started
        return duration(seconds) + (f", about {duration(left)} left" if left >= 1 else "")

    def _left(self, trials: list[Trial]) -> float:
        """Return the seconds of all remaining epochs, if each takes as long as the latest of its architecture.

        Trials that are stopped take less. Returns 0 where an architecture has epochs left and none finished: the epochs
        of another one take another time.
        """
        left = 0.0
        for name, complete in self._epochs.items():
            own = [trial for trial in trials if TrialSpec.of(trial.config).architecture == name]
            epochs = (self._to_run[name] - len(own)) * complete
            epochs += sum(complete - self._trained(trial) for trial in own if not trial.is_finished())
            if epochs and name not in self._epoch_seconds:
                return 0.0
            left += epochs * self._epoch_seconds.get(name, 0.0)
        return left / self._concurrent

    def _trained(self, trial: Trial) -> int:
        """Return the epochs of a trial in this run and earlier ones, with finished folds counted as complete."""
        spec, report = TrialSpec.of(trial.config), _last_report(trial)
        reported = int(report.get("fold", 1)), int(report.get("epoch", 0))
        fold, epoch = max(reported, self._reached[spec.folder])
        return epoch + (fold - 1) * self._fold_epochs[spec.architecture]

    def _best(self, trials: list[Trial]) -> dict[str, float]:
        """Return the best score so far of each architecture that has one."""
        scores = [
            (TrialSpec.of(trial.config).architecture, float(_last_report(trial)[METRIC]))
            for trial in trials
            if _last_report(trial).get("epoch")
        ]
        scores += [(slot.architecture, record.best_f1) for slot, record in self._settled if record.best_f1 is not None]
        best: dict[str, float] = {}
        for name, score in scores:
            best[name] = max(best.get(name, 0.0), score)
        return best


def _last_report(trial: Trial) -> dict[str, Any]:
    """Return the last report of a trial, {} before the first; `trial.last_result` would wait until it has started."""
    report: dict[str, Any] = trial.run_metadata.last_result
    return report or {}
