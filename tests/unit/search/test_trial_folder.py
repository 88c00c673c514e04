"""The files of a trial."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from genre.storage import Location
from ray_jobs.search.trial_folder import Ended, FoldResult, Record, TrialFolder

SETTINGS = {"architecture": "cnn", "train.learning_rate": 0.1 + 0.2, "architectures.cnn.width": 8}


@pytest.fixture
def folder(tmp_path: Path) -> TrialFolder:
    return TrialFolder(Location.of(tmp_path / "trial"))


def record_of(folder: TrialFolder) -> Record:
    record = folder.record()
    assert record is not None
    return record


def test_a_record_is_read_as_it_was_written(folder: TrialFolder) -> None:
    assert folder.record() is None
    record = Record(SETTINGS, [(1, 1 / 3), (2, 0.5)], [(1.5, 2.5)])
    folder.write(record)
    assert folder.record() == record
    folder.end("stopped", minutes=3)
    ended = record_of(folder)
    assert (ended.ended, ended.minutes, ended.epochs) == ("stopped", 3, 2)


def test_a_record_counts_the_epochs_and_scores_of_all_folds(folder: TrialFolder) -> None:
    finished = [FoldResult(0.6, 1, 3), FoldResult(0.3, 3, 3), FoldResult(0.3, 2, 2)]
    record = Record(SETTINGS, [(3, 0.6)], [(0.0, 1.0)], folds=finished).reached_later(2)
    folder.write(record)
    assert folder.record() == record
    assert (record.epochs, record.first_f1) == (3 + 3 + 2 + 2, 0.6)
    assert record.best_f1 == pytest.approx(0.4)
    assert record.epochs_to_train(9) == 2
    assert Record(SETTINGS, [(3, 0.6)]).epochs_to_train(9) == 9


def test_the_state_of_a_fold_is_not_that_of_another(folder: TrialFolder) -> None:
    folder.save_state({"epoch": 1}, fold=2)
    assert folder.load_state(fold=2) == {"epoch": 1}
    assert folder.load_state(fold=3) is None
    assert folder.load_state() is None
    folder.save_state({"epoch": 2})
    assert folder.load_state() == {"epoch": 2}


def test_a_process_that_died_before_it_wrote_anything_is_recorded(folder: TrialFolder) -> None:
    folder.end("crashed", failure="killed")
    assert record_of(folder).failure == "killed"
    assert record_of(folder).started().failure == ""


def test_a_finished_trial_keeps_no_state(folder: TrialFolder) -> None:
    folder.save_state({"weights": torch.zeros(2)})
    state = folder.load_state()
    assert state is not None
    assert state["weights"].tolist() == [0, 0]
    folder.end("finished")
    assert folder.load_state() is None


def test_another_training_starts_from_the_state_of_a_trial_once(folder: TrialFolder, tmp_path: Path) -> None:
    other = TrialFolder(Location.of(tmp_path / "other"))
    folder.save_state({"epoch": 1})
    folder.write(Record(SETTINGS, [(1, 0.5)], [(0.0, 9.0)], ended="stopped", minutes=3))
    other.start_from(folder)
    assert other.load_state() == {"epoch": 1}
    assert other.record() == Record(SETTINGS, [(1, 0.5)])  # its time is counted for the trial
    other.save_state({"epoch": 2})
    other.write(Record(SETTINGS))
    other.start_from(folder)
    assert other.load_state() == {"epoch": 2}


@pytest.mark.parametrize(
    ("ended", "limit", "minutes", "settled"),
    [
        (None, 0, 0, False),
        ("crashed", 0, 0, False),
        ("finished", 0, 0, True),
        ("finished", 0, 5, True),
        ("failed", 0, 0, True),
        ("stopped", 0, 5, True),  # by the others of its architecture
        ("stopped", 3, 3, True),
        ("stopped", 3, 5, False),  # there is more time now
        ("stopped", 3, 0, False),
    ],
)
def test_an_ended_trial_is_settled_unless_there_is_more_time(
    ended: Ended | None, limit: float, minutes: float, settled: bool
) -> None:
    assert Record({}, ended=ended, minutes=limit).is_settled(minutes) is settled
