"""The models that a search leaves in OUTPUT/models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from genre.config import load
from genre.errors import TrainingError
from genre.features import Features, Manifest, Shape
from genre.features.cache import ClipCache
from genre.model.card import ModelCard, weights_of, write_card
from genre.settings import CacheSettings
from genre.storage import Location
from ray_jobs.engine.capacity import Capacity
from ray_jobs.search import finals
from ray_jobs.search.resources import TrialResources
from ray_jobs.search.results import Winner
from ray_jobs.search.runner import Runner
from ray_jobs.search.slots import Slot
from ray_jobs.search.trial_folder import FoldResult, Record

# no trial trains here
NO_TRACKS = pa.table({name: pa.array([], pa.string()) for name in ("track_id", "split", "clips")})
NO_CLIPS = ClipCache(
    Features(Location.of("features"), Manifest(fingerprint="", shape=Shape(1, 1, 80.0, 1.0), classes=[]), NO_TRACKS),
    CacheSettings(),
    (),
    "",
)
MODEL = ModelCard("cnn", {}, ["rock"], {}, "", Shape(1, 1, 80.0, 1.0), 1.0, 1)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Return OUTPUT/models with two seeds and the best model of each architecture from an earlier search."""
    models = tmp_path / "models"
    for name in ("cnn", "crnn"):
        for folder in (models / name, models / name / "seed-0", models / name / "seed-1"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "model.json").write_text("earlier")
    return models


def runner(output: Path, *settings: str) -> Runner:
    config = load(overrides=[f"output={output}", *settings])
    return Runner(config, NO_CLIPS, TrialResources(1, 0, 1, "cpu", Capacity(cpus=1, gpus=0)))


def train(output: Path, **failures: str) -> finals.Finals:
    """Return the finals of winners whose trials ran before; an architecture in `failures` failed."""
    winners = []
    for name in ("cnn", "crnn"):
        slot = Slot(name, 0, 2, Location.of(output / "tune" / name))
        settings = slot.spec({}).settings
        if name in failures:
            for seed_slot in (slot, slot.final(0)):
                seed_slot.folder.write(Record(settings, [(1, 0.5)], ended="failed", failure=failures[name]))
        else:
            slot.folder.write(Record(settings, [(2, 0.5)], ended="finished"))
            write_card(slot.folder.model, MODEL, "new")
        winners.append(Winner(slot.read(), settings, 0.5, 1))
    return finals.train(runner(output), winners, [], 1)


def test_models_of_earlier_seeds_are_deleted(tmp_path: Path, models: Path) -> None:
    result = train(tmp_path)
    assert [runs.name for runs in result.saved] == ["cnn", "crnn"]
    assert weights_of(Location.of(models / "cnn/seed-0")) == "new"
    assert not (models / "cnn/seed-1").exists()


def test_no_file_of_an_earlier_model_stays_beside_a_new_one(tmp_path: Path, models: Path) -> None:
    (models / "cnn/seed-0/validation.parquet").write_text("of the earlier one")
    train(tmp_path)
    assert [file.name for file in (models / "cnn/seed-0").iterdir()] == ["model.json"]


def test_an_earlier_model_is_deleted_where_all_seeds_failed(tmp_path: Path, models: Path) -> None:
    result = train(tmp_path, crnn="the loss is nan")
    assert [runs.name for runs in result.saved] == ["cnn"]
    assert result.notes == ["crnn: the final training of seed-0 failed and is left out: the loss is nan"]
    assert not (models / "crnn").exists()


def test_earlier_models_stay_where_all_winners_failed(tmp_path: Path, models: Path) -> None:
    with pytest.raises(TrainingError, match="the loss is nan"):
        train(tmp_path, cnn="the loss is nan", crnn="the loss is inf")
    assert (models / "cnn/model.json").read_text() == "earlier"
    assert (models / "crnn/seed-1").exists()


def test_models_with_the_configured_settings_stay_in_the_trials(tmp_path: Path, models: Path) -> None:
    parent = Location.of(tmp_path / "tune" / "resnet")
    configured, best = (Slot("resnet", number, 2, parent) for number in (0, 1))
    for slot in (configured, best, configured.final(1), best.final(1)):
        failure = "the loss is nan" if slot.name == "000-seed-1" else ""
        slot.folder.write(Record({}, [(2, 0.5)], ended="failed" if failure else "finished", failure=failure))
        write_card(slot.folder.model, MODEL, slot.name)
    settings: dict[str, Any] = {"architectures.resnet.pretrained": "imagenet"}  # which varied, and names the row
    default_trial = Winner(configured.read(), configured.spec({}).settings, 0.5, 2)
    winner = Winner(best.read(), best.spec(settings).settings, 0.5, 2)
    result = finals.train(runner(tmp_path), [winner], [default_trial], 2)
    (saved,), (default,) = result.saved, result.defaults
    assert [model.weights for model in saved.models] == ["001", "001-seed-1"]
    assert (default.name, default.default_of) == ("resnet-imagenet default", "resnet-imagenet")
    assert [model.weights for model in default.models] == ["000"]
    assert result.notes == ["resnet-imagenet default: the training of seed-1 failed and is left out: the loss is nan"]
    assert [folder.name for folder in sorted(models.iterdir())] == ["cnn", "crnn", "resnet-imagenet"]


def test_without_time_the_model_after_folds_is_that_of_the_first(tmp_path: Path) -> None:
    slot = Slot("cnn", 0, 9, Location.of(tmp_path / "tune" / "cnn"), folds=3)
    slot.folder.write(Record({}, [(9, 0.5)], ended="stopped", minutes=1.0, folds=[FoldResult(0.5, 4, 9)]))
    write_card(slot.folder.model, MODEL, "first fold")
    winner = Winner(slot.read(), slot.spec({}).settings, 0.5, 1)
    result = finals.take_best_epochs(runner(tmp_path, "tune.folds=3"), [winner])
    assert weights_of(Location.of(tmp_path / "models/cnn/seed-0")) == "first fold"
    assert [note for note in result.notes if "its model is that of the first of 3 folds" in note] == result.notes


def test_a_final_training_that_repeated_fewer_folds_is_trained_again(tmp_path: Path) -> None:
    slot = Slot("cnn", 0, 9, Location.of(tmp_path / "tune" / "cnn"), folds=2)
    folds = [FoldResult(0.5, 4, 9), FoldResult(0.7, 6, 9)]
    slot.folder.write(Record({}, [(9, 0.5)], ended="finished", folds=folds))
    final = slot.read().final(0)
    for earlier, is_kept in ((folds, True), (folds[:1], False)):
        final.folder.write(Record({}, [(5, 0.6)], ended="finished", folds=earlier))
        chosen = finals._slot(Winner(slot.read(), {}, 0.6, 1), 0, is_trial=False)
        assert (chosen.last, chosen.is_finished) == (5, is_kept)
