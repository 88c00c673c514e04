"""The search space, and settings by dotted key."""

from __future__ import annotations

import pytest

from genre.config import load
from genre.errors import ConfigError
from ray_jobs.search import space


def test_a_search_over_epochs_is_refused() -> None:
    config = load(overrides=["tune.space={cnn: {train.epochs: {choice: [10, 20]}}}"])
    with pytest.raises(ConfigError, match="trials of equal length"):
        space.domains(config.tune, "cnn")


@pytest.mark.parametrize(
    ("key", "nearest"), [("train.mixpu", "train.mixup"), ("params.widht", "architectures.cnn.width")]
)
def test_an_unknown_setting_is_refused_before_anything_is_trained(key: str, nearest: str) -> None:
    config = load(overrides=["tune.architectures=[cnn]", f"tune.space={{cnn: {{{key}: [1, 2]}}}}"])
    with pytest.raises(ConfigError, match=f"tune.space.cnn: found .*did you mean '{nearest}'"):
        space.experiments(config)


def test_settings_by_dotted_key_replace_those_of_the_configuration() -> None:
    config = space.apply(load(), {"architectures.cnn.width": 8, "train.mixup": 0.5})
    assert config.architectures == {"cnn": {"width": 8}}
    assert config.train.mixup == 0.5
    with pytest.raises(ConfigError, match="found -1"):
        space.apply(load(), {"train.mixup": -1})
