"""What happens to an earlier run of `train` in the same folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from genre.errors import ConfigError
from genre.storage import Location
from genre.training.run_record import RunRecord

Claim = Callable[..., RunRecord]


@pytest.fixture
def claim(tmp_path: Path) -> Claim:
    def claimed(rate: float, resume: bool = True, ended: bool = False) -> RunRecord:
        settings = {"train": {"learning_rate": rate}}
        record = RunRecord.claim(Location.of(tmp_path) / "cnn", settings, resume)
        record.file.write_json(record.file.read_json() | {"ended": ended})
        return record

    return claimed


def marked(record: RunRecord) -> bool:
    """Mark the run's folder and return whether it was marked before."""
    mark = Path(record.file.path).with_name("mark")
    existed = mark.exists()
    mark.touch()
    return existed


def test_a_run_with_the_same_settings_is_resumed(claim: Claim) -> None:
    marked(claim(0.1))
    assert marked(claim(0.1, ended=True))
    assert marked(claim(0.1))


def test_an_interrupted_run_with_other_settings_is_refused_or_replaced(claim: Claim) -> None:
    marked(claim(0.1))
    with pytest.raises(ConfigError, match=r"train.learning_rate is 0.2, expected 0.1; .*train.resume=false"):
        claim(0.2)
    assert not marked(claim(0.2, resume=False))


def test_an_ended_run_with_other_settings_is_replaced(claim: Claim) -> None:
    marked(claim(0.1, ended=True))
    assert not marked(claim(0.2))


def test_a_run_is_complete_while_its_model_exists(claim: Claim, tmp_path: Path) -> None:
    model = Location.of(tmp_path) / "model"
    record = claim(0.1)
    assert not record.is_complete(model)
    (model / "model.json").write_json({"weights": "0123"})
    assert not record.is_complete(model)
    record.end(model)
    assert record.is_complete(model)
    (model / "model.json").write_json({"weights": "4567"})
    assert not record.is_complete(model)
    (model / "model.json").delete()
    assert not record.is_complete(model)


def test_a_failed_run_is_not_complete(claim: Claim, tmp_path: Path) -> None:
    model = Location.of(tmp_path) / "model"
    (model / "model.json").write_json({"weights": "0123"})
    record = claim(0.1)
    record.end(None)
    assert record.file.read_json()["ended"]
    assert not record.is_complete(model)
