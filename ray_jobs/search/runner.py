"""Run trials with Ray Tune. Their results are in their folders; Tune's own state is not used to resume a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import ray
from ray import tune

from genre.errors import GenreError, TrainingError
from genre.features.cache import ClipCache
from genre.features.splitting import folds
from genre.features.splitting.folds import Fold
from genre.settings import Config
from genre.storage import Location
from ray_jobs.engine import reporter
from ray_jobs.search import exits, tracking, trial_folder
from ray_jobs.search.progress import SearchProgress
from ray_jobs.search.resources import TrialResources
from ray_jobs.search.slots import Slot
from ray_jobs.search.stopper import METRIC
from ray_jobs.search.trial import cache_of, train_trial
from ray_jobs.search.trial_folder import TrialSpec


@dataclass(frozen=True)
class Runner:
    """Runs trials of `base`, each with its own settings, on the clips that each machine keeps in `cache`."""

    base: Config
    cache: ClipCache
    resources: TrialResources

    @property
    def is_on_subset(self) -> bool:
        """Whether a trial's network sees only some of the tracks: tune.sample of them, or those of other folds."""
        return bool(self.cache.features.views or self.base.tune.folds)

    @property
    def first_fold(self) -> Fold | None:
        """The fold of the trials' first networks; None if they have one split."""
        count = self.base.tune.folds
        return folds.of_search(self.cache.features.tracks(), count, self.base.seed)[0] if count else None

    def on_all(self) -> Runner:
        """Return a runner of trials on all tracks."""
        features, settings, splits = self.cache.features, self.cache.settings, self.cache.splits
        if not features.views:
            return self
        return replace(self, cache=ClipCache.of(features.complete(), settings, splits))

    def cache_clips(self) -> None:
        """Copy the clips to one machine, so that a search does not start if its disk is too small.

        It has to have room for all tracks as well, from which the final models learn. Raises `TrainingError` when the
        copy cannot be made.
        """
        task = _cache_clips.options(num_cpus=self.resources.cpus, num_gpus=self.resources.gpus)
        with reporter.messages("tune") as mailbox:
            failure = ray.get(task.remote(cache_of(self.cache, self.first_fold), self.on_all().cache, mailbox))
        if failure:
            raise TrainingError(failure)

    def run(self, phase: str, slots: Sequence[Slot], missing: Sequence[Slot], **sampling: Any) -> list[Slot]:
        """Run the trials of the `missing` slots, and return all `slots` with their new records.

        `sampling` are a `param_space` and arguments of `tune.TuneConfig`; they give each trial its `TrialSpec`. Tune
        writes logs for TensorBoard to OUTPUT/tune/logs/PHASE. After an interruption some slots have not ended. Raises
        the error of a storage or a machine that ended a trial, when the other trials have ended.
        """
        output = Location.of(self.base.output)
        logs = output / "tune" / "logs"
        mlflow = tracking.callbacks(self.base.tune.mlflow, f"{output.name} {phase}")
        with reporter.messages("tune") as mailbox:
            trainable = tune.with_parameters(
                train_trial, base=self.base, cache=self.cache, resources=self.resources, mailbox=mailbox
            )
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
            trained = tuner.fit()
        _record_faults(output, slots, trained)
        return [slot.read() for slot in slots]


def _record_faults(output: Location, slots: Sequence[Slot], trials: tune.ResultGrid) -> None:
    """Record which trials crashed, and raise the first error of a storage or a machine."""
    folders = {slot.log_name: slot.folder for slot in slots}
    faults = []
    for trial in trials:
        if trial.error:
            faults.append(exits.fault(output, trial))
            # by the path, since a trial that died at its start reported no configuration
            folder = folders[trial.path.rstrip("/").rsplit("/", 1)[-1]]
            folder.end("crashed", failure=exits.reason(output, trial))
    for fault in filter(None, faults):
        raise fault


@ray.remote
def _cache_clips(cache: ClipCache, of_all_tracks: ClipCache, mailbox: Any) -> str:
    """Copy the clips of `cache` to this machine. Return why this, or the other copy, is impossible; "" if it is not."""
    try:
        of_all_tracks.check_size()
        cache.open(mailbox.put.remote)
    except GenreError as error:
        return str(error)
    return ""


def listed(specs: Sequence[TrialSpec]) -> dict[str, Any]:
    """Return the sampling for `Runner.run` of exactly these trials, in this order."""
    return {"param_space": {trial_folder.KEY: tune.grid_search([asdict(spec) for spec in specs])}}
