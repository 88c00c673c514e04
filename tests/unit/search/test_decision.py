"""What a search trains when it is run again with other settings, and when its time is short."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_budget import WORKLOAD

from genre.config import load
from genre.storage import Location
from ray_jobs.engine.capacity import Capacity
from ray_jobs.search.decision import Decider, Decision, file_of
from ray_jobs.search.plan import Plan
from ray_jobs.search.resources import TrialResources
from ray_jobs.search.results import Winner
from ray_jobs.search.slots import Slot
from ray_jobs.search.trial_folder import Record

PLAN = Plan({"cnn": 10}, 8, 3, 2.0, defaults=True)


class OneAtATime(TrialResources):
    """The resources of a trial on a machine with room for one, without asking Ray."""

    def concurrent_trials(self) -> int:
        return 1


def decider(folder: Path, *settings: str) -> Decider:
    """Return the decider of a search that measures nothing, since its decision is stored."""
    config = load(overrides=[f"output={folder}", *settings])
    file = file_of(config, WORKLOAD, "")
    return Decider(file, {}, config.tune, WORKLOAD, OneAtATime(1, 0, 1, "cpu", Capacity(cpus=1, gpus=0)))


def trial(number: int) -> Winner:
    """Return a finished trial of 100 seconds."""
    record = Record({}, [(10, 0.5)], [(0.0, 100.0)], ended="finished")
    return Winner(Slot("cnn", number, 10, Location.of("/nowhere"), record=record), {}, 0.5, 8)


def test_the_configured_settings_can_be_asked_for_after_the_search(tmp_path: Path) -> None:
    first = decider(tmp_path)
    earlier = first._keep(Decision(Plan({"cnn": 10}, 8, 3), 0.0, (8, 3)))
    stored = first.file.read_json()
    del stored["asked_defaults"], stored["plan"]["defaults"]  # as an earlier version wrote it
    first.file.write_json(stored)
    assert first.decide(None) == earlier
    later = decider(tmp_path, "tune.defaults=true")
    assert later.file == first.file
    asked = later.decide(None)
    assert asked.plan == Plan({"cnn": 10}, 8, 3, defaults=True)
    assert later.decide(None) == asked
    assert decider(tmp_path).decide(None).plan == earlier.plan


@pytest.mark.parametrize(
    ("seconds", "seeds", "defaults"),
    # the first seeds are trained and always fit; each further one takes 100 s for each of the two settings
    [(200, 3, True), (201, 2, True), (401, 1, True), (700, 1, True)],
)
def test_seeds_are_dropped_before_the_configured_settings(
    tmp_path: Path, seconds: float, seeds: int, defaults: bool
) -> None:
    limited = decider(tmp_path, "tune.minutes=10", "tune.defaults=true")
    decided = Decision(PLAN, 0.0, (8, 3), asked_defaults=True)
    plan = limited.finals(decided, [trial(1)], [trial(0)], seconds)
    assert (plan.seeds, plan.defaults) == (seeds, defaults)
    assert limited.decide(None).plan == plan  # also where the search is resumed


def test_the_winner_has_a_seed_where_the_configured_settings_leave_no_time_for_it(tmp_path: Path) -> None:
    limited = decider(tmp_path, "tune.minutes=10", "tune.defaults=true", "tune.sample=0.5")
    plan = limited.finals(Decision(PLAN, 0.0, (8, 3), asked_defaults=True), [trial(1)], [trial(0)], 300)
    assert (plan.seeds, plan.defaults) == (1, False)  # 200 s a training on all tracks, and 300 s are left


def test_to_ask_for_the_configured_settings_alone_does_not_lift_the_limit_of_time(tmp_path: Path) -> None:
    decider(tmp_path, "tune.minutes=10")._keep(Decision(replace(PLAN, defaults=False), 0.0, (8, 3)))
    changed = decider(tmp_path, "tune.minutes=10", "tune.defaults=true").decide(None)
    assert changed.plan.defaults
    assert not changed.seeds_decided


def test_configured_settings_that_had_no_time_are_trained_when_more_seeds_are_asked_for(tmp_path: Path) -> None:
    plan = replace(PLAN, defaults=False)
    without_time = Decision(plan, 0.0, (8, 3), seeds_decided=True, asked_defaults=True)
    decider(tmp_path, "tune.minutes=10", "tune.defaults=true")._keep(without_time)
    changed = decider(tmp_path, "tune.minutes=10", "tune.defaults=true", "tune.seeds=5").decide(None)
    assert changed.seeds_decided
    assert (changed.plan.seeds, changed.plan.defaults) == (5, True)
