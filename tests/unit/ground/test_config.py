"""The grammar of settings: what is accepted, and the error of each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY

from genre import config
from genre.errors import ConfigError
from genre.settings import Config


def test_later_settings_win(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("train: {epochs: 3, batch_size: 8}\nseed: 4\n")
    loaded = config.load(str(file), ["train.epochs=5"])
    assert (loaded.train.epochs, loaded.train.batch_size, loaded.seed) == (5, 8, 4)


def test_resolved_configuration_loads_to_itself(tmp_path: Path) -> None:
    first = config.load(
        None, ["architecture=crnn", "architectures.cnn.width=8", "tune.architectures=[cnn, crnn]", "seed=3"]
    )
    file = tmp_path / "c.yaml"
    file.write_text(config.to_yaml(first))
    assert config.load(str(file)) == first


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("train.epoch=3", "did you mean 'train.epochs'"),
        ("epochs=3", "did you mean 'train.epochs'"),
        ("train.epochs=0", "found 0; must be at least 1"),
        ("train.label_smoothing=1", "must be less than 1"),
        ("train.epochs=many", "train.epochs"),
        ("train=3", "found 3; it is a section, set train.KEY for one of its keys"),
        ("leaderboard.compare=outputs/a", 'found "outputs/a"; write a list: [outputs/a]'),
        ("device=gpu", "'auto', 'cpu' or 'cuda'"),
        ("architecture=cnnn", "did you mean 'cnn'"),
        ("corpus.kind=folders", "did you mean 'folder'"),
        ("tune.architectures=[vgg]", "did you mean 'vgg1"),
        ("architectures.resnett.width=3", "did you mean 'resnet'"),
        ("seed.x=1", "seed"),
        ("spectrogram.f_max=20000", "half of audio.sample_rate"),
        ("justaword", "write key=value"),
        ("/", "for example corpus.root=/ or output=/"),
        ("corpus.valid_fraction=.nan", "corpus.valid_fraction"),
    ],
)
def test_each_mistake_is_one_line_that_helps(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.load(None, [text])
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["[1, 2]", "a: [", "just words"])
def test_files_that_are_no_configuration(tmp_path: Path, content: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        config.load(str(file))


def test_missing_file() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load("nowhere.yaml")


def test_an_architecture_is_no_saved_model() -> None:
    assert config.load(None, ["architecture=vgg16"]).architecture == "vgg16"
    assert config.load(None, ["model=./vgg16"]).model == "./vgg16"
    expected = r"write model=outputs/mine/models/vgg16, or architecture=vgg16 to train one"
    with pytest.raises(ConfigError, match=expected):
        config.load(None, ["model=vgg16", "output=outputs/mine"])


@pytest.mark.parametrize(
    ("former", "present"),
    [
        ("model.name", "architecture"),
        ("model.path", "model"),
        ("models", "architectures"),
        ("models.cnn.width", "architectures.cnn.width"),
        ("tag.precision", "min_precision"),
        ("train.device", "device"),
        ("train.precision", "train.dtype"),
        ("prepare.retry_rejects", "decoding.retry_rejects"),
        ("prepare.max_track_seconds", "decoding.max_track_seconds"),
    ],
)
def test_a_former_name_is_refused_with_the_present_one(tmp_path: Path, former: str, present: str) -> None:
    content: Any = {}
    for key in reversed(former.split(".")):
        content = {key: content}
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(content))
    calls: list[tuple[str | None, list[str]]] = [(str(file), []), (None, [f"{former}={{}}"])]
    for arguments in calls:
        with pytest.raises(ConfigError) as error:
            config.load(*arguments)
        assert str(error.value) == f"{former} was renamed to {present}"


def test_fingerprint_follows_values_alone() -> None:
    one, same, other = (config.load(None, [s]).audio for s in ("seed=1", "seed=2", "audio.clip_seconds=20"))
    assert config.fingerprint(one) == config.fingerprint(same) != config.fingerprint(other)


def test_every_key_is_documented() -> None:
    described = list(config.describe(Config()))
    assert len(described) > 50
    assert all(meaning for _, _, meaning in described)


def test_numbers_that_look_like_names_stay_strings() -> None:
    assert config.load(None, ["corpus.root=2024"]).corpus.root == "2024"


def test_defaults_are_valid_yaml() -> None:
    assert yaml.safe_load(config.to_yaml(Config())) == Config().model_dump(mode="json")


def test_changed_settings_alone_give_the_same_settings_again(tmp_path: Path) -> None:
    settings = config.load(str(REPOSITORY / "configs/laptop.yaml"), ["corpus.kind=folder", "seed=3", "cluster.cpus=0"])
    text = config.to_yaml(settings, only_changed=True)
    assert "cluster" not in text
    assert len(text.splitlines()) < len(config.to_yaml(settings).splitlines()) / 2
    (tmp_path / "run.yaml").write_text(text)
    assert config.load(str(tmp_path / "run.yaml")) == settings
    assert config.to_yaml(settings, ["seed", "tune"], only_changed=True).startswith("seed: 3\ntune:\n  minutes: 60")
    assert config.to_yaml(config.load(), only_changed=True) == ""
