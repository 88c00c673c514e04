"""Which saved model a job uses."""

from __future__ import annotations

from pathlib import Path

import boards
import pytest
from saving import save_model

from genre import config
from genre.errors import ConfigError
from genre.report import write
from genre.storage import Location
from ray_jobs.engine.models import find_models


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return an output with two networks, of which the leaderboard recommends crnn; there is no vgg16."""
    for name in ("cnn", "crnn"):
        save_model(tmp_path / "models" / name, name, answers=False)
    networks = (boards.network("cnn", 0.5), boards.network("crnn", 0.9))
    write(boards.board(*networks), Location.of(tmp_path / "leaderboard"))
    return tmp_path


def found(output: Path, *settings: str) -> list[str]:
    return [str(model) for model in find_models(config.load(None, [f"output={output}", *settings]))]


def test_the_leaderboard_chooses_the_model_unless_one_is_named(output: Path) -> None:
    best, other = str(output / "models/crnn"), str(output / "models/cnn")
    assert found(output) == [best]
    assert found(output, "architecture=crnn") == [best]
    assert found(output, f"model={other}") == [other]


def test_an_architecture_that_the_leaderboard_does_not_recommend_is_refused(output: Path) -> None:
    """It would be ignored: the leaderboard chooses."""
    with pytest.raises(ConfigError) as error:
        found(output, "architecture=cnn")
    assert str(error.value) == (
        f"architecture=cnn chooses no model where there is a leaderboard, and that of {output} recommends crnn; write "
        f"model={output / 'models/cnn'}, or leave architecture out"
    )
    with pytest.raises(
        ConfigError, match=rf"leave it out, or train vgg16 and name it with model={output}/models/vgg16"
    ):
        found(output, "architecture=vgg16")


def test_without_a_leaderboard_the_architecture_names_what_train_saved(output: Path) -> None:
    (output / "leaderboard/leaderboard.json").unlink()
    assert found(output, "architecture=crnn") == [str(output / "models/crnn")]
    assert found(output) == [str(output / "models/cnn")]
