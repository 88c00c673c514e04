"""Early stopping within an architecture, given reports as Tune gives them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from genre.config import load
from genre.errors import ConfigError
from ray_jobs import search

from ray.tune.schedulers import TrialScheduler  # isort: skip


class Experiment:
    """Trials that report one after another to the stopper of these settings."""

    def __init__(self, *settings: str) -> None:
        config = load(overrides=["train.epochs=27", "tune.grace_epochs=3", "tune.reduction=3", *settings])
        self.stopper = search.stopper(config)
        self.stopper.set_search_properties(search.METRIC, "max")
        self._trials: dict[str, Any] = {}

    def report(self, architecture: str, number: int, f1: float, epoch: int = 3, seconds: float = 1.0) -> str:
        name = f"{architecture}-{number}"
        if name not in self._trials:
            config = {"run": {"settings": {"model.name": architecture}}}
            metadata = SimpleNamespace(last_result={})
            self._trials[name] = SimpleNamespace(trial_id=name, config=config, run_metadata=metadata)
            self.stopper.on_trial_add(None, self._trials[name])
        result = {"epoch": epoch, search.METRIC: f1, "time_total_s": seconds}
        return self.stopper.on_trial_result(None, self._trials[name], result)


def test_a_slow_starter_is_judged_by_its_own_family():
    experiment = Experiment()
    assert [experiment.report("cnn", number, f1) for number, f1 in enumerate((0.7, 0.8, 0.9))][-1] == "CONTINUE"
    assert experiment.report("cnn", 3, 0.5) == TrialScheduler.STOP
    assert experiment.report("vgg19", 0, 0.1) == TrialScheduler.CONTINUE
    assert experiment.report("vgg19", 1, 0.2) == TrialScheduler.CONTINUE
    assert experiment.report("vgg19", 2, 0.05) == TrialScheduler.STOP


def test_no_trial_ends_before_the_grace_epochs():
    experiment = Experiment()
    assert {experiment.report("cnn", number, 0.9 - number / 10, epoch=2) for number in range(6)} == {"CONTINUE"}


def test_each_architecture_has_its_own_time():
    experiment = Experiment("tune.minutes=1")
    assert experiment.report("cnn", 0, 0.5, epoch=1, seconds=50) == TrialScheduler.CONTINUE
    assert experiment.report("cnn", 1, 0.6, epoch=1, seconds=11) == TrialScheduler.STOP
    assert experiment.report("crnn", 0, 0.1, epoch=1, seconds=50) == TrialScheduler.CONTINUE


def test_a_search_over_epochs_is_refused():
    config = load(overrides=["tune.space={cnn: {train.epochs: {choice: [10, 20]}}}"])
    with pytest.raises(ConfigError, match="trials of equal length"):
        search.space(config, "cnn")
