"""The search in Ray Tune's terms: domains, one early stopper per architecture, and how many trials fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from genre import models
from genre.config import Config
from genre.errors import ConfigError
from genre.models._space import Choice, Domain, LogUniform, parse
from ray_jobs import cluster

from ray import tune  # isort: skip
from ray.tune.experiment import Trial  # isort: skip
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler  # isort: skip

METRIC = "best_f1"  # of the validation split, over the epochs so far


def architectures(config: Config) -> list[str]:
    """The architectures that are searched."""
    return list(config.tune.architectures or models.names())


def space(config: Config, architecture: str) -> dict[str, Any]:
    """What the search varies for `architecture`, by dotted key, as Tune's domains; with tune.space's changes."""
    own = config.tune.space.get(architecture, {})
    changes = {key: parse(f"tune.space.{architecture}.{key}", value) for key, value in own.items()}
    domains = models.search_space(architecture) | changes
    full = {key.replace("params.", f"models.{architecture}.", 1): domain for key, domain in domains.items()}
    return {"model.name": architecture} | {key: _to_tune(domain) for key, domain in full.items()}


def concurrent_trials(config: Config) -> int:
    """Trials at a time. Raises `ConfigError` when not even one has room, which would wait for ever."""
    room = int(cluster.cpus() / config.tune.cpus_per_trial)
    if config.tune.gpus_per_trial:
        room = min(room, int(cluster.gpus() / config.tune.gpus_per_trial))
    if not room:
        raise ConfigError(
            f"a trial needs tune.cpus_per_trial={config.tune.cpus_per_trial:g} and "
            f"tune.gpus_per_trial={config.tune.gpus_per_trial:g}, the cluster has {cluster.cpus()} CPUs and "
            f"{cluster.gpus()} GPUs; ask for less"
        )
    return min(room, config.tune.concurrent or room)


def stopper(config: Config) -> PerArchitecture:
    """Asynchronous successive halving (Li et al., arXiv 1810.05934), within each architecture."""

    def halving() -> AsyncHyperBandScheduler:
        return AsyncHyperBandScheduler(
            time_attr="epoch",
            max_t=config.train.epochs,
            grace_period=min(config.tune.grace_epochs, config.train.epochs),
            reduction_factor=config.tune.reduction,
        )

    return PerArchitecture(halving, 60 * config.tune.minutes)


class PerArchitecture(FIFOScheduler):
    """One scheduler per architecture, so that a slow starter such as VGG is not judged by a fast CNN.

    Each architecture has the same budget of training seconds (0: no limit). When it is spent its trials
    end with the epoch they are in, and those that start later after their first.
    """

    def __init__(self, make: Callable[[], TrialScheduler], budget_seconds: float) -> None:
        super().__init__()
        self._make = make
        self._budget = budget_seconds
        self._spent: Counter[str] = Counter()
        self._schedulers: dict[str, TrialScheduler] = {}
        self._goal: tuple[str | None, str | None, dict[str, Any]] = (None, None, {})

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Tune's hand-over of what is optimised; passed on to each scheduler when it is made."""
        self._goal = (metric, mode, spec)
        return bool(super().set_search_properties(metric, mode, **spec))

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """See `TrialScheduler`."""
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """See `TrialScheduler`."""
        self._of(trial).on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """See `TrialScheduler`."""
        decision = str(self._of(trial).on_trial_result(tune_controller, trial, result))
        name = architecture_of(trial)
        self._spent[name] += result["seconds"]
        return TrialScheduler.STOP if 0 < self._budget <= self._spent[name] else decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """See `TrialScheduler`."""
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """See `TrialScheduler`."""
        self._of(trial).on_trial_remove(tune_controller, trial)

    def _of(self, trial: Trial) -> TrialScheduler:
        name = architecture_of(trial)
        if name not in self._schedulers:
            scheduler = self._make()
            metric, mode, spec = self._goal
            scheduler.set_search_properties(metric, mode, **spec)
            self._schedulers[name] = scheduler
        return self._schedulers[name]


def architecture_of(trial: Trial) -> str:
    """The architecture that a trial trains."""
    return str(trial.config["run"]["settings"]["model.name"])


def _to_tune(domain: Domain) -> Any:
    if isinstance(domain, Choice):
        return tune.choice(list(domain.values))
    if isinstance(domain, LogUniform):
        return tune.loguniform(domain.low, domain.high)
    return tune.uniform(domain.low, domain.high)
