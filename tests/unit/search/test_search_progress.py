"""The states that the progress of a search counts."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genre.storage import Location
from genre.wording import duration
from ray_jobs.search.progress import SearchProgress
from ray_jobs.search.slots import Slot
from ray_jobs.search.trial_folder import Ended, FoldResult, Record


@pytest.mark.parametrize(
    ("ended", "epochs", "state"),
    [
        ("finished", 9, "1 finished"),
        ("finished", 4, "1 out of patience"),
        ("stopped", 4, "1 stopped"),
        ("failed", 4, "1 failed"),
    ],
)
@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_trial_is_counted_by_how_it_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ended: Ended, epochs: int, state: str, is_resumed: bool
) -> None:
    slot = Slot("cnn", 0, 9, Location.of(tmp_path))
    slot.folder.write(Record({}, [(epochs, 0.5)], ended=ended))
    slots = [slot.read()]
    progress = SearchProgress("search", slots, [] if is_resumed else slots, concurrent=1)
    progress.setup()
    trials: list[Any] = []
    if not is_resumed:
        trial = _trial(slot, epochs, "TERMINATED")
        trials.append(trial)
        progress.on_trial_complete(1, trials, trial)
    progress.on_experiment_end(trials)
    assert f"search: {state}, " in capsys.readouterr().err


def test_the_time_left_is_that_of_epochs_which_were_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slots = [Slot(name, 0, 9, Location.of(tmp_path / name)) for name in ("cnn", "vgg19")]
    progress = SearchProgress("search", slots, slots, concurrent=2)
    progress.setup()
    trials = [_trial(slot, 1, "RUNNING") for slot in slots]
    for trial, shown in zip(trials, ("best valid", "about 40 s left; best valid"), strict=True):
        progress.on_trial_result(1, trials, trial, {"epoch": 1, "train_loss": 1.0, "time_this_iter_s": 5.0})
        progress.on_experiment_end(trials)
        line = capsys.readouterr().err
        assert shown in line
        assert ("left" in line) is ("left" in shown)


def test_the_time_left_goes_down_during_an_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slot = Slot("cnn", 0, 9, Location.of(tmp_path))
    progress = SearchProgress("search", [slot], [slot], concurrent=1)
    progress.setup()
    trial = _trial(slot, 1, "RUNNING")
    progress.on_trial_result(1, [trial], trial, {"epoch": 1, "train_loss": 1.0, "time_this_iter_s": 5.0})
    progress.on_experiment_end([trial])
    assert "about 40 s left" in capsys.readouterr().err
    time.sleep(2)
    progress.on_experiment_end([trial])
    assert re.search(r"about 3\d s left", capsys.readouterr().err)


def test_an_epoch_takes_its_time_also_where_patience_ends_the_folds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each epoch takes 5 s, every fold ends after the second of nine, and the trial was interrupted once."""
    slots = [Slot("cnn", number, 9, Location.of(tmp_path), folds=3) for number in range(2)]
    slots[0].folder.write(Record({}, [(1, 0.5), (2, 0.5)], folds=[FoldResult(0.5, 1, 2)], later_epochs=1))
    slots = [slot.read() for slot in slots]
    progress = SearchProgress("search", slots, slots, concurrent=1)
    progress.setup()
    trial = _trial(slots[0], 0, "RUNNING")
    epoch = {"train_loss": 1.0, "time_this_iter_s": 5.0}
    reports = [{"fold": 2, "epoch": 2} | epoch, {"fold": 3, "epoch": 1} | epoch, {"fold": 3, "epoch": 2} | epoch]
    for report in [*reports, {"fold": 3, "epoch": 9, "time_this_iter_s": 0.001}]:
        trial.run_metadata.last_result = report | {"best_f1": 0.5}
        progress.on_trial_result(1, [trial], trial, report)
        progress.on_experiment_end([trial])
        left = 2 * 27 - (9 * (report["fold"] - 1) + report["epoch"])
        assert f", about {duration(5 * left)} left" in capsys.readouterr().err


def test_a_final_training_that_resumes_its_trial_has_only_the_rest_of_the_epochs_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = Slot("cnn", 0, 9, Location.of(tmp_path))
    trial.folder.save_state({"epoch": 6})
    trial.folder.write(Record({}, [(epoch, 0.5) for epoch in range(1, 7)], [(0.0, 30.0)], ended="stopped"))
    copied, other = trial.read().final(0), trial.read().final(1)
    copied.folder.start_from(trial.folder)
    slots = [copied.read(), other]
    progress = SearchProgress("final", slots, slots, concurrent=1)
    progress.setup()
    running, waiting = _trial(copied, 0, "RUNNING"), _trial(other, 0, "PENDING")
    waiting.run_metadata.last_result = {}
    for epoch in (7, 8):
        report = {"epoch": epoch, "best_f1": 0.5, "train_loss": 1.0, "time_this_iter_s": 5.0}
        progress.on_trial_result(1, [running, waiting], running, report)
        progress.on_experiment_end([running, waiting])
        left = 9 - epoch + 9
        assert f", about {duration(5 * left)} left" in capsys.readouterr().err


def _trial(slot: Slot, epochs: int, status: str) -> Any:
    """Return what the progress reads of a Tune trial."""
    return SimpleNamespace(
        config=slot.spec({}).to_config(),
        status=status,
        run_metadata=SimpleNamespace(last_result={"epoch": epochs, "best_f1": 0.5}),
        is_finished=lambda: status == "TERMINATED",
    )
