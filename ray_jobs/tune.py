"""Search all architectures concurrently, train the best of each again, and write the leaderboard.

The search sees the training and validation splits only. The best configuration of each architecture is
trained with several seeds; then, once, each is scored on the test split. Run again after an
interruption: it goes on from the last finished epoch of each trial.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from genre import experiment
from genre.config import Config, fingerprint
from genre.errors import TrainingError
from genre.experiment import Data
from genre.storage import Location
from ray_jobs import cli, cluster, leaderboard, search
from ray_jobs.leaderboard import Saved
from ray_jobs.search_progress import SearchProgress
from ray_jobs.trials import apply, train_trial

import ray  # isort: skip
from ray import tune  # isort: skip


Shared = list[ray.ObjectRef[Data]]


@dataclass(frozen=True)
class Winner:
    """The best configuration of an architecture, by validation macro F1."""

    architecture: str
    settings: dict[str, Any]
    valid_f1: float
    trials: int
    failures: list[str]


def run(config: Config) -> None:
    """Write OUTPUT/models/ and OUTPUT/leaderboard/."""
    output = Location.of(config.output)
    data = experiment.load_data(output / "features")
    experiment.check_settings(config, data.manifest, output / "features")
    for name in search.architectures(config):
        apply(config, {"model.name": name})
    console = cli.console()
    console.print(
        f"tune: {len(search.architectures(config))} architectures on {len(data.train.track_ids)} tracks, "
        f"validated on {len(data.valid.track_ids)}, {len(data.classes)} genres"
    )
    with cluster.connected(config):
        # one copy for all processes of a machine; a list, since Tune copies what it is handed directly
        shared = [ray.put(data)]
        fitted = leaderboard.fit_baseline.remote(*shared)
        identity = _identity(config, data)
        winners = _search(config, shared, identity)
        saved = _train_finals(config, shared, identity, winners)
        board = leaderboard.judge(config, output / "features", "test", saved, ray.get(fitted))
    for one in saved:
        _keep_best(one, output / "models" / one.architecture)
    leaderboard.publish(board, output / "leaderboard")


def _search(config: Config, shared: Shared, identity: str) -> list[Winner]:
    names = search.architectures(config)
    results = _fit(
        config,
        shared,
        name=f"search-{identity}",
        runs=[{"settings": search.space(config, name)} for name in names],
        samples=config.tune.trials,
        scheduler=search.stopper(config),
        progress=SearchProgress("search", names, config.tune.trials, config.train.epochs),
    )
    winners = [_winner(name, results) for name in names]
    found = [winner for winner in winners if winner is not None]
    for winner in found:
        for failure in winner.failures:
            cli.console().print(f"  {winner.architecture}: a trial failed: {failure}")
    if not found:
        raise TrainingError(f"no trial finished an epoch; the first error was: {_first_error(results)}")
    return found


def _train_finals(config: Config, shared: Shared, identity: str, winners: list[Winner]) -> list[Saved]:
    """Train each winner with every seed, to its end, and save the models."""
    models = Location.of(config.output) / "models"
    seeds = range(config.seed, config.seed + config.tune.seeds)
    saved = [
        Saved(winner.architecture, [models / winner.architecture / f"seed-{seed}" for seed in seeds], winner.trials)
        for winner in winners
    ]
    runs = [
        {"settings": winner.settings | {"seed": seed}, "save": str(folder)}
        for winner, one in zip(winners, saved, strict=True)
        for seed, folder in zip(seeds, one.folders, strict=True)
    ]
    results = _fit(
        config,
        shared,
        name=f"final-{identity}",
        runs=runs,
        samples=1,
        scheduler=None,
        progress=SearchProgress("final", [w.architecture for w in winners], config.tune.seeds, config.train.epochs),
    )
    if results.num_errors:
        raise TrainingError(f"a final training failed: {_first_error(results)}; the same command tries again")
    return saved


def _keep_best(saved: Saved, target: Location) -> None:
    """Make the seed with the best validation score the architecture's model."""
    best = max(saved.folders, key=lambda folder: float((folder / "model.json").read_json()["facts"]["valid_f1"]))
    for name in ("weights.safetensors", "model.json"):
        (target / name).write_bytes((best / name).read_bytes())


def _fit(
    config: Config,
    shared: Shared,
    name: str,
    runs: list[dict[str, Any]],
    samples: int,
    scheduler: Any,
    progress: SearchProgress,
) -> tune.ResultGrid:
    """Run one Tune experiment, or go on with the one of this name."""
    folder = Location.of(config.output) / "tune"
    trainable = tune.with_resources(
        tune.with_parameters(train_trial, base=config, shared=shared),
        {"cpu": config.tune.cpus_per_trial, "gpu": config.tune.gpus_per_trial},
    )
    run_config = tune.RunConfig(
        name=name,
        storage_path=folder.path,
        storage_filesystem=folder.filesystem,
        verbose=0,
        callbacks=[progress],
        failure_config=tune.FailureConfig(max_failures=1),
        # fewer leave a trial that was killed while it wrote without one to go on from
        checkpoint_config=tune.CheckpointConfig(num_to_keep=3),
    )
    path = (folder / name).path
    if _can_restore(folder / name):
        tuner = tune.Tuner.restore(path, trainable=trainable, resume_errored=True, storage_filesystem=folder.filesystem)
    else:
        tuner = tune.Tuner(
            trainable,
            param_space={"run": tune.grid_search(runs)},
            tune_config=tune.TuneConfig(
                metric=search.METRIC,
                mode="max",
                num_samples=samples,
                max_concurrent_trials=search.concurrent_trials(config),
                scheduler=scheduler,
                trial_dirname_creator=lambda trial: trial.trial_id,
                reuse_actors=True,
            ),
            run_config=run_config,
        )
    return tuner.fit()


def _can_restore(experiment: Location) -> bool:
    """Whether an earlier run left its state here; one killed before it had written any leaves an empty file."""
    state = experiment.filesystem.get_file_info((experiment / "tuner.pkl").path)
    complete = tune.Tuner.can_restore(experiment.path, storage_filesystem=experiment.filesystem)
    return bool(complete and state.size)


def _winner(architecture: str, results: tune.ResultGrid) -> Winner | None:
    """The trial with the best epoch, or None when no trial of this architecture finished one."""
    mine = [result for result in results if result.config["run"]["settings"]["model.name"] == architecture]
    scored = [result for result in mine if result.metrics and "best_f1" in result.metrics]
    if not scored:
        return None
    best = max(scored, key=lambda result: float(result.metrics["best_f1"]))
    failures = [_first_line(result.error) for result in mine if result.error]
    return Winner(architecture, best.config["run"]["settings"], float(best.metrics["best_f1"]), len(mine), failures)


def _identity(config: Config, data: Data) -> str:
    """Changes with everything that decides the search, so that other settings start another one."""
    sections = (config.train, config.tune)
    return fingerprint(
        *sections, {"models": config.models, "seed": config.seed, "features": data.manifest["fingerprint"]}
    )


def _first_error(results: tune.ResultGrid) -> str:
    return next((_first_line(error) for error in results.errors), "none was recorded")


def _first_line(error: Exception) -> str:
    """The last line of a trial's error, which names it, without the stack above."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


if __name__ == "__main__":
    sys.exit(cli.main("tune", __doc__, run))
