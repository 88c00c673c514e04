"""The arithmetic of plans within a limit of time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from genre.config import load
from genre.features import Shape
from genre.training import costs
from genre.training.costs import Cost, Workload
from ray_jobs.search.budget import Forecast, seeds_within
from ray_jobs.search.plan import Plan

# clips of a minute and a half, so that one epoch is twelve windows
WORKLOAD = Workload(
    train=400,
    valid=100,
    test=150,
    shape=Shape(64, 3876, 80.0, 512 / 22050),
    classes=10,
    test_tracks=150,
    train_tracks=400,
)
COSTS = {"cnn": Cost(0.002, 0.0007), "resnet": Cost(0.01, 0.003), "vgg19": Cost(0.03, 0.01)}


def forecast(*settings: str, concurrent: int = 2) -> Forecast:
    """Return the forecast of a search with these settings."""
    config = load(overrides=settings)
    return Forecast(config.train, config.tune, WORKLOAD, COSTS, concurrent)


@pytest.mark.parametrize("minutes", [3, 10, 30, 100, 300])
@pytest.mark.parametrize("concurrent", [1, 2, 16])
def test_a_plan_fits_into_the_minutes_and_uses_them(minutes: int, concurrent: int) -> None:
    predicted = forecast(concurrent=concurrent)
    plan = predicted.fit(60 * minutes)
    expected = predicted.estimate(plan).total
    assert expected <= 60 * minutes or replace(plan, minutes=0) == Plan({"cnn": 1}, 1, 1)
    is_full = replace(plan, minutes=0) == predicted.full()
    assert is_full or max(plan.epochs.values()) < 30 or expected >= 60 * minutes * 0.7


def test_each_architecture_gets_an_equal_share_of_a_tight_time() -> None:
    predicted = forecast(f"tune.architectures=[{', '.join(COSTS)}]")
    plan = predicted.fit(20 * 60)
    shares = [predicted.shares(plan)[name] for name, epochs in plan.epochs.items() if epochs < 30]
    assert len(shares) > 1
    assert max(shares) <= 1.5 * min(shares)  # an epoch of the slowest is a third of its share
    assert plan.epochs["cnn"] >= plan.epochs["resnet"] >= plan.epochs["vgg19"]


def test_a_sample_shortens_the_search_and_every_seed_is_trained_again() -> None:
    whole, sample = forecast(), forecast("tune.sample=0.25")
    plan = whole.full()
    expected, found = whole.estimate(plan), sample.estimate(plan)
    assert 0.2 < found.search / expected.search < 0.3
    assert found.finals == pytest.approx(expected.finals * plan.seeds / (plan.seeds - 1), rel=0.05)
    assert sample.estimate(replace(plan, seeds=1)).finals > 0


def test_the_configured_settings_cost_the_final_trainings_again_except_after_a_single_trial() -> None:
    predicted = forecast("tune.defaults=true")
    plan = predicted.full()
    both, winners = predicted.estimate(plan), predicted.estimate(replace(plan, defaults=False))
    assert both.search == winners.search
    assert both.finals == pytest.approx(2 * winners.finals, rel=0.1)
    assert both.judging > winners.judging
    assert both.robustness == winners.robustness  # they are not scored on changed audio
    one = replace(plan, trials=1)
    assert predicted.estimate(one) == predicted.estimate(replace(one, defaults=False))
    limited = predicted.fit(60 * 100)
    assert limited.defaults
    assert predicted.estimate(limited).total <= 60 * 100


def test_folds_multiply_the_trials_that_survive_and_every_seed_is_trained() -> None:
    one, five = forecast("tune.trials=1"), forecast("tune.trials=1", "tune.folds=5")
    plan = replace(one.full(), epochs={"cnn": 30})
    assert five.searched.train + five.searched.valid == WORKLOAD.train + WORKLOAD.valid
    assert five.estimate(plan).search == pytest.approx(5 * one.estimate(plan).search, rel=0.1)
    assert five.estimate(replace(plan, seeds=1)).finals > 0
    # three trainings, not two, on 500 clips, not 400, but without validation
    assert 3 / 2 < five.estimate(plan).finals / one.estimate(plan).finals < 3 / 2 * 500 / 400
    pruned, all_complete = (
        forecast("tune.trials=9", "tune.folds=5"),
        forecast("tune.trials=9", "tune.folds=5", "tune.grace_epochs=30"),
    )
    many = replace(plan, trials=9)
    assert pruned.estimate(many).search < 0.7 * all_complete.estimate(many).search
    limited = forecast("tune.folds=5").fit(60 * 100)
    assert forecast("tune.folds=5").estimate(limited).total <= 60 * 100


def test_more_time_never_shortens_a_training() -> None:
    predicted = forecast()
    plans = [predicted.fit(60 * minutes) for minutes in (5, 10, 20, 40, 80, 160, 10_000)]
    for shorter, longer in pairwise(plans):
        if (shorter.trials, shorter.seeds, *shorter.epochs) == (longer.trials, longer.seeds, *longer.epochs):
            assert all(shorter.epochs[name] <= epochs for name, epochs in longer.epochs.items())
        assert shorter.epochs.keys() <= longer.epochs.keys()
        assert shorter.trials <= longer.trials
    assert replace(plans[-1], minutes=0) == predicted.full()


def test_trials_are_dropped_before_a_training_gets_shorter_than_a_third() -> None:
    predicted = forecast()
    plan = predicted.fit(100 * 60)
    assert plan.trials < predicted.full().trials
    assert min(plan.epochs.values()) >= 10


def test_too_little_time_leaves_one_epoch_of_the_fastest_or_of_those_that_are_named() -> None:
    assert replace(forecast().fit(1), minutes=0) == Plan({"cnn": 1}, trials=1, seeds=1)
    named = forecast(f"tune.architectures=[{', '.join(COSTS)}]").fit(1)
    assert replace(named, minutes=0) == Plan(dict.fromkeys(COSTS, 1), trials=1, seeds=1)


@pytest.mark.parametrize("minutes", [2, 3, 5, 8, 13, 60])
def test_an_architecture_trains_for_the_grace_epochs_or_is_left_out(minutes: int) -> None:
    predicted = forecast(f"tune.minutes={minutes}")
    plan = predicted.plan()
    assert min(plan.epochs.values()) >= 5
    assert predicted.left_out(plan).keys() == COSTS.keys() - plan.epochs.keys()
    slower = replace(plan, epochs=plan.epochs | dict.fromkeys(predicted.left_out(plan), 5))
    assert slower == plan or predicted.estimate(slower).total > 60 * minutes * 0.9


def test_early_stopping_saves_time_except_for_a_single_trial() -> None:
    predicted = forecast("tune.trials=9")
    plan = predicted.full()
    assert predicted.estimate(plan).search < 0.6 * 9 * predicted.estimate(replace(plan, trials=1)).search
    without = forecast("tune.trials=9", "tune.grace_epochs=30")
    assert without.estimate(plan).search > 1.5 * predicted.estimate(plan).search


def test_settings_that_are_said_to_halve_the_search_do() -> None:
    predicted = forecast()
    plan = predicted.full()
    advice = predicted.halving(plan)
    assert any(text.startswith("tune.trials=4") or "vgg19" in text for text in advice)
    halved = forecast("tune.trials=4")
    if "tune.trials=4" in advice:
        assert halved.estimate(halved.full()).total <= 0.55 * predicted.estimate(plan).total


def test_judging_changes_the_audio_of_a_sample() -> None:
    def judging(*settings: str) -> float:
        predicted = forecast(*settings)
        return predicted.estimate(predicted.full()).judging

    none, complete = judging("tune.robustness=false"), judging("tune.robustness_tracks=0")
    assert judging("tune.robustness_tracks=15") - none == pytest.approx((complete - none) / 10)
    assert judging("tune.robustness_tracks=150") == judging("tune.robustness_tracks=1000") == complete


def test_judging_embeds_the_training_tracks_or_a_sample_of_them_and_reads_all_clips() -> None:
    def judging(tracks: int, *settings: str) -> float:
        predicted = replace(
            forecast("tune.robustness=false", *settings), workload=replace(WORKLOAD, train=tracks, train_tracks=tracks)
        )
        return predicted.estimate(predicted.full()).judging

    def embedding(clips: int) -> float:
        return costs.predict_seconds(load().train, WORKLOAD, clips, COSTS["vgg19"]) / 2  # two processes

    reading = 2 * 1000 * 64 * 3876 / 1e9 * 0.15 / 2  # of a thousand clips, for the scores and for the neighbours
    assert judging(2000) - judging(1000) == pytest.approx(embedding(1000) + reading)
    assert judging(1_000_000) - judging(20_000) == pytest.approx(980 * reading)
    assert judging(2000, "tune.folds=5") - judging(2000) == pytest.approx(embedding(WORKLOAD.valid))
    assert judging(30_000, "tune.folds=5") == pytest.approx(judging(30_000))


@pytest.mark.parametrize("minutes", [1, 5, 20])
def test_robustness_takes_at_most_a_fifth_of_the_time_or_a_track_of_each_genre(minutes: int) -> None:
    predicted = forecast(f"tune.minutes={minutes}")
    plan = predicted.plan()
    tracks, seconds = predicted.robustness_tracks(plan), predicted.estimate(plan).robustness
    assert WORKLOAD.classes <= tracks <= WORKLOAD.test_tracks
    assert seconds <= 0.2 * 60 * minutes or tracks == WORKLOAD.classes


@pytest.mark.parametrize(
    ("seconds", "remaining", "seeds"),
    [
        (1000, (0, 0), 4),
        (90, (0, 0), 4),
        (89, (0, 0), 3),
        (40, (0, 0), 2),
        (39, (0, 0), 1),
        (-5, (0, 0), 1),
        (90, (10, 20), 3),
        (20, (10, 20), 1),
        (19, (10, 20), 0),
    ],
)
def test_seeds_are_as_many_as_the_time_allows(seconds: float, remaining: tuple[float, float], seeds: int) -> None:
    # two winners, 20 and 40 s a training, two at a time: a round takes 30 s on average, but no less than 40 s
    assert seeds_within(seconds, 4, 2, trainings=(20, 40), remaining=remaining) == seeds
