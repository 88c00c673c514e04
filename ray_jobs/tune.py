"""Search all architectures concurrently, train the best of each with more seeds, and write the leaderboard.

Write OUTPUT/models and OUTPUT/leaderboard. The search uses the training and validation splits, or folds of both
(tune.folds); the best configuration of each architecture is trained with several seeds and scored on the test
split. After an interruption, the same command resumes each trial after its last finished epoch.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import ray

from genre.errors import TrainingError
from genre.features import Features
from genre.features.cache import ClipCache
from genre.features.recipe import Recipe
from genre.features.splitting import balance, folds
from genre.features.splitting.folds import NOT_TEST, Fold
from genre.report import Board
from genre.settings import Config, TuneSettings
from genre.storage import Location, lease
from genre.training import experiment
from genre.training.experiment import Experiment
from genre.wording import plural
from ray_jobs.engine import cli, cluster
from ray_jobs.engine.capacity import is_cluster
from ray_jobs.scoring import judging
from ray_jobs.scoring.baseline import fit_baseline
from ray_jobs.scoring.robustness import ChangedAudio
from ray_jobs.scoring.scores import JudgedSplit
from ray_jobs.search import decision, finals, judged, results, samplers, slots, space, timing, tracking
from ray_jobs.search.budget import Forecast
from ray_jobs.search.decision import Decider, Decision
from ray_jobs.search.finals import Finals
from ray_jobs.search.plan import Plan
from ray_jobs.search.resources import TrialResources
from ray_jobs.search.results import SearchResult, Winner
from ray_jobs.search.runner import Runner
from ray_jobs.search.slots import Slot

if TYPE_CHECKING:  # it imports scikit-learn, and a light install is to miss torch first
    from genre.evaluation.baseline import Baseline


@dataclass(frozen=True)
class EndedSearch:
    """A search whose final trainings have ended."""

    decider: Decider
    decided: Decision
    result: SearchResult
    trained: Finals
    started: float  # `time.monotonic`

    @property
    def seconds(self) -> float:
        """The time since its start."""
        return time.monotonic() - self.started


def run(config: Config, known: Forecast | None = None) -> None:
    """Write OUTPUT/models/ and OUTPUT/leaderboard/. `known` is a forecast that was measured and printed before."""
    tracking.check(config.tune.mlflow)
    experiments = space.experiments(config)
    features = _open(config, experiments)
    with lease.held(config.output, "tune"):
        _tune(config, experiments, features, known)


def _tune(config: Config, experiments: Mapping[str, Experiment], features: Features, known: Forecast | None) -> None:
    started, output = time.monotonic(), Location.of(config.output)
    cli.say(f"tune: {_described(features, config.tune.folds, config.seed)}")
    for split in ("test",) if config.tune.folds else ("valid", "test"):
        if note := balance.absent_genres(features.tracks(), features.classes, split, judges=split == "test"):
            cli.say(f"tune: {note}")
    advice = experiment.advice_on_steps(config.train, features)
    if advice and not config.tune.minutes:  # which decides on the epochs
        cli.say(f"tune: {advice}")
    searched = features.sampled(config.tune.sample, config.seed)
    _check_disk(config, features)
    with cluster.connected(config.cluster, config.output) as capacity:
        resources = TrialResources.of(config.tune, config.device, capacity)
        resources.start()
        runner = Runner(config, ClipCache.of(searched, config.cache), resources)
        workload = timing.workload_of(features)
        file = decision.file_of(config, workload, features.manifest.contents)
        decider = Decider(file, experiments, config.tune, workload, resources)
        decided = decider.decide(known)
        baseline = fit_baseline.remote(features, config.train.class_weights, capacity, runner.first_fold)
        result = find_winners(runner, experiments, decided.plan)
        trained = _train_finals(runner, decider, decided, result, started)
        if trained.interrupted:
            _publish_best_so_far(runner, result)
            raise KeyboardInterrupt
        if trained.fold is not None:  # the baseline learns from what the networks learned from
            ray.cancel(baseline)
            baseline = fit_baseline.remote(features.of_fold(trained.fold), config.train.class_weights, capacity)
        on = JudgedSplit(features, "test", config.seed, capacity, config.device)
        board = _judged(config, on, EndedSearch(decider, decided, result, trained, started), baseline)
    judging.publish(board, output / "leaderboard", trained.saved, "tune", config)
    for saved in trained.saved:
        finals.copy_model(saved.best.location, output / "models" / saved.name)


def _judged(config: Config, on: JudgedSplit, search: EndedSearch, fitted: ray.ObjectRef[Baseline]) -> Board:
    """Return the board of the final models: that of an earlier run, where it was made from the same."""
    key = judged.key_of(config, on.features, search.result.facts, search.trained, search.decided.failures)
    earlier = judged.earlier(Location.of(config.output) / "leaderboard", key)
    if earlier is not None:
        ray.cancel(fitted)
        return earlier
    count = search.decider.robustness_tracks(search.decided, search.seconds)
    changed = _changed_audio(config, on.features, count) if count else None
    board = judging.judge(
        on,
        [*search.trained.saved, *search.trained.defaults],
        fitted,
        search.result.facts,
        changed,
        key if count == search.decided.robustness_tracks else "",
    )
    if count and changed is None:
        board.notes.append(
            "Robustness was not measured: the spectrograms are precomputed, and there is no audio to change."
        )
    board.notes.extend(_notes(config.tune, search.trained, count, search.seconds))
    with_model = _saved(config, search.result.winners, search.trained)
    board.missing.update(search.decided.failures | results.missing(search.result.facts, with_model))
    return board


def _changed_audio(config: Config, features: Features, count: int) -> ChangedAudio | None:
    """Draw about `count` test tracks, to be scored on changed audio; None for precomputed spectrograms."""
    recipe = Recipe.from_settings(features.manifest.settings, config.decoding)
    return ChangedAudio.sample(features.tracks("test"), count, config.seed, recipe) if recipe else None


def _notes(settings: TuneSettings, trained: Finals, changed_tracks: int, seconds: float) -> list[str]:
    """Return the notes of the report on a search that took `seconds`."""
    notes = list(trained.notes)
    if settings.folds:
        notes.append(_references(trained.fold))
        notes.append(
            "In the search, a trial that finished all folds counts with their mean, another one with the mean of those "
            "that it finished, or with its first so far."
        )
    if settings.robustness and not changed_tracks:
        notes.append(f"Robustness was not measured: tune.minutes={settings.minutes:g} left no time for it.")
    return notes + decision.overrun_notes(settings.minutes, seconds)


def forecast(config: Config, price: float | None) -> None:
    """Print what `run` would train and how long that would take, from a few steps of each architecture.

    `price` is that of a core-hour, None without a price.
    """
    experiments = space.experiments(config)
    features = _open(config, experiments)
    with cluster.connected(config.cluster, config.output) as capacity:
        resources = TrialResources.of(config.tune, config.device, capacity)
        resources.start()
        measured = timing.measure(experiments, config.tune, timing.workload_of(features), resources)
        plan = measured.plan()
        timing.show(measured, plan)
        for line in timing.costs_of(measured, plan, resources, price):
            cli.say(f"tune: {line}")


def find_winners(runner: Runner, experiments: Mapping[str, Experiment], plan: Plan) -> SearchResult:
    """Run the trials of `plan` that are missing, and return the best trial of each architecture.

    Raises `TrainingError` where no trial finished an epoch.
    """
    concurrent = runner.resources.concurrent_trials()  # on the machines that are up before it starts more
    trials = _run_trials(runner, experiments, plan)
    for trial in trials:
        if trial.record is not None and trial.record.failure:
            cli.say(f"  {trial.architecture}: a trial failed: {trial.record.failure}")
    result = results.of_trials(trials, plan, runner.base, concurrent)
    if not result.winners and not result.interrupted:
        raise TrainingError("no trial finished an epoch; the failures above say why")
    shown = [f"{name} {value}" for name, value in result.facts.summary() if name not in ("all architectures", "budget")]
    cli.say(f"  {', '.join(shown)}")
    return result


def _run_trials(runner: Runner, experiments: Mapping[str, Experiment], plan: Plan) -> list[Slot]:
    """Run the trials of `plan` that are missing, and return all of them."""
    config = runner.base
    folder = Location.of(config.output) / "tune"
    trials = slots.planned(folder, experiments, config.tune, runner.cache.features.manifest, plan)
    missing = slots.unsettled(trials, plan.minutes)
    if not missing:
        return trials
    begun = sum(slot.record is not None and slot.record.epochs > 0 for slot in missing)
    if len(missing) < len(trials) or begun:
        resumed = f", {begun} {'is' if begun == 1 else 'are'} resumed" if begun else ""
        ran = f"{len(trials) - len(missing)} of {plural(len(trials), 'trial')} ran before"
        cli.say(f"search: {ran}{resumed}")
    if config.tune.workers_per_trial == 1:  # with several, the copy of a machine may be a share only
        runner.cache_clips()
    sampling = samplers.sampling(experiments, config.tune, config.seed, plan, trials, missing)
    return runner.run("search", trials, missing, **sampling)


def _open(config: Config, experiments: Mapping[str, Experiment]) -> Features:
    """Return the features, after checking that the search can train on them, from the model of train.init_from."""
    features = Features.open(Location.of(config.output) / "features")
    if config.tune.folds:  # the report says that the splits were checked, and the search needs no validation split
        experiment.check_leakage(features)
        experiment.check_tracks(features.of_fold(Fold.none_of(NOT_TEST)), ("train", "test"))
    else:
        experiment.check_tracks(features)
    experiment.check_settings(config.audio, config.spectrogram, features)
    experiment.check_start(config.train, features, NOT_TEST if config.tune.folds else ("valid",))
    searched = (
        _first_fold(config.tune, config.seed, features)
        if config.tune.folds
        else features.sampled(config.tune.sample, config.seed)
    )
    experiment.check_batches(config.train, searched, config.tune.workers_per_trial)
    if config.train.init_from:  # a model of another architecture would fail in each trial
        for planned in experiments.values():
            experiment.check(planned, searched, config.tune.workers_per_trial)
    return features


def _check_disk(config: Config, features: Features) -> None:
    """Raise `ArtifactError` where this machine cannot keep the clips. On a cluster the first trials find out."""
    if not is_cluster():
        used = _first_fold(config.tune, config.seed, features) if config.tune.folds else features
        ClipCache.of(used, config.cache).check_size()


def _first_fold(settings: TuneSettings, seed: int, features: Features) -> Features:
    """Return the features with the first fold in place of the splits, after checking all folds.

    Raises `ArtifactError` for a track, group or audio in two folds, and `ConfigError` where the tracks do not suffice.
    """
    tracks, count = features.tracks(), settings.folds
    first = folds.of_search(tracks, count, seed)[0]
    assigned = folds.assign(tracks, count, first.seed, NOT_TEST)
    folds.check(tracks, assigned, count, features.classes, "tune.folds", published=first.seed is None)
    return features.of_fold(first)


def _described(features: Features, count: int, seed: int) -> str:
    """Return what the search learns from and is judged by."""
    train, valid = (len(features.tracks(split)) for split in NOT_TEST)
    genres = plural(len(features.classes), "genre")
    if count:
        text, tracks = f"{plural(train + valid, 'track')} of {genres}, in {count}", features.tracks()
        if folds.of_search(tracks, count, seed)[0].seed is not None:
            return f"{text} folds"
        divided = tracks.filter(pc.is_in(tracks["split"], pa.array(NOT_TEST)))
        lacking = folds.absent_genres(divided, features.classes)
        note = f"; {lacking}; if that is wrong, correct the column 'fold'" if lacking else ""
        return f"{text} published folds{note}"
    return f"{plural(train, 'track')} of {genres}, validated on {valid}"


def _train_finals(runner: Runner, decider: Decider, decided: Decision, result: SearchResult, started: float) -> Finals:
    """Return the final models of the winners, with as many seeds as the time since `started` allows."""
    if result.interrupted:
        return Finals(interrupted=True)
    seconds = max(time.monotonic() - started, result.facts.makespan_seconds or 0.0)
    plan = decider.finals(decided, result.winners, result.defaults, seconds)
    if plan.seeds:
        trained = finals.train(runner, result.winners, result.defaults if plan.defaults else [], plan.seeds)
    else:
        trained = finals.take_best_epochs(runner, result.winners)
    if decider.settings.defaults and not plan.defaults:
        trained.notes.append("The configured settings were not judged: tune.minutes left no time to train them.")
    elif plan.defaults and result.without_default:
        names = ", ".join(result.without_default)
        trained.notes.append(f"{names}: the configured settings were not judged, since their trial failed.")
    return trained


def _publish_best_so_far(runner: Runner, result: SearchResult) -> None:
    """After an interruption, score the best trials so far on their validation tracks, in OUTPUT/leaderboard/so-far."""
    if not result.winners:
        return
    cli.say("tune: interrupted; now the best trials so far are scored; press Ctrl-C again to leave this out")
    config, features = runner.base, runner.cache.features.complete()
    if runner.first_fold is not None:
        features = features.of_fold(runner.first_fold)  # the networks learned from validation tracks of other folds
    output = Location.of(config.output)
    saved = [
        finals.best_epoch(runner, winner, output / "tune" / "so-far" / winner.architecture) for winner in result.winners
    ]
    on = JudgedSplit(features, "valid", config.seed, runner.resources.capacity, config.device)
    board = judging.judge(on, saved, search=result.facts)
    board.notes.append("The search was interrupted: these are the best trials so far.")
    if runner.first_fold is not None:
        board.notes.append(
            f"The models are the networks of {runner.first_fold}, and the validation tracks those that it held out."
        )
    judging.publish(board, output / "leaderboard" / "so-far", saved, "tune", config)


def _references(fold: Fold | None) -> str:
    """Return what the reference rows of a search over folds learned from; `fold` is that of the models, if any."""
    # named, since a report of several searches has the notes of all of them
    rows = "The classical baseline, the majority and the nearest neighbours of a search over folds"
    if fold is not None:
        return f"{rows} know the tracks that the networks learned from; the others chose the penalty of the baseline."
    return f"{rows} know all tracks that are not test; the penalty of the baseline has the best mean over the folds."


def _saved(config: Config, winners: Sequence[Winner], trained: Finals) -> list[str]:
    """Return the names of the architectures that have a saved model."""
    names = {saved.name for saved in trained.saved}
    return [winner.architecture for winner in winners if winner.model_name(config) in names]


if __name__ == "__main__":
    sys.exit(cli.main("tune"))
