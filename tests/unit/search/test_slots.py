"""The slots of a search, which a later search with other numbers of trials reuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from genre.config import load
from genre.features import Manifest, Shape
from genre.settings import Config
from genre.storage import Location
from genre.training.costs import Workload
from ray_jobs.search import decision, slots, space
from ray_jobs.search.plan import Plan
from ray_jobs.search.slots import Slot

MANIFEST = Manifest(fingerprint="0", contents="1", shape=Shape(16, 40, 80.0, 0.023), classes=["a", "b"])


def plan_of(config: Config) -> Plan:
    return Plan.of(config.train, config.tune, space.architecture_names(config.tune))


def slots_of(config: Config) -> list[Slot]:
    folder = Location.of(config.output) / "tune"
    return slots.planned(folder, space.experiments(config), config.tune, MANIFEST, plan_of(config))


def folders(tmp_path: Path, *settings: str) -> list[str]:
    config = load(overrides=[f"output={tmp_path}", "tune.architectures=[cnn, crnn]", *settings])
    return [str(slot.folder.location) for slot in slots_of(config)]


def test_other_numbers_of_trials_seeds_and_architectures_reuse_the_same_trials(tmp_path: Path) -> None:
    two = folders(tmp_path, "tune.trials=2")
    assert len(two) == len(set(two)) == 4
    assert folders(tmp_path, "tune.trials=3", "tune.seeds=5", "tune.robustness=false", "tune.minutes=4")[:4] == two
    assert folders(tmp_path, "tune.trials=1") == two[:2]
    assert folders(tmp_path, "tune.trials=2", "tune.architectures=[crnn]") == two[1::2]
    assert folders(tmp_path, "tune.trials=2", "architectures.cnn.width=4")[1::2] == two[1::2]


def test_the_stored_plan_of_a_search_is_not_that_of_another_number_of_folds(tmp_path: Path) -> None:
    workload = Workload(8, 4, 4, MANIFEST.shape, 2, test_tracks=4, train_tracks=8)
    files = [
        decision.file_of(load(overrides=[f"output={tmp_path}", setting]), workload, "1").name
        for setting in ("tune.folds=0", "tune.folds=3", "tune.folds=5", "tune.trials=3")
    ]
    assert len(set(files)) == 3
    assert files[0] == files[3]


@pytest.mark.parametrize(
    "setting",
    [
        "seed=1",
        "train.epochs=3",
        "architectures.cnn.width=4",
        "tune.sampler=tpe",
        "tune.grace_epochs=2",
        "tune.sample=0.5",
        "tune.folds=5",
        "tune.space={cnn: {train.mixup: 0.5}}",
    ],
)
def test_settings_that_change_a_trial_make_another_trial(tmp_path: Path, setting: str) -> None:
    assert folders(tmp_path, setting)[0] != folders(tmp_path)[0]
