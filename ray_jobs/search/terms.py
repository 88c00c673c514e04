"""The search in Ray Tune's terms: domains, one early stopper per architecture, and how many trials fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from genre import architectures
from genre.architectures import Domain, parse
from genre.errors import ConfigError
from genre.settings import Config
from genre.storage import Location
from ray_jobs.engine import cluster
from ray_jobs.search.budget import Plan
from ray_jobs.search.trial_folder import TrialFolder

METRIC = "best_f1"  # of the validation split, over the epochs so far

_SHARE_OF_GPU = 0.25  # of a trial that trains alone: one small net leaves most of a GPU idle


def searched_architectures(config: Config) -> list[str]:
    """The architectures that are searched."""
    return list(config.tune.architectures or architectures.names())


def domains(config: Config, architecture: str) -> dict[str, Domain]:
    """What the search varies for `architecture`, by dotted key; with tune.space's changes."""
    own = config.tune.space.get(architecture, {})
    if "train.epochs" in own:
        raise ConfigError(
            f"tune.space.{architecture}.train.epochs: early stopping compares trials of equal length; set train.epochs"
        )
    changes = {key: parse(f"tune.space.{architecture}.{key}", value) for key, value in own.items()}
    varied = architectures.search_space(architecture) | changes
    return {key.replace("params.", f"architectures.{architecture}.", 1): domain for key, domain in varied.items()}


def with_resources(config: Config) -> Config:
    """`config` with the GPUs of a trial decided. Raises `ConfigError` for those that cannot be had."""
    asked, several = config.tune.gpus_per_trial, config.tune.workers_per_trial > 1
    if config.device == "cuda" and not (cluster.gpus() if asked is None else asked):
        raise ConfigError(
            f"device=cuda, but tune.gpus_per_trial={asked} of a cluster with {cluster.gpus()} GPUs leaves none "
            "for a trial; use device=auto or cpu"
        )
    if several and asked and asked != int(asked):
        raise ConfigError(
            f"tune.gpus_per_trial={asked:g} with tune.workers_per_trial={config.tune.workers_per_trial}: the workers "
            "of a trial cannot share a GPU; use 1, or one worker"
        )
    found = cluster.gpus() > 0 and config.device != "cpu"
    gpus = asked if asked is not None else found * (1.0 if several else _SHARE_OF_GPU)
    return config.model_copy(update={"tune": config.tune.model_copy(update={"gpus_per_trial": gpus})})


def concurrent_trials(config: Config) -> int:
    """Trials at a time. Raises `ConfigError` when not even one has room, which would wait for ever."""
    needed, workers = _worker(config), config.tune.workers_per_trial
    places = cluster.places(needed)
    if places < workers:
        wanted = " and ".join(f"tune.{kind.lower()}s_per_trial={amount:g}" for kind, amount in needed.items())
        raise ConfigError(
            f"a trial needs {workers} x ({wanted}), the cluster has {cluster.cpus()} CPUs and {cluster.gpus()} GPUs, "
            f"room for {places}; ask for less"
        )
    return min(places // workers, config.tune.concurrent or places)


def bundles(config: Config) -> tune.PlacementGroupFactory:
    """What one trial reserves, all or nothing: a bundle for each of its workers."""
    return tune.PlacementGroupFactory([_worker(config)] * config.tune.workers_per_trial)


def stopper(config: Config, plan: Plan, earlier: Mapping[str, Earlier] | None = None) -> PerArchitecture:
    """Asynchronous successive halving (Li et al., arXiv 1810.05934), within each architecture.

    The plan has the epochs of a complete training of each, and the minutes that each has for its trials. Trials are
    compared with those that ran `earlier`, by folder, as if all ran together.
    """

    def halving(architecture: str) -> AsyncHyperBandScheduler:
        return AsyncHyperBandScheduler(
            time_attr="epoch",
            max_t=plan.epochs[architecture],
            grace_period=min(config.tune.grace_epochs, plan.epochs[architecture]),
            reduction_factor=config.tune.reduction,
        )

    return PerArchitecture(halving, plan.epochs, plan.minutes, earlier or {})


@dataclass(frozen=True)
class Earlier:
    """What a trial reached before this run: (epoch, best score), the seconds that it took, and whether it is over."""

    architecture: str
    scores: Sequence[tuple[int, float]]
    seconds: float
    settled: bool


class PerArchitecture(FIFOScheduler):
    """One scheduler per architecture, so that a slow starter such as VGG is not judged by a fast CNN.

    Each architecture has the same budget of training minutes (0: no limit). When it is spent its trials
    end with the epoch they are in, and those that start later after their first. A trial that is stopped has
    this noted in its folder; one that reports its last epoch is not, since it still has its model to save.
    """

    def __init__(
        self,
        make: Callable[[str], TrialScheduler],
        epochs: Mapping[str, int],
        minutes: float,
        earlier: Mapping[str, Earlier],
    ) -> None:
        super().__init__()
        self._make = make
        self._epochs = dict(epochs)
        self._minutes = minutes
        self._earlier = dict(earlier)
        self._spent: dict[str, dict[str, float]] = {}  # seconds of each trial's folder, by architecture
        self._schedulers: dict[str, TrialScheduler] = {}
        self._goal: tuple[str | None, str | None, dict[str, Any]] = (None, None, {})
        for folder, trial in earlier.items():
            self._spent.setdefault(trial.architecture, {})[folder] = trial.seconds

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Tune's hand-over of what is optimised; passed on to each scheduler when it is made."""
        self._goal = (metric, mode, spec)
        return bool(super().set_search_properties(metric, mode, **spec))

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """See `TrialScheduler`. A resumed trial has been compared at the epochs that it reached before."""
        scheduler = self._of(trial)
        scheduler.on_trial_add(tune_controller, trial)
        if (before := self._earlier.get(folder_of(trial))) is not None:
            _replay(scheduler, trial, before)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """See `TrialScheduler`."""
        self._of(trial).on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """See `TrialScheduler`."""
        decision = str(self._of(trial).on_trial_result(tune_controller, trial, result))
        spent = self._spent.setdefault(architecture_of(trial), {})
        spent[folder_of(trial)] = float(result["trial_seconds"])
        if result["epoch"] >= self._epochs[architecture_of(trial)] or "failure" in result:
            return str(TrialScheduler.CONTINUE)
        late = 0 < 60 * self._minutes <= sum(spent.values())
        if not late and decision != TrialScheduler.STOP:
            return decision
        folder = TrialFolder(Location.of(folder_of(trial)))
        folder.end("stopped", minutes=0.0 if decision == TrialScheduler.STOP else self._minutes)
        return str(TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """See `TrialScheduler`."""
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """See `TrialScheduler`."""
        self._of(trial).on_trial_remove(tune_controller, trial)

    def _of(self, trial: Trial) -> TrialScheduler:
        name = architecture_of(trial)
        if name not in self._schedulers:
            scheduler = self._make(name)
            metric, mode, spec = self._goal
            scheduler.set_search_properties(metric, mode, **spec)
            self._schedulers[name] = scheduler
            for folder, before in self._earlier.items():
                if before.settled and before.architecture == name:
                    settled = SimpleNamespace(trial_id=folder)
                    scheduler.on_trial_add(None, settled)
                    _replay(scheduler, settled, before)
        return self._schedulers[name]


def _replay(scheduler: TrialScheduler, trial: Any, before: Earlier) -> None:
    """Report the earlier scores of a trial to its scheduler; what it decides now was decided then."""
    for epoch, f1 in before.scores:
        scheduler.on_trial_result(None, trial, {"epoch": epoch, METRIC: f1})


def last_report(trial: Trial) -> dict[str, Any]:
    """What a trial said last, {} when nothing yet; its own `last_result` would wait until it has started."""
    report: dict[str, Any] = trial.run_metadata.last_result
    return report or {}


def _worker(config: Config) -> dict[str, float]:
    """The resources of one process of a trial."""
    gpus = config.tune.gpus_per_trial
    return {"CPU": config.tune.cpus_per_trial} | ({"GPU": gpus} if gpus else {})


def architecture_of(trial: Trial) -> str:
    """The architecture that a trial trains."""
    return str(trial.config["run"]["settings"]["architecture"])


def folder_of(trial: Trial) -> str:
    """The address of a trial's folder."""
    return str(trial.config["run"]["folder"])
