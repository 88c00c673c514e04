"""Search all architectures concurrently, train the best of each again, and write the leaderboard.

The search sees the training and validation splits only. The best configuration of each architecture is
trained with several seeds; then, once, each is scored on the test split. Run again after an
interruption: it goes on from the last finished epoch of each trial.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

from genre import checkpoint, experiment, features, models
from genre.config import Config, fingerprint
from genre.errors import TrainingError
from genre.experiment import Data
from genre.report import Search, Trial
from genre.report.facts import Status
from genre.storage import Location
from ray_jobs import cli, cluster, judging, samplers, search
from ray_jobs.entries import Saved
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
    state: Any  # Tune's checkpoint of its last epoch


@dataclass(frozen=True)
class Outcome:
    """What the search brought."""

    winners: list[Winner]
    search: Search


def run(config: Config) -> None:
    """Write OUTPUT/models/ and OUTPUT/leaderboard/."""
    output = Location.of(config.output)
    data = experiment.load_data(output / "features", needed=features.SPLITS)
    experiment.check_settings(config, data.manifest, output / "features")
    names = search.architectures(config)
    for name in names:
        apply(config, {"model.name": name})
    cli.console().print(
        f"tune: {len(names)} architectures on {len(data.train.track_ids)} tracks, "
        f"validated on {len(data.valid.track_ids)}, {len(data.classes)} genres"
    )
    with cluster.connected(config):
        # one copy for all processes of a machine; a list, since Tune copies what it is handed directly
        shared = [ray.put(data)]
        fitted = judging.fit_baseline.remote(*shared)
        identity = _identity(config, data)
        outcome, interrupted = _search(config, shared, identity)
        if interrupted:
            _publish_so_far(config, data, outcome)
            raise KeyboardInterrupt
        saved = _train_finals(config, shared, identity, outcome.winners)
        board = judging.judge(
            config,
            output / "features",
            "test",
            saved,
            ray.get(fitted),
            outcome.search,
            changed=config.tune.robustness,
        )
    judging.publish(board, output / "leaderboard", saved)
    for one in saved:
        _keep_best(one, output / "models" / one.label)


def _search(config: Config, shared: Shared, identity: str) -> tuple[Outcome, bool]:
    """The best trial of each architecture, and whether the search was interrupted."""
    started = time.monotonic()
    names = search.architectures(config)
    space, tune_config = samplers.tune_config(config, names, search.concurrent_trials(config))
    progress = SearchProgress("search", names, config.tune.trials, config.train.epochs)
    trials = _fit(config, shared, f"search-{identity}", space, tune_config, progress)
    for architecture, failure in _failures(trials):
        cli.console().print(f"  {architecture}: a trial failed: {failure}")
    winners = [winner for name in names if (winner := _winner(name, trials)) is not None]
    interrupted = _unfinished(trials, len(names) * config.tune.trials)
    if not winners and not interrupted:
        raise TrainingError("no trial finished an epoch; the failures above say why")
    facts = Search(
        trials=[_trial(one, config.train.epochs) for one in trials],
        makespan_seconds=time.monotonic() - started,
        concurrent=search.concurrent_trials(config),
        budget=f"{config.tune.trials} trials of at most {config.train.epochs} epochs an architecture",
    )
    return Outcome(winners, facts), interrupted


def _train_finals(config: Config, shared: Shared, identity: str, winners: list[Winner]) -> list[Saved]:
    """Train each winner with every seed, to its end, and save the models."""
    folder = Location.of(config.output) / "models"
    seeds = range(config.seed, config.seed + config.tune.seeds)
    saved = []
    for winner in winners:
        label = _label(config, winner)
        saved.append(Saved(label, [folder / label / f"seed-{seed}" for seed in seeds], winner.trials))
    runs = [
        {"settings": winner.settings | {"seed": seed}, "save": str(folder)}
        for winner, one in zip(winners, saved, strict=True)
        for seed, folder in zip(seeds, one.folders, strict=True)
    ]
    tune_config = tune.TuneConfig(
        metric=search.METRIC,
        mode="max",
        max_concurrent_trials=search.concurrent_trials(config),
        trial_dirname_creator=lambda trial: trial.trial_id,
        reuse_actors=True,
    )
    names = [winner.architecture for winner in winners]
    progress = SearchProgress("final", names, config.tune.seeds, config.train.epochs)
    trials = _fit(config, shared, f"final-{identity}", {"run": tune.grid_search(runs)}, tune_config, progress)
    failures = _failures(trials)
    if failures:
        architecture, failure = failures[0]
        raise TrainingError(f"the final training of {architecture} failed: {failure}; the same command tries again")
    if _unfinished(trials, len(runs)):
        raise KeyboardInterrupt
    return saved


def _fit(
    config: Config,
    shared: Shared,
    name: str,
    space: dict[str, Any],
    tune_config: tune.TuneConfig,
    progress: SearchProgress,
) -> list[tune.Result]:
    """Run one Tune experiment, or go on with the one of this name."""
    folder = Location.of(config.output) / "tune"
    trainable = tune.with_resources(
        tune.with_parameters(train_trial, base=config, shared=shared),
        {"cpu": config.tune.cpus_per_trial, "gpu": config.tune.gpus_per_trial},
    )
    if _can_restore(folder / name):
        tuner = tune.Tuner.restore(
            (folder / name).path,
            trainable=trainable,
            resume_errored=True,
            storage_filesystem=folder.filesystem,
        )
    else:
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
        tuner = tune.Tuner(trainable, param_space=space, tune_config=tune_config, run_config=run_config)
    results = tuner.fit()
    return [results[number] for number in range(len(results))]


def _can_restore(experiment: Location) -> bool:
    """Whether an earlier run left all of its state here; one killed early leaves a part, which helps nobody."""
    names = [info.base_name for info in experiment.children() if info.size]
    return "tuner.pkl" in names and any(name.startswith("experiment_state-") for name in names)


def _unfinished(trials: list[tune.Result], expected: int) -> bool:
    """Whether some trial was neither brought to an end nor failed: Tune returns early when it is interrupted."""
    ended = [trial for trial in trials if trial.error or (trial.metrics and trial.metrics.get("done"))]
    return len(ended) < expected


def _winner(architecture: str, trials: list[tune.Result]) -> Winner | None:
    """The trial with the best epoch, or None when no trial of this architecture finished one."""
    mine = [trial for trial in trials if _settings(trial)["model.name"] == architecture]
    scored = [trial for trial in mine if trial.checkpoint is not None]
    if not scored:
        return None
    best = max(scored, key=lambda trial: float(trial.metrics[search.METRIC]))
    return Winner(architecture, _settings(best), float(best.metrics[search.METRIC]), len(mine), best.checkpoint)


def _publish_so_far(config: Config, data: Data, outcome: Outcome) -> None:
    """After an interruption: the best so far on the validation split, beside where the leaderboard will be."""
    if not outcome.winners:
        return
    output = Location.of(config.output)
    saved = []
    for winner in outcome.winners:
        settings = apply(config, winner.settings)
        card, trainer = experiment.trainer_for(settings, data, experiment.device_for("cpu"))
        with winner.state.as_directory() as path:
            trainer.restore(checkpoint.load_state(Location.of(path) / "state.pt"))
        folder = output / "tune" / "so-far" / winner.architecture
        experiment.save_best(folder, card, trainer, settings)
        saved.append(Saved(card.label, [folder], winner.trials))
    board = judging.judge(config, output / "features", "valid", saved, fitted=None, search=outcome.search)
    board.notes.append("The search was interrupted: these are the best trials so far.")
    judging.publish(board, output / "leaderboard" / "so-far", saved)


def _keep_best(saved: Saved, target: Location) -> None:
    """Make the seed with the best validation score the architecture's model; model.json comes last."""
    best = max(saved.folders, key=lambda folder: float((folder / "model.json").read_json()["facts"]["valid_f1"]))
    files = sorted(best.files(), key=lambda file: file.name == "model.json")
    for file in files:
        (target / file.name).write_bytes(file.read_bytes())


def _label(config: Config, winner: Winner) -> str:
    """The name of the winner's folder and row."""
    settings = apply(config, winner.settings)
    params = models.params(winner.architecture, settings.models.get(winner.architecture, {}))
    return models.label(winner.architecture, params.model_dump(mode="json"))


def _identity(config: Config, data: Data) -> str:
    """Changes with everything that decides the search, so that other settings start another one."""
    made_of = {"models": config.models, "seed": config.seed, "features": data.manifest["fingerprint"]}
    return fingerprint(config.train, config.tune, made_of)


def _settings(trial: tune.Result) -> dict[str, Any]:
    settings: dict[str, Any] = trial.config["run"]["settings"]
    return settings


def _trial(result: tune.Result, epochs: int) -> Trial:
    """A trial for the report."""
    settings, metrics = _settings(result), result.metrics or {}
    failure = metrics.get("failure") or (_last_line(result.error) if result.error else "")
    reached = int(metrics.get("epoch", 0))
    ended: Status = "finished" if reached >= epochs else "stopped" if metrics.get("done") else "interrupted"
    return Trial(
        architecture=settings["model.name"],
        settings={key: value for key, value in settings.items() if key != "model.name"},
        status="failed" if failure else ended,
        valid_f1=metrics.get(search.METRIC) if reached else None,
        epochs=reached,
        seconds=metrics.get("time_total_s"),
        error=failure,
    )


def _failures(trials: list[tune.Result]) -> list[tuple[str, str]]:
    """Architecture and reason of each trial that failed."""
    reasons = ((trial, trial.metrics.get("failure") if trial.metrics else None) for trial in trials)
    told = [(trial, reason or (_last_line(trial.error) if trial.error else None)) for trial, reason in reasons]
    return [(_settings(trial)["model.name"], reason) for trial, reason in told if reason]


def _last_line(error: Exception) -> str:
    """The last line of a trial's error, which names it, without the stack above."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


if __name__ == "__main__":
    sys.exit(cli.main("tune", __doc__, run))
