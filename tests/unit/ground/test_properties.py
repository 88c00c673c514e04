"""Properties of the command line's parser and of locations, on generated values."""

from __future__ import annotations

import json
import re
import tempfile
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from genre import config, grammar, registry
from genre.errors import ConfigError
from genre.settings import Config
from genre.storage import Location

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)

ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=30)


def fields(schema: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Return the type of each setting by its dotted key."""
    found: dict[str, Any] = {}
    for name, field in schema.model_fields.items():
        section = grammar.section(schema, name)
        found |= fields(section, f"{prefix}{name}.") if section else {f"{prefix}{name}": field.annotation}
    return found


KINDS = fields(Config)
TEXTS = sorted(key for key, kind in KINDS.items() if kind is str and key not in ("architecture", "corpus.kind"))


def value_of(loaded: Config, key: str) -> Any:
    value: Any = loaded
    for name in key.split("."):
        value = getattr(value, name)
    return value


@quick
@given(st.sampled_from(TEXTS), ANY_TEXT)
def test_a_text_stays_as_it_was_typed(key: str, text: str) -> None:
    assume(key != "model" or text not in registry.names("genre.architectures"))
    assert value_of(config.load(None, [f"{key}={text}"]), key) == text


@quick
@given(st.integers(1, 10**9), st.floats(0, 1, exclude_min=True))
def test_a_number_is_read_to_the_last_digit(epochs: int, rate: float) -> None:
    loaded = config.load(None, [f"train.epochs={epochs}", f"train.learning_rate={rate!r}"])
    assert (loaded.train.epochs, loaded.train.learning_rate) == (epochs, rate)


@quick
@given(st.lists(ANY_TEXT, max_size=4))
def test_a_list_of_texts_comes_back_equal(texts: list[str]) -> None:
    loaded = config.load(None, [f"leaderboard.compare={json.dumps(texts, ensure_ascii=False)}"])
    assert loaded.leaderboard.compare == texts


@quick
@given(st.lists(st.sampled_from(["seed=1", "train.epochs=7", "tune.minutes=2", "output=a", "seed=2"]), max_size=6))
def test_the_last_value_of_a_key_wins(arguments: list[str]) -> None:
    loaded = config.load(None, arguments)
    for key, value in dict(argument.split("=") for argument in arguments).items():
        assert str(value_of(loaded, key)).removesuffix(".0") == value


@st.composite
def mistyped_keys(draw: st.DrawFn) -> str:
    """Draw a key with a letter left out, doubled or exchanged, or any word."""
    key = draw(st.sampled_from(sorted(KINDS)))
    at = draw(st.integers(0, len(key) - 1))
    word = draw(st.text("abcdefghijklmnopqrstuvwxyz_.", min_size=1, max_size=12))
    return draw(
        st.sampled_from([key[:at] + key[at + 1 :], key[:at] + key[at] + key[at:], key[:at] + "x" + key[at + 1 :], word])
    )


@quick
@given(mistyped_keys())
def test_an_unknown_key_is_refused_with_keys_that_exist(key: str) -> None:
    sections = {known.rpartition(".")[0] for known in KINDS}
    assume(
        key not in KINDS
        and key not in sections
        and not key.startswith(("architectures.", "corpus.params.", "tune.space."))
    )
    with pytest.raises(ConfigError) as error:
        config.load(None, [f"{key}=1"])
    message = str(error.value)
    assert "\n" not in message
    if message.startswith("unknown key"):
        _, _, remedy = message.rpartition("; ")
        suggested = re.findall(r"'([^']*)'", remedy)
        assert suggested or remedy == "--help-all lists all keys"
        assert set(suggested) <= KINDS.keys() | sections


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=40)
names = NAMES.filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)


@quick
@given(
    st.sampled_from(["/music", "s3://bucket/run?region=us-east-1", "s3://bucket?region=eu-west-1"]),
    st.lists(names, min_size=1, max_size=3),
)
def test_an_address_leads_to_the_location_that_it_names(root: str, parts: list[str]) -> None:
    location = Location.of(root)
    for name in parts:
        location = location / name
    assert location.name == parts[-1]
    assert Location.of(str(location)).path == location.path
    assert location.path.endswith("/".join(parts))


@quick
@given(names, st.binary(max_size=50))
def test_a_file_of_any_name_is_read_as_it_was_written(name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Location.of(folder) / name
        file.write_bytes(content)
        assert file.exists()
        assert file.read_bytes() == content
        assert [child.base_name for child in Location.of(folder).children()] == [name]
        file.delete()
        assert not Location.of(folder).children()
