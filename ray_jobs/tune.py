"""Search all architectures concurrently, train the best of each again, and write the leaderboard.

The search uses only the training and validation splits. The best configuration of each architecture is trained with
several seeds and scored once on the test split. Run again after an interruption, it resumes after the last finished
epoch of each trial. Write OUTPUT/models and OUTPUT/leaderboard.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from typing import Any

from genre import checkpoint, experiment, features, models, windows
from genre.config import Config, fingerprint
from genre.errors import TrainingError
from genre.experiment import Data
from genre.report import Search
from genre.report.slices import search_facts
from genre.storage import Location
from ray_jobs import cli, cluster, judging, outcomes, samplers, search, tracking
from ray_jobs.entries import Saved
from ray_jobs.outcomes import Winner
from ray_jobs.search_progress import SearchProgress, wall_seconds
from ray_jobs.trials import Shared, apply, train_trial

import ray  # isort: skip
from ray import tune  # isort: skip

# What decides where and how fast a search runs, and what is told of it, rather than what it finds
_ELSEWHERE = {"concurrent", "workers_per_trial", "cpus_per_trial", "gpus_per_trial", "mlflow", "robustness"}


@dataclass(frozen=True)
class Outcome:
    """What the search brought."""

    winners: list[Winner]
    search: Search
    interrupted: bool


@dataclass(frozen=True)
class Finals:
    """The models of the winners, one per seed, and what is to be said of those that could not be trained."""

    saved: list[Saved] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False


def run(config: Config) -> None:
    """Write OUTPUT/models/ and OUTPUT/leaderboard/."""
    output = Location.of(config.output)
    tracking.check(config)
    data = experiment.load_data(output / "features", needed=features.SPLITS)
    experiment.check_settings(config, data.manifest, output / "features")
    names = search.architectures(config)
    for name in names:
        apply(config, {"model.name": name})
    windows.plan(len(data.train), config.train.windows_per_clip, config.train.batch_size, config.tune.workers_per_trial)
    cli.console().print(
        f"tune: {len(names)} architectures on {len(data.train.track_ids)} tracks, "
        f"validated on {len(data.valid.track_ids)}, {len(data.classes)} genres"
    )
    identity = _identity(config, data)
    with cluster.connected(config):
        config = search.with_resources(config)
        # one copy for all processes of a machine; a list, since Tune copies what it is handed directly
        shared = [ray.put(data)]
        fitted = judging.fit_baseline.remote(*shared, config.train.class_weights)
        outcome = find_winners(config, shared, identity)
        finals = Finals(interrupted=True) if outcome.interrupted else _train_finals(config, shared, identity, outcome)
        if finals.interrupted:
            _publish_so_far(config, data, outcome)
            raise KeyboardInterrupt
        board = judging.judge(
            config,
            output / "features",
            "test",
            finals.saved,
            ray.get(fitted),
            outcome.search,
            changed=config.tune.robustness,
        )
    board.notes.extend(finals.notes)
    judging.publish(board, output / "leaderboard", finals.saved)
    for one in finals.saved:
        _keep_best(one, output / "models" / one.label)


def find_winners(config: Config, shared: Shared, identity: str) -> Outcome:
    """The best trial of each architecture."""
    names = search.architectures(config)
    space, tune_config = samplers.tune_config(config, names, search.concurrent_trials(config))
    trials, seconds = _fit(config, shared, f"search-{identity}", space, tune_config, names, config.tune.trials)
    for trial in trials:
        if why := outcomes.failure(trial):
            cli.console().print(f"  {outcomes.settings_of(trial)['model.name']}: a trial failed: {why}")
    winners = [winner for name in names if (winner := outcomes.winner(name, trials)) is not None]
    interrupted = outcomes.unfinished(trials, len(names) * config.tune.trials)
    if not winners and not interrupted:
        raise TrainingError("no trial finished an epoch; the failures above say why")
    facts = Search(
        trials=[outcomes.for_report(one, config.train.epochs) for one in trials],
        makespan_seconds=seconds,
        concurrent=search.concurrent_trials(config),
        budget=_budget(config),
    )
    told = (f"{name} {value}" for name, value in search_facts(facts) if name not in ("all architectures", "budget"))
    cli.console().print(f"  {', '.join(told)}")
    return Outcome(winners, facts, interrupted)


def _train_finals(config: Config, shared: Shared, identity: str, outcome: Outcome) -> Finals:
    """Train each winner with every seed, to its end, and save the models.

    A training that fails leaves its seed out, and the leaderboard says so. Raises `TrainingError` when all failed.
    """
    folder = Location.of(config.output) / "models"
    seeds = range(config.seed, config.seed + config.tune.seeds)
    saved = []
    for winner in outcome.winners:
        label = _label(config, winner)
        saved.append(Saved(label, [folder / label / f"seed-{seed}" for seed in seeds], winner.trials))
    runs = [
        {"settings": winner.settings | {"seed": seed}, "save": str(folder)}
        for winner, one in zip(outcome.winners, saved, strict=True)
        for seed, folder in zip(seeds, one.folders, strict=True)
    ]
    tune_config = tune.TuneConfig(
        metric=search.METRIC,
        mode="max",
        max_concurrent_trials=search.concurrent_trials(config),
        trial_dirname_creator=lambda trial: trial.trial_id,
        reuse_actors=True,
    )
    names, space = [winner.architecture for winner in outcome.winners], {"run": tune.grid_search(runs)}
    name = f"final-{identity}-{fingerprint({'runs': runs})}"
    _forget_overwritten(Location.of(config.output), name)
    trials, _ = _fit(config, shared, name, space, tune_config, names, config.tune.seeds)
    if outcomes.unfinished(trials, len(runs)):
        return Finals(interrupted=True)
    failed = {trial.config["run"]["save"]: why for trial in trials if (why := outcomes.failure(trial))}
    notes = [
        f"{one.label}: the final training of {place.name} failed and is left out: {failed[str(place)]}"
        for one in saved
        for place in one.folders
        if str(place) in failed
    ]
    for note in notes:
        cli.console().print(f"  {note}")
    trained = [replace(one, folders=[place for place in one.folders if str(place) not in failed]) for one in saved]
    trained = [one for one in trained if one.folders]
    if not trained:
        raise TrainingError(f"no final training came to its end; the first failed: {next(iter(failed.values()))}")
    return Finals(trained, notes)


def _forget_overwritten(output: Location, name: str) -> None:
    """Forget what is known of these final trainings when the models of others were written over theirs."""
    latest = output / "models" / "finals.json"
    if not latest.exists() or latest.read_json() != {"latest": name}:
        (output / "tune" / name).delete()
        latest.write_json({"latest": name})


def _fit(
    config: Config,
    shared: Shared,
    name: str,
    space: dict[str, Any],
    tune_config: tune.TuneConfig,
    architectures: list[str],
    trials: int,
) -> tuple[list[tune.Result], float]:
    """Run one Tune experiment, or go on with the one of this name; what its trials brought, and its wall time.

    The phase is the first word of `name`; each of the `architectures` has so many `trials`.
    """
    folder, phase = Location.of(config.output) / "tune", name.partition("-")[0]
    clock = folder / f"{name}.clock.json"
    trainable = tune.with_resources(
        tune.with_parameters(train_trial, base=config, shared=shared), search.bundles(config)
    )
    if _can_restore(folder / name):
        tuner = tune.Tuner.restore(
            (folder / name).path,
            trainable=trainable,
            resume_errored=True,
            storage_filesystem=folder.filesystem,
        )
    else:
        concurrent = search.concurrent_trials(config)
        progress = SearchProgress(phase, architectures, trials, config.train.epochs, concurrent, clock)
        clock.delete()  # of an experiment that left too little to go on with
        run_config = tune.RunConfig(
            name=name,
            storage_path=folder.path,
            storage_filesystem=folder.filesystem,
            verbose=0,
            callbacks=[progress, *tracking.callbacks(config, phase)],
            failure_config=tune.FailureConfig(max_failures=1),
            # fewer leave a trial that was killed while it wrote without one to go on from
            checkpoint_config=tune.CheckpointConfig(num_to_keep=3),
        )
        tuner = tune.Tuner(trainable, param_space=space, tune_config=tune_config, run_config=run_config)
    results = tuner.fit()
    return [results[number] for number in range(len(results))], wall_seconds(clock)


def _can_restore(experiment: Location) -> bool:
    """Whether an earlier run left its state here; what a kill cut short goes, so that Tune takes the one before it."""
    names = [info.base_name for info in experiment.children() if info.size]
    states = [name for name in names if name.startswith("experiment_state-")]
    while states and not (experiment / states[-1]).holds_json():
        (experiment / states.pop()).delete()
    return "tuner.pkl" in names and bool(states)


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
    made_of = {"models": config.models, "seed": config.seed}
    made_of |= {key: data.manifest[key] for key in ("fingerprint", "contents")}
    train = config.train.model_dump(mode="json", exclude={"resume", "workers", "device"})
    return fingerprint(train, config.tune.model_dump(mode="json", exclude=_ELSEWHERE), made_of)


def _budget(config: Config) -> str:
    """What each architecture is given, in words."""
    limit = f", and {config.tune.minutes:g} minutes of training in all" if config.tune.minutes else ""
    return f"{config.tune.trials} trials of at most {config.train.epochs} epochs an architecture{limit}"


if __name__ == "__main__":
    sys.exit(cli.main("tune"))
