"""What a search says before it starts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_budget import COSTS, forecast

from genre.training.costs import Cost
from ray_jobs.search import planning


def text(made, plan=None) -> str:
    return "\n".join(planning.lines(made, plan or made.full()))


def test_it_says_what_is_trained_and_how_long_each_part_takes():
    said = text(forecast())
    assert "8 trials of each of 3 architectures, the best with 3 seeds, 2 trainings at a time" in said
    assert "epochs: 30 each; share of the time: cnn 5%, resnet 24%, vgg19 71%" in said
    assert all(part in said for part in ("about ", "search ", "final trainings ", "judging "))


def test_a_long_search_on_cpus_names_what_would_halve_it():
    made = forecast()
    assert made.estimate(made.full()).total > 3600
    assert "tune.architectures=[cnn, resnet] (vgg19 takes 71%) halves it" in text(made)
    assert "tune.minutes=60 limits it" in text(made)


@pytest.mark.parametrize(
    "quiet", [{"tune__gpus_per_trial": 0.25}, {"tune__trials": 1, "tune__seeds": 1, "train__epochs": 2}]
)
def test_a_short_search_and_one_on_gpus_need_no_advice(quiet):
    assert "halves it" not in text(forecast(**quiet))


def test_a_limit_shows_the_epochs_of_each_and_whether_it_can_be_kept():
    made = forecast(tune__minutes=100)
    said = text(made, made.fit(6000))
    assert "epochs: cnn 30, resnet 30, vgg19 " in said
    assert "too short" not in said
    slow = replace(forecast(tune__minutes=1), costs=dict.fromkeys(COSTS, Cost(1, 0.3)))
    assert "tune.minutes=1 is too short for one epoch of each" in text(slow, slow.fit(60))
