"""Settings as people type them: a text stays as it is, anything else is YAML, and a typo names the nearest key."""

from __future__ import annotations

import json
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from genre import config, grammar, registry
from genre.errors import ConfigError
from genre.settings import Config

# what YAML, a shell or Python would take for something else
NASTY = [
    *" #:,[]{}&*!|>'\"%@`~=-?\\/.$(",
    "no",
    "null",
    "0123",
    "1e3",
    "0x1f",
    "1_000",
    "2024-01-01",
    "- a",
    "\u00a0",
    "é",
    "音",
]


def text_fields(schema: type[BaseModel], prefix: str) -> list[str]:
    found = []
    for name, field in schema.model_fields.items():
        below = grammar.section(schema, name)
        if below:
            found += text_fields(below, f"{prefix}{name}.")
        elif field.annotation is str:
            found.append(f"{prefix}{name}")
    return found


TEXTS = sorted(set(text_fields(Config, "")) - {"architecture", "corpus.kind"})
OF_CORPORA = [
    (kind, key)
    for kind in registry.names("genre.corpora")
    for key in text_fields(registry.load("genre.corpora", kind).Params, "corpus.params.")
]


def some_texts(seed: int, count: int = 60) -> list[str]:
    """Random texts of any printable characters, the nasty ones often among them."""
    rng = np.random.default_rng(seed)

    def piece() -> str:
        if rng.random() < 0.6:
            return str(rng.choice(NASTY))
        character = chr(rng.integers(32, sys.maxunicode + 1))
        return character if unicodedata.category(character) not in ("Cc", "Cs") else ""

    return NASTY + ["".join(piece() for _ in range(rng.integers(0, 12))) for _ in range(count)]


def at(loaded: Config, key: str) -> Any:
    found = loaded
    for name in key.split("."):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    return found


@pytest.mark.parametrize("key", TEXTS)
def test_any_text_comes_back_equal(key: str) -> None:
    for text in some_texts(len(key)):
        assert at(config.load(None, [f"{key}={text}"]), key) == text


@pytest.mark.parametrize(("kind", "key"), OF_CORPORA)
def test_any_text_of_a_corpus_comes_back_equal(kind: str, key: str) -> None:
    """Whichever of the two settings is given first."""
    for text in some_texts(len(key), count=10):
        loaded = config.load(None, [f"{key}={text}", f"corpus.kind={kind}"])
        assert at(loaded, key) == text


def test_any_text_of_an_architecture_comes_back_equal() -> None:
    for text in some_texts(0, count=10):
        loaded = config.load(None, [f"architectures.resnet.pretrained={text}"])
        assert loaded.architectures["resnet"]["pretrained"] == text


@pytest.mark.parametrize("key", ["leaderboard.compare"])
def test_any_list_of_texts_comes_back_equal(key: str) -> None:
    texts = some_texts(7)
    for begin in range(0, len(texts), 3):
        few = texts[begin : begin + 3]
        assert at(config.load(None, [f"{key}={json.dumps(few)}"]), key) == few
        bare = [text.strip().replace(",", "") for text in few if not text.strip().startswith('"')]
        bare = [text for text in bare if text]
        assert at(config.load(None, [f"{key}=[{', '.join(bare)}]"]), key) == bare


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("inputs=/music/Best of #1 hits", "inputs", "/music/Best of #1 hits"),
        ("output=0123", "output", "0123"),
        ("corpus.root=no", "corpus.root", "no"),
        ("corpus.root=a=b", "corpus.root", "a=b"),
        ("model=a, b", "model", "a, b"),
        ("train.init_from=007", "train.init_from", "007"),
        ("train.epochs=12", "train.epochs", 12),
        ("train.learning_rate=1e-3", "train.learning_rate", 1e-3),
        ("train.freeze=true", "train.freeze", True),
        ("spectrogram.f_max=null", "spectrogram.f_max", None),
        ("tune.architectures=[cnn, crnn]", "tune.architectures", ["cnn", "crnn"]),
        ("tune.architectures=[]", "tune.architectures", []),
        ("architectures.cnn.width=8", "architectures", {"cnn": {"width": 8}}),
        ("architectures={cnn: {width: 8}}", "architectures", {"cnn": {"width": 8}}),
        ("corpus.params.seconds=2.5", "corpus.params", {"seconds": 2.5}),
        ("tune.space.cnn={train.mixup: [0, 0.3]}", "tune.space", {"cnn": {"train.mixup": [0, 0.3]}}),
    ],
)
def test_a_value_is_read_by_the_type_of_its_setting(setting: str, key: str, value: object) -> None:
    assert at(config.load(None, [setting]), key) == value


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("modle", "'model'"),
        ("min_prcision", "'min_precision'"),
        ("achitectures.cnn.width", "'architectures.cnn.width'"),
        ("spectogram.n_mels", "'spectrogram.n_mels'"),
        ("spectogram.mels", "'spectrogram.n_mels'"),
        ("trian.epoch", "'train.epochs'"),
        ("train.epoch", "'train.epochs'"),
        ("epoch", "'train.epochs' or 'pretrain.epochs'"),
        ("epochs", "'train.epochs' or 'pretrain.epochs'"),
        ("inpts", "'inputs'"),
        ("seeds", "'seed' or 'tune.seeds'"),
        ("tune.epochs", "'tune.grace_epochs' or 'train.epochs' or 'pretrain.epochs'"),
        ("corpus.rot", "'corpus.root'"),
    ],
)
def test_an_unknown_key_names_the_nearest_of_its_own_level(key: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match="unknown key") as error:
        config.load(None, [f"{key}=3"])
    assert str(error.value) == f"unknown key {key!r}; did you mean {nearest}?"


def test_an_unknown_key_of_a_file_is_told_in_full(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("trian: {eval_windows: 3}\n")
    with pytest.raises(ConfigError, match=r"unknown key 'trian\.eval_windows'; did you mean 'train\.eval_windows'\?"):
        config.load(str(file))


@pytest.mark.parametrize("setting", ["train.epochs=[", "train.epochs=2024-99-99", 'leaderboard.compare=["\\q"]'])
def test_a_value_that_is_not_yaml(setting: str) -> None:
    with pytest.raises(ConfigError, match="is not valid YAML") as error:
        config.load(None, [setting])
    assert "\n" not in str(error.value)
