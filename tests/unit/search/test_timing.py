"""What a search prints before it starts."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from test_budget import forecast

from genre.errors import ConfigError
from genre.training.costs import Cost
from ray_jobs.engine.capacity import Capacity
from ray_jobs.search import timing
from ray_jobs.search.budget import Forecast
from ray_jobs.search.plan import Plan
from ray_jobs.search.resources import TrialResources


def text(predicted: Forecast, plan: Plan | None = None) -> str:
    return "\n".join(timing.lines(predicted, plan or predicted.full()))


def test_the_parts_of_the_search_and_their_times_are_named() -> None:
    printed = text(forecast())
    assert "8 trials of each of 3 architectures, the best with 3 seeds, 2 trainings at a time" in printed
    assert "epochs: 30 each; share of the time: cnn 5%, resnet 24%, vgg19 71%" in printed
    assert all(part in printed for part in ("about ", "search ", "final trainings ", "judging "))


def test_final_trainings_of_the_configured_settings_are_named() -> None:
    assert "the best and the configured settings with 3 seeds" in text(forecast("tune.defaults=true"))
    assert "the best with 3 seeds" in text(forecast("tune.defaults=true", "tune.trials=1"))


def test_folds_are_named() -> None:
    assert "architectures over 5 folds, the best with 3 seeds" in text(forecast("tune.folds=5"))


def test_a_long_search_on_cpus_names_settings_that_halve_it() -> None:
    predicted = forecast()
    assert predicted.estimate(predicted.full()).total > 3600
    assert "tune.architectures=[cnn, resnet] (vgg19 takes 71%) halves it" in text(predicted)
    assert "tune.minutes=60 limits it" in text(predicted)


@pytest.mark.parametrize(
    "predicted",
    [replace(forecast(), on_gpus=True), forecast("tune.trials=1", "tune.seeds=1", "train.epochs=2")],
    ids=["on GPUs", "short"],
)
def test_a_short_search_and_one_on_gpus_get_no_advice(predicted: Forecast) -> None:
    assert "halves it" not in text(predicted)


def test_a_limit_shows_the_epochs_of_each_and_whether_it_can_be_kept() -> None:
    predicted = forecast("tune.minutes=100")
    printed = text(predicted, predicted.plan())
    assert "epochs: cnn 30, resnet 30, vgg19 " in printed
    assert "too short" not in printed
    slow = replace(forecast("tune.minutes=1"), costs={"cnn": Cost(1, 0.3), "vgg19": Cost(2, 0.3)})
    printed = text(slow, slow.plan())
    assert "vgg19 is left out: tune.minutes=1 is too short for 5 epochs; to train it anyway, name it in" in printed
    named = forecast("tune.minutes=0.5", "tune.architectures=[cnn, vgg19]")
    timing.check(named)  # the fastest alone could train for an epoch
    assert "tune.minutes=0.5 is too short for one epoch of cnn, resnet, vgg19" in text(named, named.plan())
    few = forecast("tune.minutes=5", "tune.architectures=[cnn, vgg19]")
    assert "vgg19: fewer epochs than tune.grace_epochs=5, too few to learn much" in text(few, few.plan())


@pytest.mark.parametrize("named", [(), ("tune.architectures=[cnn, resnet, vgg19]",)], ids=["any", "named"])
def test_too_few_minutes_for_any_network_are_refused_with_those_that_suffice(named: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"=0\.01 is too short for one epoch of cnn; give at least tune") as refusal:
        timing.check(forecast("tune.minutes=0.01", *named))
    (enough,) = re.findall(r"at least (tune\.minutes=[\d.]+), or leave it out", str(refusal.value))
    longer = forecast(enough, *named)
    timing.check(longer)
    plan = longer.plan()
    assert min(plan.epochs.values()) >= longer.fewest_epochs
    assert longer.estimate(plan).total <= 60 * longer.tune.minutes
    timing.check(forecast(*named))  # no limit


def test_architectures_that_are_left_out_for_one_reason_share_a_line() -> None:
    reasons = {"crnn": "too slow", "resnet": "no training step is possible (x)", "vgg19": "too slow"}
    assert timing.left_out(reasons) == [
        "crnn, vgg19 are left out: too slow",
        "resnet is left out: no training step is possible (x)",
    ]


def test_an_architecture_that_cannot_take_a_step_is_named() -> None:
    predicted = replace(forecast(), failures={"crnn": "no training step is possible (its process died)"})
    assert "crnn is left out: no training step is possible (its process died)" in text(predicted)


def test_core_hours_and_their_price_do_not_depend_on_how_many_run_at_a_time() -> None:
    plan, capacity = forecast().full(), Capacity(cpus=8, gpus=2)
    hours = forecast().training_seconds(plan) / 3600
    for concurrent in (1, 16):
        on_cpus = timing.costs_of(
            forecast(concurrent=concurrent), plan, TrialResources(2, 0, 1, "cpu", capacity), price=0.5
        )
        assert on_cpus == [
            f"{2 * hours:.2f} core-hours of training",
            f"price: {hours:.2f} at 0.5 a core-hour, without judging and the time in which machines boot",
        ]
    on_gpus = timing.costs_of(forecast(), plan, TrialResources(1, 0.25, 1, "cuda", capacity), price=None)
    assert on_gpus == [f"{hours:.2f} core-hours and {hours / 4:.2f} GPU-hours of training"]
