"""The files of a trial, and what a later search makes of them."""

from __future__ import annotations

import pytest
import torch

from genre.config import load
from genre.features import Manifest, Shape
from genre.storage import Location
from ray_jobs.search import samplers, search_plan, terms
from ray_jobs.search.budget import Plan
from ray_jobs.search.trial_folder import Record, TrialFolder

MANIFEST = Manifest(fingerprint="0", contents="1", shape=Shape(16, 40, 80.0, 0.023), classes=["a", "b"])
SETTINGS = {"architecture": "cnn", "train.learning_rate": 0.1 + 0.2, "architectures.cnn.width": 8}


@pytest.fixture
def folder(tmp_path):
    return TrialFolder(Location.of(tmp_path / "trial"))


def slots_of(config):
    return search_plan.slots(config, MANIFEST, plan_of(config))


def plan_of(config):
    return Plan.of(config, terms.searched_architectures(config))


def places(tmp_path, *settings):
    config = load(overrides=[f"output={tmp_path}", "tune.architectures=[cnn, crnn]", *settings])
    return [str(slot.folder.place) for slot in slots_of(config)]


def test_a_record_is_read_as_it_was_written(folder):
    assert folder.record() is None
    record = Record(SETTINGS, [(1, 1 / 3), (2, 0.5)], [(1.5, 2.5)])
    folder.write(record)
    assert folder.record() == record
    folder.end("stopped", minutes=3)
    assert (folder.record().ended, folder.record().minutes, folder.record().epochs) == ("stopped", 3, 2)


def test_a_process_that_died_before_it_wrote_anything_is_recorded(folder):
    folder.end("crashed", failure="killed")
    assert folder.record().failure == "killed"
    assert folder.record().started().failure == ""


def test_a_finished_trial_keeps_no_state(folder):
    folder.save_state({"weights": torch.zeros(2)})
    assert folder.load_state()["weights"].tolist() == [0, 0]
    folder.end("finished")
    assert folder.load_state() is None


def test_another_training_starts_from_the_state_of_a_trial_once(folder, tmp_path):
    other = TrialFolder(Location.of(tmp_path / "other"))
    folder.save_state({"epoch": 1})
    other.start_from(folder)
    assert other.load_state() == {"epoch": 1}
    other.save_state({"epoch": 2})
    other.write(Record(SETTINGS))
    other.start_from(folder)
    assert other.load_state() == {"epoch": 2}


@pytest.mark.parametrize(
    ("ended", "limit", "minutes", "settled"),
    [
        (None, 0, 0, False),
        ("crashed", 0, 0, False),
        ("finished", 0, 0, True),
        ("finished", 0, 5, True),
        ("failed", 0, 0, True),
        ("stopped", 0, 5, True),  # by the others of its architecture
        ("stopped", 3, 3, True),
        ("stopped", 3, 5, False),  # there is more time now
        ("stopped", 3, 0, False),
    ],
)
def test_what_has_ended_stays_unless_there_is_more_time(ended, limit, minutes, settled):
    assert Record({}, ended=ended, minutes=limit).is_settled(minutes) is settled


def test_other_numbers_of_trials_seeds_and_architectures_find_the_same_trials(tmp_path):
    two = places(tmp_path, "tune.trials=2")
    assert len(two) == len(set(two)) == 4
    assert places(tmp_path, "tune.trials=3", "tune.seeds=5", "tune.robustness=false", "tune.minutes=4")[:4] == two
    assert places(tmp_path, "tune.trials=1") == two[:2]
    assert places(tmp_path, "tune.trials=2", "tune.architectures=[crnn]") == two[1::2]
    assert places(tmp_path, "tune.trials=2", "architectures.cnn.width=4")[1::2] == two[1::2]


@pytest.mark.parametrize(
    "setting",
    [
        "seed=1",
        "train.epochs=3",
        "architectures.cnn.width=4",
        "tune.sampler=tpe",
        "tune.grace_epochs=2",
        "tune.space={cnn: {train.mixup: 0.5}}",
    ],
)
def test_what_a_trial_sees_makes_another_trial(tmp_path, setting):
    assert places(tmp_path, setting)[0] != places(tmp_path)[0]


def test_settings_are_drawn_from_the_number_alone(tmp_path):
    config = load(overrides=[f"output={tmp_path}", "tune.architectures=[cnn, crnn]", "tune.trials=3"])
    slots = slots_of(config)
    drawn = [samplers.drawn(config, slot) for slot in slots]
    assert drawn == [samplers.drawn(config, slot) for slot in slots]
    rates = {settings["train.learning_rate"] for settings in drawn}
    assert len(rates) == 6
    run = slots[1].run(drawn[1])
    assert run["settings"] == {"architecture": "crnn", "train.epochs": config.train.epochs} | drawn[1]
    assert search_plan.chosen(run["settings"]) == drawn[1]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_trial_that_died_at_its_start_gets_settings_again(tmp_path, sampler):
    config = load(overrides=[f"output={tmp_path}", "tune.architectures=[cnn]", f"tune.sampler={sampler}"])
    slots_of(config)[0].folder.end("crashed", failure="killed")
    slots = slots_of(config)
    space, settings = samplers.tune_config(config, plan_of(config), slots, search_plan.unsettled(slots), concurrent=1)
    if sampler == "tpe":
        runs = [settings.search_alg.suggest(str(slot.number))["run"] for slot in slots]
    else:
        runs = space["run"]["grid_search"]
    (run,) = [run for run in runs if run["folder"] == str(slots[0].folder.place)]
    assert search_plan.chosen(run["settings"]).keys() == samplers.drawn(config, slots[0]).keys()


def test_tpe_resumes_what_was_interrupted_and_learns_from_what_has_ended(tmp_path):
    pytest.importorskip("optuna", reason="optuna is not installed; it is part of genre[dev]")
    space = "tune.space={cnn: {train.learning_rate: {loguniform: [0.0001, 0.1]}, train.mixup: [0.0, 0.5]}}"
    settings = (f"output={tmp_path}", "tune.architectures=[cnn]", "tune.sampler=tpe", "tune.trials=40", space)
    config = load(overrides=settings)
    for slot in slots_of(config)[:30]:
        if slot.number == 7:
            chosen = samplers.drawn(config, slot)
            slot.folder.write(Record(chosen, [(1, 0.1)]))
            continue
        rate = 10 ** (-4 + slot.number / 10)  # the higher the better
        own = samplers.drawn(config, slot) | {"train.learning_rate": rate}
        slot.folder.write(Record(own, [(1, 0.2), (2, slot.number / 30)], ended="finished"))
    slots = slots_of(config)
    missing = search_plan.unsettled(slots)
    assert [slot.number for slot in missing] == [7, *range(30, 40)]
    searcher = samplers.PerArchitectureTPE(config, slots, missing)
    first = searcher.suggest("a")["run"]
    assert search_plan.chosen(first["settings"]) == chosen
    assert first["folder"] == str(slots[7].folder.place)
    rates = [searcher.suggest(f"trial {number}")["run"]["settings"]["train.learning_rate"] for number in range(10)]
    assert sorted(rates)[5] > 0.02  # the median of chance is 0.003
