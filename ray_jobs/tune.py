"""Search all architectures concurrently, train the best of each with more seeds, and write the leaderboard.

The search uses only the training and validation splits. The best configuration of each architecture is trained with
several seeds, of which the search did the first, and scored once on the test split. Run again after an interruption,
it resumes after the last finished epoch of each trial; more trials, seeds or architectures reuse those that ran. Write
OUTPUT/models and OUTPUT/leaderboard.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import ray

from genre.errors import TrainingError
from genre.features import SPLITS, Features, Manifest, windows
from genre.report import Search
from genre.settings import Config
from genre.storage import Location
from genre.training import experiment
from genre.training.experiment import Data
from ray_jobs.engine import cli, cluster, judging
from ray_jobs.search import finals, outcomes, planning, samplers, search_plan, terms, tracking, tuning
from ray_jobs.search.budget import Plan
from ray_jobs.search.finals import Finals
from ray_jobs.search.outcomes import Winner
from ray_jobs.search.trials import Shared, apply


@dataclass(frozen=True)
class Outcome:
    """What the search brought."""

    winners: list[Winner]
    search: Search
    interrupted: bool


def run(config: Config, measured: planning.Costs | None = None) -> None:
    """Write OUTPUT/models/ and OUTPUT/leaderboard/; `measured` are costs of the architectures known already."""
    started, output = time.monotonic(), Location.of(config.output)
    tracking.check(config)
    features, data = _load(config)
    cli.console().print(
        f"tune: {len(data.train.track_ids)} tracks of {len(data.classes)} genres, validated on "
        f"{len(data.valid.track_ids)}"
    )
    with cluster.connected(config):
        config = terms.with_resources(config)
        workload = planning.workload_of(data, features)
        # one copy for all processes of a machine; a list, since Tune copies what it is handed directly
        shared = [ray.put(data)]
        decision = planning.decide(config, workload, measured)
        fitted = judging.fit_baseline.remote(*shared, config.train.class_weights)
        outcome = find_winners(config, shared, data.manifest, decision.plan)
        trained = Finals(interrupted=True)
        if not outcome.interrupted:
            spent = max(time.monotonic() - started, outcome.search.makespan_seconds or 0.0)
            seeds = planning.seeds(config, workload, decision, outcome.winners, spent)
            if seeds:
                trained = finals.train(config, shared, outcome.winners, seeds)
            else:
                trained = finals.as_they_are(config, data, outcome.winners)
        if trained.interrupted:
            _publish_so_far(config, features, data, outcome)
            raise KeyboardInterrupt
        board = judging.judge(
            config,
            features,
            "test",
            trained.saved,
            fitted,
            outcome.search,
            changed=config.tune.robustness,
        )
    board.notes.extend(trained.notes)
    if note := planning.exceeded(config, time.monotonic() - started):
        board.notes.append(note)
    labels = {saved.label for saved in trained.saved}
    made = [winner.architecture for winner in outcome.winners if finals.label(config, winner) in labels]
    board.missing.update(outcomes.missing(outcome.search, made))
    judging.publish(board, output / "leaderboard", trained.saved)
    for saved in trained.saved:
        finals.keep_best(saved, output / "models" / saved.label)


def forecast(config: Config) -> None:
    """Say what `run` would train and how long that would take, from a few steps of each architecture."""
    features, data = _load(config)
    with cluster.connected(config):
        config = terms.with_resources(config)
        planning.forecast(config, planning.workload_of(data, features))


def find_winners(config: Config, shared: Shared, manifest: Manifest, plan: Plan) -> Outcome:
    """The best trial of each architecture, after those that are missing have run."""
    concurrent = terms.concurrent_trials(config)
    slots = search_plan.slots(config, manifest, plan)
    missing = search_plan.unsettled(slots, plan.minutes)
    if missing:
        if len(missing) < len(slots):
            cli.console().print(f"search: {len(slots) - len(missing)} of {len(slots)} trials ran before")
        space, tune_config = samplers.tune_config(config, plan, slots, missing, concurrent)
        slots = tuning.run(config, shared, "search", slots, missing, space, tune_config)
    for slot in slots:
        if slot.record is not None and slot.record.failure:
            cli.console().print(f"  {slot.architecture}: a trial failed: {slot.record.failure}")
    winners = [winner for name in plan.epochs if (winner := outcomes.winner(name, slots)) is not None]
    interrupted = any(slot.record is None or slot.record.ended is None for slot in slots)
    if not winners and not interrupted:
        raise TrainingError("no trial finished an epoch; the failures above say why")
    facts = outcomes.for_report(slots, concurrent, _budget(config, plan))
    told = (f"{name} {value}" for name, value in facts.summary() if name not in ("all architectures", "budget"))
    cli.console().print(f"  {', '.join(told)}")
    return Outcome(winners, facts, interrupted)


def _load(config: Config) -> tuple[Features, Data]:
    """The features, after checking that every architecture can train on them."""
    features = Features.open(Location.of(config.output) / "features")
    data = experiment.load_data(features, needed=SPLITS)
    experiment.check_settings(config.audio, config.spectrogram, features)
    for name in terms.searched_architectures(config):
        apply(config, {"architecture": name})
    frames = features.shape.frames_in(config.train.window_seconds)
    per_clip = windows.per_epoch(config.train.windows_per_clip, frames, data.train.shape.frames)
    windows.plan(len(data.train), per_clip, config.train.batch_size, config.tune.workers_per_trial)
    return features, data


def _publish_so_far(config: Config, features: Features, data: Data, outcome: Outcome) -> None:
    """After an interruption: the best so far on the validation split, beside where the leaderboard will be."""
    if not outcome.winners:
        return
    output = Location.of(config.output)
    places = [output / "tune" / "so-far" / winner.architecture for winner in outcome.winners]
    saved = [
        finals.best_so_far(config, data, winner, place) for winner, place in zip(outcome.winners, places, strict=True)
    ]
    board = judging.judge(config, features, "valid", saved, fitted=None, search=outcome.search)
    board.notes.append("The search was interrupted: these are the best trials so far.")
    judging.publish(board, output / "leaderboard" / "so-far", saved)


def _budget(config: Config, plan: Plan) -> str:
    """What each architecture is given, in words."""
    epochs, limit = sorted(set(plan.epochs.values())), config.tune.minutes
    most = f"{epochs[0]} to {epochs[-1]}" if len(epochs) > 1 else f"at most {epochs[0]}"
    total = f", {limit:g} minutes in all" if limit else ""
    return f"{plan.trials} trials of {most} epochs an architecture{total}"


if __name__ == "__main__":
    sys.exit(cli.main("tune"))
