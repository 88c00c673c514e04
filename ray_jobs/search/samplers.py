"""Where the configurations of a search come from: drawn at random, or proposed by TPE from earlier results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ray import tune
from ray.tune.search import Searcher

from genre.architectures import Choice, Domain, LogUniform
from genre.errors import ConfigError
from genre.settings import Config
from ray_jobs.search import terms
from ray_jobs.search.budget import Plan
from ray_jobs.search.search_plan import Slot, chosen


def tune_config(
    config: Config, plan: Plan, slots: Sequence[Slot], unsettled: Sequence[Slot], concurrent: int
) -> tuple[dict[str, Any], tune.TuneConfig]:
    """Parameter space and Tune's settings for the trials of `unsettled`; `slots` are all trials of the search."""
    scheduler = terms.stopper(config, plan, _earlier(slots, plan.minutes))
    if config.tune.sampler == "tpe":
        searcher = PerArchitectureTPE(config, slots, unsettled)
        common = _common(concurrent, scheduler=scheduler)
        return {}, tune.TuneConfig(search_alg=searcher, num_samples=len(unsettled), **common)
    runs = [slot.run(slot.settings or drawn(config, slot)) for slot in unsettled]
    return listed(runs, concurrent, scheduler=scheduler)


def listed(runs: list[dict[str, Any]], concurrent: int, **more: Any) -> tuple[dict[str, Any], tune.TuneConfig]:
    """Parameter space and Tune's settings for these very `runs`, in their order."""
    return {"run": tune.grid_search(runs)}, tune.TuneConfig(**_common(concurrent, **more))


def drawn(config: Config, slot: Slot) -> dict[str, Any]:
    """The settings of a trial, drawn at random from its architecture, its number and the seed alone."""
    rng = np.random.default_rng([config.seed, slot.number, *slot.architecture.encode()])
    domains = terms.domains(config, slot.architecture)
    return {key: _draw(domain, rng) for key, domain in domains.items()}


class PerArchitectureTPE(Searcher):
    """One TPE study (Bergstra et al. 2011, by Optuna) for each architecture, taken in turn.

    A single study would spend its trials on the family that leads early; the comparison needs each to
    have had the same chance. A study knows the settled trials of its architecture, resumes the interrupted
    ones with their settings, and proposes the rest.
    """

    def __init__(self, config: Config, slots: Sequence[Slot], unsettled: Sequence[Slot]) -> None:
        super().__init__(metric=terms.METRIC, mode="max")
        try:
            import optuna
            from ray.tune.search.optuna import OptunaSearch
        except ImportError:
            raise ConfigError("tune.sampler=tpe needs Optuna; install it with pip install 'genre[tpe]'") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # the settings of interrupted trials are what a study proposes first
        self._waiting = sorted(unsettled, key=lambda slot: slot.settings is None)
        self._studies = {}
        for name in dict.fromkeys(slot.architecture for slot in slots):
            interrupted = [slot.settings for slot in self._waiting if slot.architecture == name and slot.settings]
            settled = [slot.record for slot in slots if slot.architecture == name and slot not in unsettled]
            # the same seed would propose the first trials of the search again
            entropy = np.random.SeedSequence([config.seed, len(settled)]).generate_state(1)
            study = OptunaSearch(
                {key: _to_tune(domain) for key, domain in terms.domains(config, name).items()},
                metric=terms.METRIC,
                mode="max",
                points_to_evaluate=[chosen(settings) for settings in interrupted],
                seed=int(entropy[0]),
            )
            for record in settled:
                if record is not None and record.best_f1 is not None:
                    study.add_evaluated_point(chosen(record.settings), record.best_f1, error=record.ended == "failed")
            self._studies[name] = study
        self._owner: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Settings for the next trial that has not run to its end."""
        slot = self._waiting.pop(0)
        settings = self._studies[slot.architecture].suggest(trial_id)
        self._owner[trial_id] = slot.architecture
        return {"run": slot.run(settings)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """See `Searcher`."""
        self._studies[self._owner[trial_id]].on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """See `Searcher`."""
        self._studies[self._owner[trial_id]].on_trial_complete(trial_id, result, error)


def _earlier(slots: Sequence[Slot], minutes: float) -> dict[str, terms.Earlier]:
    """What ran before, by folder."""
    return {
        str(slot.folder.place): terms.Earlier(
            slot.architecture, record.scores, record.seconds, record.is_settled(minutes)
        )
        for slot in slots
        if (record := slot.record) is not None
    }


def _common(concurrent: int, **more: Any) -> dict[str, Any]:
    return {
        "metric": terms.METRIC,
        "mode": "max",
        "max_concurrent_trials": concurrent,
        "trial_dirname_creator": lambda trial: trial.config["run"]["name"],
        "reuse_actors": True,
        **more,
    }


def _draw(domain: Domain, rng: np.random.Generator) -> Any:
    if isinstance(domain, Choice):
        return domain.values[int(rng.integers(len(domain.values)))]
    if isinstance(domain, LogUniform):
        return math.exp(rng.uniform(math.log(domain.low), math.log(domain.high)))
    return float(rng.uniform(domain.low, domain.high))


def _to_tune(domain: Domain) -> Any:
    if isinstance(domain, Choice):
        return tune.choice(list(domain.values))
    if isinstance(domain, LogUniform):
        return tune.loguniform(domain.low, domain.high)
    return tune.uniform(domain.low, domain.high)
