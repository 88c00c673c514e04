"""Runs trials with Ray Tune. Their results are in their folders, so Tune's own state is never read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray import tune

from genre.errors import GenreError, TrainingError
from genre.features.cache import ClipCache
from genre.settings import Config
from genre.storage import Location
from ray_jobs.engine import cli, reporter
from ray_jobs.search import exits, tracking
from ray_jobs.search.progress import SearchProgress
from ray_jobs.search.resources import TrialResources
from ray_jobs.search.slots import Slot
from ray_jobs.search.stopper import METRIC
from ray_jobs.search.trial import train_trial
from ray_jobs.search.trial_spec import TrialSpec


@dataclass(frozen=True)
class Runner:
    """Runs trials of `base`, each with its own settings, on the clips that each machine keeps in `cache`."""

    base: Config
    cache: ClipCache
    resources: TrialResources

    @property
    def is_on_sample(self) -> bool:
        """Whether the trials see only tune.sample of the tracks."""
        return self.cache.features.sample is not None

    def on_all(self) -> Runner:
        """Return a runner of trials on all tracks."""
        features, settings, splits = self.cache.features, self.cache.settings, self.cache.splits
        return replace(self, cache=ClipCache.of(features.complete(), settings, splits)) if self.is_on_sample else self

    def make_copy(self) -> None:
        """Make the copy of the clips on one machine, so that a disk that is too small ends a search at its start.

        Raises `TrainingError`.
        """
        task = _make_copy.options(num_cpus=self.resources.cpus, num_gpus=self.resources.gpus)
        with reporter.listening(lambda message: cli.console().print(f"tune: {message}")) as mailbox:
            failure = ray.get(task.remote(self.cache, mailbox))
        if failure:
            raise TrainingError(failure)

    def run(self, phase: str, slots: Sequence[Slot], missing: Sequence[Slot], **sampling: Any) -> list[Slot]:
        """Run the trials of the `missing` slots, and return all `slots` with their new records.

        `sampling` are arguments of `tune.TuneConfig` and a `param_space`, which give each trial a `TrialSpec`. Tune's
        logs go to OUTPUT/tune/logs/PHASE, for TensorBoard. After an interruption some slots have not ended.
        """
        output = Location.of(self.base.output)
        logs = output / "tune" / "logs"
        trainable = tune.with_parameters(train_trial, base=self.base, cache=self.cache, resources=self.resources)
        mlflow = tracking.callbacks(self.base.tune.mlflow, f"{output.name} {phase}")
        tuner = tune.Tuner(
            tune.with_resources(trainable, self.resources.bundles()),
            param_space=sampling.pop("param_space", {}),
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                max_concurrent_trials=self.resources.most_trials(),
                trial_dirname_creator=lambda trial: TrialSpec.of(trial.config).name,
                reuse_actors=True,
                **sampling,
            ),
            run_config=tune.RunConfig(
                name=phase,
                storage_path=logs.path,
                storage_filesystem=logs.filesystem,
                verbose=0,
                callbacks=[SearchProgress(phase, slots, missing, self.resources.concurrent_trials()), *mlflow],
                failure_config=tune.FailureConfig(max_failures=exits.TRIES - 1),
            ),
        )
        folders = {slot.log_name: slot.folder for slot in slots}
        for result in tuner.fit():
            if result.error:
                # by the path, since a trial that died at its start reported no configuration
                folder = folders[result.path.rstrip("/").rsplit("/", 1)[-1]]
                folder.end("crashed", failure=exits.reason(output, result))
        return [slot.read() for slot in slots]


@ray.remote
def _make_copy(cache: ClipCache, mailbox: Any) -> str:
    """Return why the copy cannot be made; "" where it is made."""
    try:
        cache.open(mailbox.put.remote)
    except GenreError as error:
        return str(error)
    return ""


def listed(specs: Sequence[TrialSpec]) -> dict[str, Any]:
    """Return the sampling of exactly these trials, in their order."""
    return {"param_space": {"run": tune.grid_search([spec.to_config()["run"] for spec in specs])}}
