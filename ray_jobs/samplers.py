"""Where the configurations of a search come from: drawn at random, or proposed by TPE from what did well before."""

from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

from genre.config import Config
from genre.errors import ConfigError
from ray_jobs import search

from ray import tune  # isort: skip
from ray.tune.search import BasicVariantGenerator, Searcher  # isort: skip


def tune_config(config: Config, names: list[str], concurrent: int) -> tuple[dict[str, Any], tune.TuneConfig]:
    """Parameter space and Tune's settings for the sampler that `tune.sampler` names."""
    spaces = {name: search.space(config, name) for name in names}
    common: dict[str, Any] = {
        "metric": search.METRIC,
        "mode": "max",
        "scheduler": search.stopper(config),
        "trial_dirname_creator": lambda trial: trial.trial_id,
        "reuse_actors": True,
    }
    if config.tune.sampler == "tpe":
        searcher = PerArchitectureTPE(spaces, config.seed)
        total = config.tune.trials * len(names)
        return {}, tune.TuneConfig(search_alg=searcher, num_samples=total, max_concurrent_trials=concurrent, **common)
    # the grid turns through the architectures before it draws again, so that all of them start early
    runs = [{"settings": space} for space in spaces.values()]
    generator = BasicVariantGenerator(max_concurrent=concurrent, random_state=config.seed)
    settings = tune.TuneConfig(search_alg=generator, num_samples=config.tune.trials, **common)
    return {"run": tune.grid_search(runs)}, settings


class PerArchitectureTPE(Searcher):
    """One TPE study (Bergstra et al. 2011, by Optuna) for each architecture, taken in turn.

    A single study would spend its trials on the family that leads early; the comparison needs each to
    have had the same chance.
    """

    def __init__(self, spaces: dict[str, dict[str, Any]], seed: int) -> None:
        super().__init__(metric=search.METRIC, mode="max")
        try:
            import optuna
            from ray.tune.search.optuna import OptunaSearch

            optuna.logging.set_verbosity(optuna.logging.WARNING)
            self._studies = {
                name: OptunaSearch(
                    {key: domain for key, domain in space.items() if key != "model.name"},
                    metric=search.METRIC,
                    mode="max",
                    seed=seed,
                )
                for name, space in spaces.items()
            }
        except (ImportError, AssertionError):
            raise ConfigError("tune.sampler=tpe needs Optuna; install it with pip install 'genre[tpe]'") from None
        self._owner: dict[str, str] = {}
        self._given: Counter[str] = Counter()

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Settings for the architecture that has had the fewest trials."""
        name = min(self._studies, key=lambda one: self._given[one])
        settings = self._studies[name].suggest(trial_id)
        self._owner[trial_id] = name
        self._given[name] += 1
        return {"run": {"settings": {"model.name": name} | settings}}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """See `Searcher`."""
        self._studies[self._owner[trial_id]].on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """See `Searcher`."""
        self._studies[self._owner[trial_id]].on_trial_complete(trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        """Keep the studies; Tune writes its own state as pickles too, in the same trusted folder."""
        with open(checkpoint_path, "wb") as file:
            pickle.dump((self._studies, self._owner, self._given), file)

    def restore(self, checkpoint_path: str) -> None:
        """Go on from what `save` kept."""
        with open(checkpoint_path, "rb") as file:
            self._studies, self._owner, self._given = pickle.load(file)  # noqa: S301 - our own folder
