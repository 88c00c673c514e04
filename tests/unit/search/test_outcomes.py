"""What is made of the records of trials."""

from __future__ import annotations

import pytest

from genre.storage import Location
from ray_jobs.search import outcomes
from ray_jobs.search.search_plan import Slot
from ray_jobs.search.trial_folder import Record


def slot(f1: float, epoch: int = 9, number: int = 0, **facts) -> Slot:
    record = Record({"architecture": "cnn", "train.learning_rate": f1}, [(epoch, f1)] if epoch else [], **facts)
    return Slot("cnn", number, 9, Location.of("/nowhere"), record=record)


def test_the_best_epoch_wins():
    won = outcomes.winner("cnn", [slot(0.5), slot(0.7, number=1), slot(0.6, number=2)])
    assert (won.valid_f1, won.trials, won.slot.name) == (0.7, 3, "001")
    assert outcomes.winner("crnn", [slot(0.5)]) is None
    assert outcomes.winner("cnn", [slot(0.0, epoch=0)]) is None


def test_a_trial_that_lost_its_loss_wins_only_where_all_did():
    lost = slot(0.9, ended="failed", failure="the loss is nan in epoch 9")
    assert outcomes.winner("cnn", [lost, slot(0.5)]).valid_f1 == 0.5
    assert outcomes.winner("cnn", [lost, slot(0.5, ended="failed", failure="the loss is nan")]).valid_f1 == 0.9


def test_a_trial_that_its_patience_ended_needs_no_more_time():
    sessions = [(0.0, 60.0)]
    stopped = outcomes.winner("cnn", [slot(0.5, epoch=6, sessions=sessions, ended="stopped")])
    assert (stopped.training_seconds, stopped.remaining_seconds) == pytest.approx((90, 30))
    finished = outcomes.winner("cnn", [slot(0.5, epoch=6, sessions=sessions, ended="finished")])
    assert finished.remaining_seconds == 0


@pytest.mark.parametrize(
    ("ended", "status"),
    [
        ("finished", "finished"),
        ("stopped", "stopped"),
        ("failed", "failed"),
        ("crashed", "failed"),
        (None, "interrupted"),
    ],
)
def test_the_report_says_how_a_trial_ended(ended, status):
    (told,) = outcomes.for_report([slot(0.5, ended=ended), Slot("cnn", 1, 9, Location.of("/nowhere"))], 2, "").trials
    assert (told.status, told.epochs, told.architecture) == (status, 9, "cnn")
    assert told.settings == {"train.learning_rate": 0.5}


def test_wall_time_counts_what_ran_together_once_and_no_pauses():
    slots = [slot(0.5, sessions=[(0.0, 10.0), (100.0, 105.0)]), slot(0.5, sessions=[(5.0, 20.0)])]
    search = outcomes.for_report(slots, concurrent=2, budget="")
    assert search.makespan_seconds == 25
    assert search.trial_seconds == 30


def test_an_architecture_without_a_model_is_missing_for_what_its_trials_say():
    killed = "killed by signal 6 (SIGABRT), tried 2 times"
    died = [slot(0.0, epoch=0, number=number, ended="crashed", failure=killed) for number in range(2)]
    search = outcomes.for_report(died, concurrent=2, budget="")
    assert outcomes.missing(search, made=["crnn"]) == {"cnn": killed}
    assert outcomes.missing(search, made=["cnn"]) == {}
    well = outcomes.for_report([slot(0.5, ended="finished")], concurrent=2, budget="")
    assert outcomes.missing(well, made=[]) == {"cnn": "its final training failed, as the notes say"}
