"""Early stopping: asynchronous successive halving within each architecture, and a time limit for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from genre.settings import TuneSettings
from genre.storage import Location
from ray_jobs.search.plan import Plan
from ray_jobs.search.trial_folder import TrialFolder, TrialSpec

METRIC = "best_f1"  # on the validation tracks so far; after the first fold, the mean over the folds that finished


@dataclass(frozen=True)
class Earlier:
    """A trial of an earlier run of the search: its scores as (epoch, best F1), and its seconds of training."""

    architecture: str
    scores: Sequence[tuple[int, float]]
    seconds: float
    settled: bool  # it is not run again


class PerArchitecture(FIFOScheduler):
    """A scheduler for each architecture, so that one that learns slowly, such as VGG, is not compared with a CNN.

    Each is asynchronous successive halving (Li et al., arXiv 1810.05934) over the epochs of the plan. Trials are
    compared with those of `earlier` runs (by folder) as if all ran in this one.

    Each architecture has the plan's minutes of training (0: no limit). When these are spent, running trials are stopped
    after the current epoch, and later ones after their first. A stopped trial is recorded as such in its folder. A
    trial that reports its last epoch is never stopped, since it still has to save its model. With tune.folds only the
    epochs of the first fold are compared; in later ones a trial is stopped only when its time is spent.
    """

    def __init__(self, settings: TuneSettings, plan: Plan, earlier: Mapping[str, Earlier]) -> None:
        super().__init__()
        self._settings, self._plan = settings, plan
        self._earlier = earlier
        self._seconds: dict[str, dict[str, float]] = {}  # by architecture and folder
        self._schedulers: dict[str, TrialScheduler] = {}
        self._goal: tuple[str | None, str | None, dict[str, Any]] = (None, None, {})
        for folder, trial in self._earlier.items():
            self._seconds.setdefault(trial.architecture, {})[folder] = trial.seconds

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Store what is optimised for the schedulers, which are created later. See `TrialScheduler`."""
        self._goal = (metric, mode, spec)
        return bool(super().set_search_properties(metric, mode, **spec))

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Add a trial; report the earlier scores of a resumed one. See `TrialScheduler`."""
        scheduler = self._scheduler(trial)
        scheduler.on_trial_add(tune_controller, trial)
        if (earlier := self._earlier.get(TrialSpec.of(trial.config).folder)) is not None:
            _replay(scheduler, trial, earlier)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """See `TrialScheduler`."""
        self._scheduler(trial).on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide whether the trial continues; record in its folder that it was stopped. See `TrialScheduler`."""
        spec = TrialSpec.of(trial.config)
        decision = str(TrialScheduler.CONTINUE)
        if "fold" not in result:
            decision = str(self._scheduler(trial).on_trial_result(tune_controller, trial, result))
        seconds = self._seconds.setdefault(spec.architecture, {})
        seconds[spec.folder] = float(result["trial_seconds"])
        if result["epoch"] >= self._plan.epochs[spec.architecture] or "failure" in result:
            return str(TrialScheduler.CONTINUE)
        out_of_time = 0 < 60 * self._plan.minutes <= sum(seconds.values())
        if not out_of_time and decision != TrialScheduler.STOP:
            return decision
        folder = TrialFolder(Location.of(spec.folder))
        folder.end("stopped", minutes=0.0 if decision == TrialScheduler.STOP else self._plan.minutes)
        return str(TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """See `TrialScheduler`."""
        if "fold" in result:  # the score of later folds, which is not compared
            self._scheduler(trial).on_trial_remove(tune_controller, trial)
        else:
            self._scheduler(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """See `TrialScheduler`."""
        self._scheduler(trial).on_trial_remove(tune_controller, trial)

    def _scheduler(self, trial: Trial) -> TrialScheduler:
        """Return the scheduler of the trial's architecture; a new one first gets the scores of settled trials."""
        name = TrialSpec.of(trial.config).architecture
        if name not in self._schedulers:
            scheduler = self._schedulers[name] = self._halving(name)
            metric, mode, spec = self._goal
            scheduler.set_search_properties(metric, mode, **spec)
            for folder, earlier in self._earlier.items():
                if earlier.settled and earlier.architecture == name:
                    settled = SimpleNamespace(trial_id=folder)
                    scheduler.on_trial_add(None, settled)
                    _replay(scheduler, settled, earlier)
        return self._schedulers[name]

    def _halving(self, architecture: str) -> TrialScheduler:
        epochs = self._plan.epochs[architecture]
        return AsyncHyperBandScheduler(
            time_attr="epoch",
            max_t=epochs,
            grace_period=min(self._settings.grace_epochs, epochs),
            reduction_factor=self._settings.reduction,
        )


def _replay(scheduler: TrialScheduler, trial: Any, earlier: Earlier) -> None:
    """Report the earlier scores of a trial to its scheduler; its decisions are ignored, since they are past."""
    for epoch, f1 in earlier.scores:
        scheduler.on_trial_result(None, trial, {"epoch": epoch, METRIC: f1})
