"""Run trials with Ray Tune. What they reached is in their folders, so Tune's own state is never read again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray import tune

from genre.settings import Config
from genre.storage import Location
from ray_jobs.search import exits, terms, tracking
from ray_jobs.search.search_plan import Slot
from ray_jobs.search.search_progress import SearchProgress
from ray_jobs.search.trials import Shared, train_trial


def run(
    config: Config,
    shared: Shared,
    phase: str,
    slots: Sequence[Slot],
    missing: Sequence[Slot],
    space: dict[str, Any],
    tune_config: tune.TuneConfig,
) -> list[Slot]:
    """Run the trials of `space`, which are those that are missing, and return all `slots` with what they reached.

    Tune's logs go to OUTPUT/tune/logs/PHASE, for TensorBoard. After an interruption some slots have not ended.
    """
    logs = Location.of(config.output) / "tune" / "logs"
    trainable = tune.with_resources(
        tune.with_parameters(train_trial, base=config, shared=shared), terms.bundles(config)
    )
    progress = SearchProgress(phase, slots, missing, terms.concurrent_trials(config))
    run_config = tune.RunConfig(
        name=phase,
        storage_path=logs.path,
        storage_filesystem=logs.filesystem,
        verbose=0,
        callbacks=[progress, *tracking.callbacks(config, phase)],
        failure_config=tune.FailureConfig(max_failures=exits.TRIES - 1),
    )
    tuner = tune.Tuner(trainable, param_space=space, tune_config=tune_config, run_config=run_config)
    folders = {slot.log_name: slot.folder for slot in slots}
    for result in tuner.fit():
        if result.error:
            # the path, since a trial that died at its start reported no configuration
            folder = folders[result.path.rstrip("/").rsplit("/", 1)[-1]]
            folder.end("crashed", failure=exits.reason(Location.of(config.output), result))
    return [slot.read() for slot in slots]
