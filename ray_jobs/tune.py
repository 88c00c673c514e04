"""Search all architectures concurrently, train the best of each with more seeds, and write the leaderboard.

The search uses only the training and validation splits. The best configuration of each architecture is trained with
several seeds, of which the search did the first, and scored once on the test split. Run again after an interruption,
it resumes after the last finished epoch of each trial; more trials, seeds or architectures reuse those that ran. Write
OUTPUT/models and OUTPUT/leaderboard.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from genre import experiment, features, windows
from genre.config import Config
from genre.errors import TrainingError
from genre.experiment import Data
from genre.report import Search
from genre.report.slices import search_facts
from genre.storage import Location
from ray_jobs import cli, cluster, finals, judging, outcomes, samplers, search, search_plan, tracking, tuning
from ray_jobs.budget import Plan
from ray_jobs.finals import Finals
from ray_jobs.outcomes import Winner
from ray_jobs.trials import Shared, apply

import ray  # isort: skip


@dataclass(frozen=True)
class Outcome:
    """What the search brought."""

    winners: list[Winner]
    search: Search
    interrupted: bool


def run(config: Config) -> None:
    """Write OUTPUT/models/ and OUTPUT/leaderboard/."""
    output = Location.of(config.output)
    tracking.check(config)
    data = experiment.load_data(output / "features", needed=features.SPLITS)
    experiment.check_settings(config, data.manifest, output / "features")
    names = search.architectures(config)
    for name in names:
        apply(config, {"model.name": name})
    frames = windows.frames_in(config.train.window_seconds, data.train.shape)
    per_clip = windows.per_epoch(config.train.windows_per_clip, frames, data.train.shape.frames)
    windows.plan(len(data.train), per_clip, config.train.batch_size, config.tune.workers_per_trial)
    cli.console().print(
        f"tune: {len(names)} architectures on {len(data.train.track_ids)} tracks, "
        f"validated on {len(data.valid.track_ids)}, {len(data.classes)} genres"
    )
    with cluster.connected(config):
        config = search.with_resources(config)
        # one copy for all processes of a machine; a list, since Tune copies what it is handed directly
        shared = [ray.put(data)]
        fitted = judging.fit_baseline.remote(*shared, config.train.class_weights)
        plan = search_plan.full(config)
        outcome = find_winners(config, shared, data.manifest, plan)
        trained = Finals(interrupted=True)
        if not outcome.interrupted:
            trained = finals.train(config, shared, outcome.winners, plan.seeds)
        if trained.interrupted:
            _publish_so_far(config, data, outcome)
            raise KeyboardInterrupt
        board = judging.judge(
            config,
            output / "features",
            "test",
            trained.saved,
            fitted,
            outcome.search,
            changed=config.tune.robustness,
        )
    board.notes.extend(trained.notes)
    labels = {saved.label for saved in trained.saved}
    made = [winner.architecture for winner in outcome.winners if finals.label(config, winner) in labels]
    board.missing.update(outcomes.missing(outcome.search, made))
    judging.publish(board, output / "leaderboard", trained.saved)
    for saved in trained.saved:
        finals.keep_best(saved, output / "models" / saved.label)


def find_winners(config: Config, shared: Shared, manifest: dict[str, Any], plan: Plan) -> Outcome:
    """The best trial of each architecture, after those that are missing have run."""
    concurrent = search.concurrent_trials(config)
    slots = search_plan.slots(config, manifest, plan)
    missing = search_plan.unsettled(slots, config.tune.minutes)
    if missing:
        if len(missing) < len(slots):
            cli.console().print(f"search: {len(slots) - len(missing)} of {len(slots)} trials ran before")
        space, tune_config = samplers.tune_config(config, slots, missing, concurrent)
        slots = tuning.run(config, shared, "search", slots, space, tune_config)
    for slot in slots:
        if slot.record is not None and slot.record.failure:
            cli.console().print(f"  {slot.architecture}: a trial failed: {slot.record.failure}")
    winners = [winner for name in plan.epochs if (winner := outcomes.winner(name, slots)) is not None]
    interrupted = any(slot.record is None or slot.record.ended is None for slot in slots)
    if not winners and not interrupted:
        raise TrainingError("no trial finished an epoch; the failures above say why")
    facts = outcomes.for_report(slots, concurrent, _budget(config, plan))
    told = (f"{name} {value}" for name, value in search_facts(facts) if name not in ("all architectures", "budget"))
    cli.console().print(f"  {', '.join(told)}")
    return Outcome(winners, facts, interrupted)


def _publish_so_far(config: Config, data: Data, outcome: Outcome) -> None:
    """After an interruption: the best so far on the validation split, beside where the leaderboard will be."""
    if not outcome.winners:
        return
    output = Location.of(config.output)
    saved = [finals.best_so_far(config, data, winner) for winner in outcome.winners]
    board = judging.judge(config, output / "features", "valid", saved, fitted=None, search=outcome.search)
    board.notes.append("The search was interrupted: these are the best trials so far.")
    judging.publish(board, output / "leaderboard" / "so-far", saved)


def _budget(config: Config, plan: Plan) -> str:
    """What each architecture is given, in words."""
    limit = f", and {config.tune.minutes:g} minutes of training in all" if config.tune.minutes else ""
    return f"{plan.trials} trials of at most {max(plan.epochs.values())} epochs an architecture{limit}"


if __name__ == "__main__":
    sys.exit(cli.main("tune"))
