"""The settings that samplers choose for trials."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_slots import plan_of, slots_of

from genre.config import load
from ray_jobs.search import samplers, space
from ray_jobs.search.slots import unsettled
from ray_jobs.search.trial_folder import Record
from ray_jobs.search.trial_spec import TrialSpec


def test_drawn_settings_depend_on_the_number_alone(tmp_path: Path) -> None:
    config = load(overrides=[f"output={tmp_path}", "tune.architectures=[cnn, crnn]", "tune.trials=3"])
    slots = slots_of(config)
    drawn = [samplers.draw(config.tune, config.seed, slot) for slot in slots]
    assert drawn == [samplers.draw(config.tune, config.seed, slot) for slot in slots]
    rates = {settings["train.learning_rate"] for settings in drawn}
    assert len(rates) == 6
    spec = slots[1].spec(drawn[1])
    assert spec.settings == {"architecture": "crnn", "train.epochs": config.train.epochs} | drawn[1]
    assert space.sampled(spec.settings) == drawn[1]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_trial_that_died_at_its_start_gets_settings_again(tmp_path: Path, sampler: str) -> None:
    config = load(overrides=[f"output={tmp_path}", "tune.architectures=[cnn]", f"tune.sampler={sampler}"])
    slots_of(config)[0].folder.end("crashed", failure="killed")
    slots = slots_of(config)
    sampling = samplers.sampling(config.tune, config.seed, plan_of(config), slots, unsettled(slots))
    if sampler == "tpe":
        specs = [TrialSpec.of(sampling["search_alg"].suggest(str(slot.number))) for slot in slots]
    else:
        specs = [TrialSpec.of({"run": run}) for run in sampling["param_space"]["run"]["grid_search"]]
    (spec,) = [spec for spec in specs if spec.folder == str(slots[0].folder.location)]
    assert space.sampled(spec.settings).keys() == samplers.draw(config.tune, config.seed, slots[0]).keys()


def test_tpe_resumes_interrupted_trials_and_learns_from_ended_ones(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed; it is part of genre[dev]")
    varied = "tune.space={cnn: {train.learning_rate: {loguniform: [0.0001, 0.1]}, train.mixup: [0.0, 0.5]}}"
    settings = (f"output={tmp_path}", "tune.architectures=[cnn]", "tune.sampler=tpe", "tune.trials=40", varied)
    config = load(overrides=settings)
    for slot in slots_of(config)[:30]:
        if slot.number == 7:
            interrupted = samplers.draw(config.tune, config.seed, slot)
            slot.folder.write(Record(interrupted, [(1, 0.1)]))
            continue
        rate = 10 ** (-4 + slot.number / 10)  # the higher the better
        own = samplers.draw(config.tune, config.seed, slot) | {"train.learning_rate": rate}
        slot.folder.write(Record(own, [(1, 0.2), (2, slot.number / 30)], ended="finished"))
    slots = slots_of(config)
    missing = unsettled(slots)
    assert [slot.number for slot in missing] == [7, *range(30, 40)]
    searcher = samplers.PerArchitectureTPE(config.tune, config.seed, slots, missing)
    first = TrialSpec.of(searcher.suggest("a") or {})
    assert space.sampled(first.settings) == interrupted
    assert first.folder == str(slots[7].folder.location)
    specs = [TrialSpec.of(searcher.suggest(f"trial {number}") or {}) for number in range(10)]
    rates = [spec.settings["train.learning_rate"] for spec in specs]
    assert sorted(rates)[5] > 0.02  # the median of random draws is 0.003
