"""A model's folder: written, read, refused when altered; and a trainer's state."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from saving import save_model

from genre.config import differences
from genre.errors import ArtifactError, ConfigError
from genre.features import Features, Manifest
from genre.model import checkpoint
from genre.model.card import ModelCard
from genre.storage import Location


@pytest.fixture
def folder(tmp_path: Path) -> Location:
    save_model(tmp_path / "model")
    return Location.of(tmp_path / "model")


def edit(folder: Location, **changes: Any) -> None:
    content = (folder / "model.json").read_json()
    (folder / "model.json").write_json({k: v for k, v in (content | changes).items() if v is not ...})


def test_a_saved_model_is_loaded_unchanged(folder: Location) -> None:
    card, classifier = checkpoint.load(folder)
    assert card.architecture == "cnn"
    assert card.classes == ["blues", "jazz", "rock"]
    assert card.frames() == round(1 / card.shape.frame_seconds)
    assert torch.all(classifier.mean == -30)
    assert torch.all(classifier.std == 10)
    assert not classifier.training
    copy = folder / "copy"
    checkpoint.save(copy, card, classifier)
    assert (copy / "model.json").read_bytes() == (folder / "model.json").read_bytes()


def test_nothing_is_pickled(folder: Location) -> None:
    assert json.loads((folder / "model.json").read_bytes())
    assert {file.name for file in folder.files()} >= {"model.json", "weights.safetensors"}
    assert not [file for file in folder.files() if b"pickle" in file.read_bytes()]


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_a_missing_file_is_named(folder: Location, name: str) -> None:
    (folder / name).delete()
    with pytest.raises(ArtifactError, match=rf"{name}.* is missing"):
        checkpoint.load(folder)


def test_altered_weights_are_refused(folder: Location) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match=r"not the weights that model.json lists; copy"):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 99}, "holds model version 99"),
        ({"stage": "features"}, "holds features version 1"),
        ({"classes": ...}, "a field is missing or altered"),
        ({"facts": ...}, "a field is missing or altered"),
        ({"shape": {"bins": 32}}, "a field is missing or altered"),
        ({"params": {"width": 8, "depth": 3}}, "does not fit cnn"),
    ],
)
def test_an_altered_card_is_refused_in_one_line(folder: Location, changes: dict[str, Any], message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(ArtifactError, match=message) as caught:
        checkpoint.load(folder)
    assert "\n" not in str(caught.value)


def test_a_card_with_unknown_settings_is_refused(folder: Location) -> None:
    edit(folder, params={"wide": 1})
    with pytest.raises(ConfigError, match="wide"):
        checkpoint.load(folder)


def test_a_card_with_an_unknown_architecture_is_refused(folder: Location) -> None:
    edit(folder, architecture="cnnn")
    with pytest.raises(ArtifactError, match="its architecture cnnn is not installed; install the package that has it"):
        checkpoint.load(folder)


def test_other_features_are_refused_and_the_difference_is_named(folder: Location) -> None:
    card, _ = checkpoint.load(folder)
    manifest = Manifest(settings=card.features, fingerprint=card.fingerprint, classes=card.classes, shape=card.shape)
    checkpoint.check_features(card, Features(folder, manifest))
    audio = card.features["audio"] | {"sample_rate": 8000}
    other = replace(manifest, settings=card.features | {"audio": audio}, fingerprint="0")
    with pytest.raises(ArtifactError, match=r"audio\.sample_rate is 8000, expected 22050"):
        checkpoint.check_features(card, Features(folder, other))
    with pytest.raises(ArtifactError, match="features have genres folk, the model blues, jazz, rock"):
        checkpoint.check_features(card, Features(folder, replace(manifest, classes=["folk"])))


def test_differences_name_nested_keys() -> None:
    lines = differences({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 5}, "e": 4})
    assert lines == ["a.c is 5, expected 2", "d is None, expected 3", "e is 4, expected None"]


def test_the_label_is_the_architecture_and_its_pretrained_weights(folder: Location) -> None:
    card, _ = checkpoint.load(folder)
    assert card.name == "cnn"
    pretrained = asdict(card) | {"architecture": "vgg16", "params": {"pretrained": "imagenet"}}
    assert ModelCard(**pretrained).name == "vgg16-imagenet"
