"""Choose the settings of trials: those of the configuration first, then drawn at random or proposed by TPE."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ray import tune
from ray.tune.search import Searcher

from genre.architectures import Choice, Domain, LogUniform
from genre.errors import ConfigError, install
from genre.settings import TuneSettings
from genre.training.experiment import Experiment
from ray_jobs.search import runner, space
from ray_jobs.search.plan import Plan
from ray_jobs.search.slots import Slot
from ray_jobs.search.stopper import METRIC, Earlier, PerArchitecture
from ray_jobs.search.trial_folder import Record


def sampling(
    experiments: Mapping[str, Experiment],
    settings: TuneSettings,
    seed: int,
    plan: Plan,
    slots: Sequence[Slot],
    missing: Sequence[Slot],
) -> dict[str, Any]:
    """Return the sampling of the trials in `missing` for `Runner.run`; `slots` are all trials of the search.

    `experiments` are those of `space.experiments`.
    """
    scheduler = PerArchitecture(settings, plan, _earlier(slots, plan.minutes))
    if settings.sampler == "tpe":
        searcher = PerArchitectureTPE(experiments, settings, seed, slots, missing)
        return {"search_alg": searcher, "num_samples": len(missing), "scheduler": scheduler}
    specs = [
        slot.spec(slot.settings or choose(experiments[slot.architecture], settings, seed, slot)) for slot in missing
    ]
    return runner.listed(specs) | {"scheduler": scheduler}


def choose(planned: Experiment, settings: TuneSettings, seed: int, slot: Slot) -> dict[str, Any]:
    """Return the settings of a trial: of the first those of `planned`, of another drawn ones.

    They depend only on the architecture, its number and the seed.
    """
    domains = space.domains(settings, slot.architecture)
    if slot.number == 0:
        return space.configured(planned, domains)
    rng = np.random.default_rng([seed, slot.number, *slot.architecture.encode()])
    return {key: _draw(domain, rng) for key, domain in domains.items()}


class PerArchitectureTPE(Searcher):
    """A TPE study (Bergstra et al. 2011, by Optuna) for each architecture, which propose settings in turn.

    A single study would spend its trials on the architecture that leads early, but the comparison needs the same number
    of trials of each. A study knows the settled trials of its architecture, resumes interrupted ones with their
    settings, begins with those of `experiments`, and proposes settings for the rest. Raises `ConfigError` if Optuna is
    not installed.
    """

    def __init__(
        self,
        experiments: Mapping[str, Experiment],
        settings: TuneSettings,
        seed: int,
        slots: Sequence[Slot],
        missing: Sequence[Slot],
    ) -> None:
        super().__init__(metric=METRIC, mode="max")
        # interrupted trials first: a study proposes their settings before its own
        self._waiting = sorted(missing, key=lambda slot: slot.settings is None)
        self._studies = {}
        for name in dict.fromkeys(slot.architecture for slot in slots):
            own = [slot for slot in self._waiting if slot.architecture == name]
            settled = [slot.record for slot in slots if slot.architecture == name and slot not in missing]
            self._studies[name] = _study(experiments[name], settings, seed, own, settled)
        self._architectures: dict[str, str] = {}  # by the id of a trial

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the `config` of the next trial. See `Searcher`."""
        slot = self._waiting.pop(0)
        settings = self._studies[slot.architecture].suggest(trial_id)
        self._architectures[trial_id] = slot.architecture
        return slot.spec(settings).to_config()

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """See `Searcher`."""
        self._studies[self._architectures[trial_id]].on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """See `Searcher`."""
        self._studies[self._architectures[trial_id]].on_trial_complete(trial_id, result, error)


def _study(
    planned: Experiment, settings: TuneSettings, seed: int, missing: Sequence[Slot], settled: Sequence[Record | None]
) -> Searcher:
    """Return the study of one architecture, from its `missing` trials and the records of those that are `settled`."""
    try:
        import optuna
        from ray.tune.search.optuna import OptunaSearch
    except ImportError:
        raise ConfigError(f"tune.sampler=tpe needs Optuna; {install('tpe')}") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    domains = space.domains(settings, planned.architecture)
    points = [space.sampled(slot.settings) for slot in missing if slot.settings]
    if any(slot.number == 0 and not slot.settings for slot in missing):
        points.append(space.configured(planned, domains))
    # with the same seed a resumed study would propose the first trials again
    entropy = np.random.SeedSequence([seed, len(settled)]).generate_state(1)
    study = OptunaSearch(
        {key: _to_tune(domain) for key, domain in domains.items()},
        metric=METRIC,
        mode="max",
        points_to_evaluate=points,
        seed=int(entropy[0]),
    )
    for record in settled:
        if record is not None and record.best_f1 is not None:
            point = space.sampled(record.settings)
            study.add_evaluated_point(point, record.best_f1, error=record.ended == "failed")
    return study


def _earlier(slots: Sequence[Slot], minutes: float) -> dict[str, Earlier]:
    """Return the trials that ran earlier, by folder."""
    return {
        str(slot.folder.location): Earlier(slot.architecture, record.scores, record.seconds, record.is_settled(minutes))
        for slot in slots
        if (record := slot.record) is not None
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
