"""What is made of Tune's results, given as Tune gives them."""

from __future__ import annotations

import pytest

from ray_jobs import outcomes

from ray import tune  # isort: skip


def result(f1: float, epoch: int = 9, failure: str = "", seed: int = 0) -> tune.Result:
    metrics = {"best_f1": f1, "epoch": epoch, "done": True} | ({"failure": failure} if failure else {})
    settings = {"model.name": "cnn", "train.learning_rate": f1, "seed": seed}
    trained = tune.Checkpoint("/nowhere") if epoch else None
    return tune.Result(metrics | {"config": {"run": {"settings": settings}}}, trained, None, path="/nowhere")


def test_the_best_epoch_wins():
    won = outcomes.winner("cnn", [result(0.5), result(0.7), result(0.6)])
    assert (won.valid_f1, won.trials) == (0.7, 3)
    assert outcomes.winner("crnn", [result(0.5)]) is None
    assert outcomes.winner("cnn", [result(0.0, epoch=0)]) is None


def test_a_trial_that_lost_its_loss_wins_only_where_all_did():
    lost = result(0.9, failure="the loss is nan in epoch 9")
    assert outcomes.winner("cnn", [lost, result(0.5)]).valid_f1 == 0.5
    assert outcomes.winner("cnn", [lost, result(0.5, failure="the loss is nan")]).valid_f1 == 0.9


@pytest.mark.parametrize(
    ("trial", "epochs", "status"),
    [(result(0.5), 9, "finished"), (result(0.5), 20, "stopped"), (result(0.5, failure="nan"), 20, "failed")],
)
def test_the_report_says_how_a_trial_ended(trial, epochs, status):
    told = outcomes.for_report(trial, epochs)
    assert (told.status, told.epochs, told.architecture) == (status, 9, "cnn")
