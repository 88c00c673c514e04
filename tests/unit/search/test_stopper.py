"""Early stopping within an architecture, with reports as Tune gives them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import TrialScheduler

from genre.config import load
from genre.storage import Location
from ray_jobs.search.plan import Plan
from ray_jobs.search.stopper import METRIC, Earlier, PerArchitecture
from ray_jobs.search.trial_folder import Record, TrialFolder, TrialSpec


class Experiment:
    """Trials that report one after another to the stopper of these settings."""

    def __init__(
        self, folder: Path, *settings: str, minutes: float = 0, earlier: dict[str, Earlier] | None = None
    ) -> None:
        config = load(overrides=["train.epochs=27", "tune.grace_epochs=3", "tune.reduction=3", *settings])
        self._folder = folder
        plan = Plan({"cnn": 27, "crnn": 27, "vgg19": 27}, trials=9, seeds=1, minutes=minutes)
        self.stopper = PerArchitecture(config.tune, plan, earlier or {})
        self.stopper.set_search_properties(METRIC, "max")
        self._trials: dict[str, Any] = {}

    def report(
        self, architecture: str, number: int, f1: float, epoch: int = 3, seconds: float = 1.0, **more: int
    ) -> str:
        name = f"{architecture}-{number}"
        if name not in self._trials:
            config = TrialSpec({"architecture": architecture}, self.folder(name), name).to_config()
            metadata = SimpleNamespace(last_result={})
            self._trials[name] = SimpleNamespace(trial_id=name, config=config, run_metadata=metadata)
            self.stopper.on_trial_add(None, self._trials[name])
        result = {"epoch": epoch, METRIC: f1, "trial_seconds": seconds} | more
        return self.stopper.on_trial_result(None, self._trials[name], result)

    def complete(self, name: str, **result: float) -> None:
        self.stopper.on_trial_complete(None, self._trials[name], result)

    def folder(self, name: str) -> str:
        return str(self._folder / name)

    def is_recorded(self, name: str) -> bool:
        return TrialFolder(Location.of(self.folder(name))).record() is not None

    def record(self, name: str) -> Record:
        record = TrialFolder(Location.of(self.folder(name))).record()
        assert record is not None
        return record


def test_a_slow_starter_is_compared_within_its_own_architecture(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path)
    assert [experiment.report("cnn", number, f1) for number, f1 in enumerate((0.7, 0.8, 0.9))][-1] == "CONTINUE"
    assert experiment.report("cnn", 3, 0.5) == TrialScheduler.STOP
    assert experiment.report("vgg19", 0, 0.1) == TrialScheduler.CONTINUE
    assert experiment.report("vgg19", 1, 0.2) == TrialScheduler.CONTINUE
    assert experiment.report("vgg19", 2, 0.05) == TrialScheduler.STOP


def test_no_trial_ends_before_the_grace_epochs(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path)
    assert {experiment.report("cnn", number, 0.9 - number / 10, epoch=2) for number in range(6)} == {"CONTINUE"}


def test_each_architecture_has_its_own_time(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path, minutes=1)
    assert experiment.report("cnn", 0, 0.5, epoch=1, seconds=50) == TrialScheduler.CONTINUE
    assert experiment.report("cnn", 1, 0.6, epoch=1, seconds=11) == TrialScheduler.STOP
    assert experiment.report("crnn", 0, 0.1, epoch=1, seconds=50) == TrialScheduler.CONTINUE
    assert not experiment.is_recorded("cnn-0")
    assert (experiment.record("cnn-1").ended, experiment.record("cnn-1").minutes) == ("stopped", 1)


def test_a_stopped_trial_is_recorded_as_such(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path)
    experiment.report("cnn", 0, 0.9)
    assert experiment.report("cnn", 1, 0.5) == TrialScheduler.STOP
    assert (experiment.record("cnn-1").ended, experiment.record("cnn-1").minutes) == ("stopped", 0)


def test_later_folds_are_compared_with_nothing_but_have_the_same_time(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path, minutes=1)
    assert [experiment.report("cnn", number, f1) for number, f1 in enumerate((0.7, 0.8, 0.9))][-1] == "CONTINUE"
    assert experiment.report("cnn", 1, 0.1, fold=2) == TrialScheduler.CONTINUE
    assert experiment.report("cnn", 3, 0.5) == TrialScheduler.STOP
    assert experiment.report("cnn", 1, 0.1, seconds=70, fold=2) == TrialScheduler.STOP
    assert (experiment.record("cnn-1").ended, experiment.record("cnn-1").minutes) == ("stopped", 1)
    assert experiment.report("cnn", 2, 0.1, epoch=27, seconds=70, fold=3) == TrialScheduler.CONTINUE


def test_the_mean_over_folds_is_compared_with_nothing(tmp_path: Path) -> None:
    """Their mean may be lower than what other trials reach in their first fold."""
    first = Experiment(tmp_path / "first")
    second = Experiment(tmp_path / "second")
    for experiment, mean in ((first, 0.0), (second, 1.0)):
        assert [experiment.report("cnn", number, 0.7) for number in range(3)][-1] == "CONTINUE"
        experiment.complete("cnn-0", epoch=27, best_f1=mean, fold=3)
    assert first.report("cnn", 3, 0.6, epoch=9) == second.report("cnn", 3, 0.6, epoch=9)


def test_a_trial_at_its_last_epoch_may_save_its_model(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path, minutes=1)
    assert experiment.report("cnn", 0, 0.9, epoch=27, seconds=70) == TrialScheduler.CONTINUE
    assert not experiment.is_recorded("cnn-0")


def test_trials_are_compared_with_those_that_ran_earlier(tmp_path: Path) -> None:
    scores = [(epoch, 0.8) for epoch in range(1, 28)]
    earlier = {"before": Earlier("cnn", scores, 100.0, settled=True)}
    experiment = Experiment(tmp_path, earlier=earlier)
    assert experiment.report("cnn", 0, 0.7) == TrialScheduler.STOP
    assert experiment.report("cnn", 1, 0.9) == TrialScheduler.CONTINUE
    assert experiment.report("crnn", 0, 0.1) == TrialScheduler.CONTINUE


def test_a_resumed_trial_was_compared_at_the_epochs_before(tmp_path: Path) -> None:
    half = [(epoch, 0.8) for epoch in range(1, 6)]
    experiment = Experiment(tmp_path)
    earlier = {experiment.folder("cnn-0"): Earlier("cnn", half, 50.0, settled=False)}
    experiment = Experiment(tmp_path, earlier=earlier)
    assert experiment.report("cnn", 0, 0.95, epoch=6) == TrialScheduler.CONTINUE
    assert experiment.report("cnn", 1, 0.9, epoch=3) == TrialScheduler.CONTINUE  # 0.8 counts at epoch 3, not 0.95


def test_the_time_of_earlier_runs_counts(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path)
    earlier = {
        "ended": Earlier("cnn", [(1, 0.1)], 50.0, settled=True),
        experiment.folder("cnn-0"): Earlier("cnn", [(1, 0.1)], 5.0, settled=False),
    }
    experiment = Experiment(tmp_path, minutes=1, earlier=earlier)
    assert experiment.report("cnn", 0, 0.5, epoch=2, seconds=8) == TrialScheduler.CONTINUE  # its own 5 s are in the 8
    assert experiment.report("cnn", 0, 0.5, epoch=2, seconds=11) == TrialScheduler.STOP
