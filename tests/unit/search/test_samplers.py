"""The settings that samplers choose for trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_slots import plan_of, slots_of

from genre.config import load
from genre.settings import Config
from ray_jobs.search import samplers, space
from ray_jobs.search.slots import Slot, unsettled
from ray_jobs.search.trial_folder import Record, TrialSpec


def chosen(config: Config, slot: Slot) -> dict[str, Any]:
    """Return the settings of the slot's trial."""
    return samplers.choose(space.experiments(config)[slot.architecture], config.tune, config.seed, slot)


def test_drawn_settings_depend_on_the_number_alone(tmp_path: Path) -> None:
    config = load(overrides=[f"output={tmp_path}", "tune.architectures=[cnn, crnn]", "tune.trials=3"])
    slots = slots_of(config)
    drawn = [chosen(config, slot) for slot in slots]
    assert drawn == [chosen(config, slot) for slot in slots]
    rates = {settings["train.learning_rate"] for settings in drawn}
    assert len(rates) == 5  # the first trial of both has the configured rate
    spec = slots[1].spec(drawn[1])
    assert spec.settings == {"architecture": "crnn", "train.epochs": config.train.epochs} | drawn[1]
    assert space.sampled(spec.settings) == drawn[1]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_the_first_trial_has_the_configured_settings_as_far_as_the_space_allows(tmp_path: Path, sampler: str) -> None:
    space_of_cnn = "{train.learning_rate: {loguniform: [0.001, 0.002]}, train.mixup: [0.0, 0.5], params.width: [8, 24]}"
    given = ["train.learning_rate=0.03", "train.mixup=0.5", "architectures.cnn.width=24"]
    searched = ["tune.architectures=[cnn]", f"tune.sampler={sampler}", f"tune.space={{cnn: {space_of_cnn}}}"]
    config = load(overrides=[f"output={tmp_path}", *given, *searched])
    slots = slots_of(config)
    own = {"train.learning_rate": 0.002, "train.mixup": 0.5, "architectures.cnn.width": 24}
    assert own.items() <= chosen(config, slots[0]).items()
    sampling = samplers.sampling(space.experiments(config), config.tune, config.seed, plan_of(config), slots, slots)
    if sampler == "tpe":
        first = TrialSpec.of(sampling["search_alg"].suggest("first"))
    else:
        first = TrialSpec.of({"run": sampling["param_space"]["run"]["grid_search"][0]})
    assert own.items() <= first.settings.items()


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_trial_that_died_at_its_start_gets_settings_again(tmp_path: Path, sampler: str) -> None:
    config = load(overrides=[f"output={tmp_path}", "tune.architectures=[cnn]", f"tune.sampler={sampler}"])
    slots_of(config)[0].folder.end("crashed", failure="killed")
    slots = slots_of(config)
    sampling = samplers.sampling(
        space.experiments(config), config.tune, config.seed, plan_of(config), slots, unsettled(slots)
    )
    if sampler == "tpe":
        specs = [TrialSpec.of(sampling["search_alg"].suggest(str(slot.number))) for slot in slots]
    else:
        specs = [TrialSpec.of({"run": run}) for run in sampling["param_space"]["run"]["grid_search"]]
    (spec,) = [spec for spec in specs if spec.folder == str(slots[0].folder.location)]
    assert space.sampled(spec.settings).keys() == chosen(config, slots[0]).keys()


def test_tpe_resumes_interrupted_trials_and_learns_from_ended_ones(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed; it is part of genre[dev]")
    varied = "tune.space={cnn: {train.learning_rate: {loguniform: [0.0001, 0.1]}, train.mixup: [0.0, 0.5]}}"
    settings = (f"output={tmp_path}", "tune.architectures=[cnn]", "tune.sampler=tpe", "tune.trials=40", varied)
    config = load(overrides=settings)
    for slot in slots_of(config)[:30]:
        if slot.number == 7:
            interrupted = chosen(config, slot)
            slot.folder.write(Record(interrupted, [(1, 0.1)]))
            continue
        rate = 10 ** (-4 + slot.number / 10)  # the higher the better
        own = chosen(config, slot) | {"train.learning_rate": rate}
        slot.folder.write(Record(own, [(1, 0.2), (2, slot.number / 30)], ended="finished"))
    slots = slots_of(config)
    missing = unsettled(slots)
    assert [slot.number for slot in missing] == [7, *range(30, 40)]
    searcher = samplers.PerArchitectureTPE(space.experiments(config), config.tune, config.seed, slots, missing)
    first = TrialSpec.of(searcher.suggest("a") or {})
    assert space.sampled(first.settings) == interrupted
    assert first.folder == str(slots[7].folder.location)
    specs = [TrialSpec.of(searcher.suggest(f"trial {number}") or {}) for number in range(10)]
    rates = [spec.settings["train.learning_rate"] for spec in specs]
    assert sorted(rates)[5] > 0.02  # the median of random draws is 0.003
