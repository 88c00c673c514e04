"""The winners, failures and facts that follow from the records of trials."""

from __future__ import annotations

from typing import Any

import pytest

from genre.config import load
from genre.storage import Location
from ray_jobs.search import results
from ray_jobs.search.plan import Plan
from ray_jobs.search.results import Winner
from ray_jobs.search.slots import Slot
from ray_jobs.search.trial_folder import Ended, FoldResult, Record


def slot(f1: float, epoch: int = 9, number: int = 0, **facts: Any) -> Slot:
    record = Record({"architecture": "cnn", "train.learning_rate": f1}, [(epoch, f1)] if epoch else [], **facts)
    return Slot("cnn", number, 9, Location.of("/nowhere"), record=record)


def of_folds(*f1: float, number: int = 0, first: float = 0.0, **facts: Any) -> Slot:
    """Return a trial of three folds, of which those with `f1` finished."""
    results = [FoldResult(score, epoch, 9) for epoch, score in enumerate(f1, 1)]
    record = Record({"architecture": "cnn"}, [(9, f1[0] if f1 else first)], folds=results, **facts)
    return Slot("cnn", number, 9, Location.of("/nowhere"), record=record, folds=3)


def winner(*slots: Slot) -> Winner:
    best = results.winner("cnn", slots)
    assert best is not None
    return best


def test_the_best_epoch_wins() -> None:
    best = winner(slot(0.5), slot(0.7, number=1), slot(0.6, number=2))
    assert (best.valid_f1, best.trials, best.slot.name) == (0.7, 3, "001")
    assert results.winner("crnn", [slot(0.5)]) is None
    assert results.winner("cnn", [slot(0.0, epoch=0)]) is None


def test_the_best_mean_over_all_folds_wins() -> None:
    best = winner(of_folds(0.9), of_folds(0.8, 0.2, 0.2, number=1), of_folds(0.4, 0.5, 0.6, number=2))
    assert (best.slot.name, best.trials) == ("002", 3)
    assert best.valid_f1 == pytest.approx(0.5)
    assert best.slot.final(1).last == 2  # the median of the best epochs


def test_where_no_trial_finished_all_folds_the_first_fold_decides() -> None:
    best = winner(of_folds(0.5, 0.9), of_folds(first=0.6, number=1), of_folds(0.7, 0.1, number=2))
    assert (best.slot.name, best.valid_f1) == ("002", 0.7)
    assert winner(of_folds(first=0.6)).slot.final(0).last == 9  # nothing says where to stop
    failed = of_folds(0.9, 0.9, number=3, ended="failed", failure="the loss is nan")
    assert winner(failed, of_folds(0.5)).valid_f1 == 0.5


def test_a_final_training_after_folds_takes_its_epochs_on_all_tracks() -> None:
    best = winner(of_folds(0.4, 0.5, 0.6, sessions=[(0.0, 36.0)], later_epochs=18, ended="finished"))
    seconds_of_an_epoch = 36 / 27
    assert best.training_seconds == pytest.approx(seconds_of_an_epoch * 2 * 3 / 2)


def test_a_trial_whose_loss_became_nan_wins_only_where_all_failed() -> None:
    failed = slot(0.9, ended="failed", failure="the loss is nan in epoch 9")
    assert winner(failed, slot(0.5)).valid_f1 == 0.5
    assert winner(failed, slot(0.5, ended="failed", failure="the loss is nan")).valid_f1 == 0.9


def test_a_trial_that_patience_ended_needs_no_more_time() -> None:
    sessions = [(0.0, 60.0)]
    stopped = winner(slot(0.5, epoch=6, sessions=sessions, ended="stopped"))
    assert (stopped.training_seconds, stopped.remaining_seconds) == pytest.approx((90, 30))
    finished = winner(slot(0.5, epoch=6, sessions=sessions, ended="finished"))
    assert finished.remaining_seconds == 0


def test_the_configured_settings_are_those_of_the_first_trial_unless_it_failed() -> None:
    slots = [slot(0.5), slot(0.7, number=1)]
    configured = results.default("cnn", slots)
    assert configured is not None
    assert (configured.slot, configured.valid_f1, configured.trials) == (slots[0], 0.5, 1)
    assert results.default("cnn", [slot(0.5, ended="failed", failure="the loss is nan"), slots[1]]) is None
    assert results.default("cnn", [slot(0.0, epoch=0), slots[1]]) is None
    chosen = [trial.is_chosen for trial in results.for_report(slots, {"cnn": winner(*slots)}, 2, "").trials]
    assert chosen == [False, True]


def test_the_result_of_trials_names_the_configured_settings_where_others_won() -> None:
    plan, config = Plan({"cnn": 9, "crnn": 9}, trials=2, seeds=1), load()
    trials = [slot(0.5, ended="finished"), slot(0.7, number=1, ended="finished")]
    result = results.of_trials(trials, plan, config, concurrent=2)
    assert ([best.slot for best in result.winners], result.interrupted) == (trials[1:], False)
    assert ([trial.slot for trial in result.defaults], result.without_default) == (trials[:1], [])
    assert result.facts.budget == "2 trials of at most 9 epochs an architecture"
    assert [trial.row for trial in result.facts.trials] == ["cnn", "cnn"]
    failed = slot(0.5, ended="failed", failure="the loss is nan")
    result = results.of_trials([failed, slot(0.7, number=1)], plan, config, concurrent=2)
    assert (result.defaults, result.without_default, result.interrupted) == ([], ["cnn"], True)
    assert results.of_trials(trials[:1], plan, config, concurrent=2).defaults == []  # they won


def test_the_trials_belong_to_the_row_of_the_network_that_they_chose() -> None:
    slots = [slot(0.5), slot(0.7, number=1)]
    search = results.for_report(slots, {"cnn-imagenet": winner(*slots)}, 2, "")
    assert search.of("cnn-imagenet") == search.trials
    assert len(search.trials) == 2
    assert search.of("cnn") == []


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
def test_the_report_shows_how_a_trial_ended(ended: Ended | None, status: str) -> None:
    slots = [slot(0.5, ended=ended), Slot("cnn", 1, 9, Location.of("/nowhere"))]
    (trial,) = results.for_report(slots, {}, 2, "").trials
    assert (trial.status, trial.epochs, trial.architecture) == (status, 9, "cnn")
    assert trial.settings == {"train.learning_rate": 0.5}


def test_wall_time_counts_concurrent_trials_once_and_no_pauses() -> None:
    slots = [slot(0.5, sessions=[(0.0, 10.0), (100.0, 105.0)]), slot(0.5, sessions=[(5.0, 20.0)])]
    search = results.for_report(slots, {}, concurrent=2, budget="")
    assert search.makespan_seconds == 25
    assert search.trial_seconds == 30


def test_the_reason_for_a_missing_model_is_what_its_trials_failed_for() -> None:
    killed = "killed by signal 6 (SIGABRT), tried 2 times"
    crashed = [slot(0.0, epoch=0, number=number, ended="crashed", failure=killed) for number in range(2)]
    search = results.for_report(crashed, {}, concurrent=2, budget="")
    assert results.missing(search, saved=["crnn"]) == {"cnn": killed}
    assert results.missing(search, saved=["cnn"]) == {}
    finished = results.for_report([slot(0.5, ended="finished")], {}, concurrent=2, budget="")
    assert results.missing(finished, saved=[]) == {"cnn": "its final training failed, see the notes"}
