"""Intervals and p-values by the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from predicting import CLASSES, drawn_scores, predictions
from scipy import stats

from genre.arrays import Ints
from genre.evaluation import bootstrap, metrics


def interval_of(truth: Ints, predicted: Ints, score: str = "f1") -> tuple[float, float]:
    """Return the interval of a score as a row of a leaderboard has it."""
    drawn = drawn_scores(truth, predicted)[score]
    return bootstrap.interval(drawn, metrics.mean_scores(truth, predicted, CLASSES)[score])


def p_value(truth: Ints, first: Ints, second: Ints, draws: int = 2000) -> float:
    """Return the p-value of no difference in macro F1 on the same resampled tracks."""
    drawn = [drawn_scores(truth, each, draws=draws)["f1"] for each in (first, second)]
    return bootstrap.p_value_of_no_difference(drawn[0] - drawn[1])


def equal_models(rng: np.random.Generator, models: int) -> tuple[Ints, dict[str, Ints]]:
    """Return 60 tracks, and answers of models that are equally often right, mostly on the same tracks."""
    truth = np.repeat(np.arange(CLASSES), 10)
    hard = rng.random(len(truth))

    def model() -> Ints:
        right = hard + 0.5 * rng.random(len(truth)) < 0.85
        return np.where(right, truth, rng.integers(0, CLASSES, len(truth)))

    return truth, {f"model {number}": model() for number in range(models)}


def test_bootstrap_scores_equal_scores_of_the_resampled_tracks(rng: np.random.Generator) -> None:
    truth, predicted = predictions(rng, 40)
    drawn = drawn_scores(truth, predicted, draws=5, seed=3)
    counts = np.random.default_rng(3).multinomial(40, np.full(40, 1 / 40), size=5)
    for index, times in enumerate(counts):
        again = metrics.scores(metrics.confusion_counts(np.repeat(truth, times), np.repeat(predicted, times), CLASSES))
        for name in metrics.SCORES:
            assert drawn[name][index] == pytest.approx(getattr(again, name))


def test_intervals_contain_the_score_are_repeatable_and_shrink_with_more_tracks(rng: np.random.Generator) -> None:
    truth, predicted = predictions(rng, 800)
    low, high = interval_of(truth[:100], predicted[:100])
    few = metrics.mean_scores(truth[:100], predicted[:100], CLASSES)["f1"]
    assert low < few < high
    assert interval_of(truth[:100], predicted[:100]) == (low, high)
    more = interval_of(truth, predicted)
    assert more[1] - more[0] < 0.6 * (high - low)


def test_interval_of_accuracy_is_close_to_the_binomial_one(rng: np.random.Generator) -> None:
    truth, predicted = predictions(rng, 400)
    low, high = interval_of(truth, predicted, score="accuracy")
    right = int((truth == predicted).sum())
    exact = stats.binomtest(right, 400).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=0.01)


def test_the_interval_is_corrected_for_bias() -> None:
    drawn = np.linspace(0, 1, 1001)
    assert bootstrap.interval(drawn, 0.5) == pytest.approx((0.025, 0.975), abs=0.002)
    low, high = bootstrap.interval(drawn, 0.7)
    assert low > 0.1
    assert high > 0.99


def test_blocks_of_draws_change_nothing(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, predicted = predictions(rng, 50)
    expected = drawn_scores(truth, predicted, draws=20)
    monkeypatch.setattr(bootstrap, "_BLOCK", 50 * 7)
    np.testing.assert_array_equal(drawn_scores(truth, predicted, draws=20)["f1"], expected["f1"])


def test_the_tracks_of_a_group_are_drawn_together(rng: np.random.Generator) -> None:
    truth, predicted = predictions(rng, 60)
    copies = np.repeat(truth, 5), np.repeat(predicted, 5)
    groups = np.repeat([f"artist {i}" for i in range(60)], 5)
    by_group = drawn_scores(*copies, groups=groups)["f1"].std()
    by_track = drawn_scores(*copies)["f1"].std()
    assert by_group == pytest.approx(drawn_scores(truth, predicted)["f1"].std(), rel=0.1)
    assert by_track < 0.6 * by_group
    with pytest.raises(ValueError, match="groups"):
        drawn_scores(truth, predicted, groups=groups)


def test_several_seeds_are_averaged_on_the_same_resampled_tracks(rng: np.random.Generator) -> None:
    truth, first = predictions(rng)
    second = predictions(rng, truth=truth)[1]
    both = drawn_scores(truth, np.stack([first, second]), draws=30)["f1"]
    single = [drawn_scores(truth, run, draws=30)["f1"] for run in (first, second)]
    np.testing.assert_allclose(both, np.mean(single, axis=0))


def test_models_scored_together_are_scored_as_if_alone(rng: np.random.Generator) -> None:
    truth, first = predictions(rng)
    seeds = np.stack([predictions(rng, truth=truth)[1] for _ in range(3)])
    together = bootstrap.bootstrap_scores(truth, {"first": first, "seeds": seeds}, CLASSES, draws=30)
    for name, predicted in (("first", first), ("seeds", seeds)):
        for score, drawn in drawn_scores(truth, predicted, draws=30).items():
            np.testing.assert_array_equal(together[name][score], drawn)


def test_paired_draws_distinguish_a_better_model_and_not_a_copy(rng: np.random.Generator) -> None:
    truth, good = predictions(rng, skill=0.8)
    poor = predictions(rng, skill=0.4, truth=truth)[1]
    assert p_value(truth, good, poor) < 0.01
    assert p_value(truth, poor, good) == p_value(truth, good, poor)
    assert p_value(truth, good, good) == 1


def test_paired_draws_keep_their_level(rng: np.random.Generator) -> None:
    """About one in twenty pairs of equally good models on the same 60 tracks differs significantly."""
    p_values = []
    for _ in range(300):
        truth, predicted = equal_models(rng, 2)
        p_values.append(p_value(truth, predicted["model 0"], predicted["model 1"], draws=400))
    assert np.mean(np.array(p_values) < 0.05) < 0.1


def test_max_t_of_two_models_is_the_studentised_test_of_one_pair(rng: np.random.Generator) -> None:
    drawn = rng.normal([[0.0], [1.5]], size=(2, 4000))
    difference = drawn[0] - drawn[1]
    expected = np.mean(np.abs(difference - difference.mean()) >= abs(difference.mean()))
    assert bootstrap.max_t(drawn) == pytest.approx(np.array([[1, expected], [expected, 1]]), abs=1e-3)


def test_max_t_is_symmetric_and_never_below_the_test_of_the_pair_alone(rng: np.random.Generator) -> None:
    drawn = rng.normal(size=(5, 500)) + np.arange(5)[:, None] * 0.7
    together = bootstrap.max_t(drawn)
    np.testing.assert_array_equal(together, together.T)
    for first in range(5):
        for second in range(first):
            assert together[first, second] >= bootstrap.max_t(drawn[[first, second]])[0, 1]
    order = [3, 0, 4, 2, 1]
    np.testing.assert_allclose(bootstrap.max_t(drawn[order]), together[np.ix_(order, order)])


def test_max_t_distinguishes_no_copy_and_any_constant_difference() -> None:
    same = np.tile(np.linspace(0, 1, 100), (3, 1))
    np.testing.assert_array_equal(bootstrap.max_t(same), np.ones((3, 3)))
    assert bootstrap.max_t(same + np.array([[0.0], [0.0], [0.1]]))[0, 2] == pytest.approx(1 / 101)
    assert bootstrap.max_t(same[:1]).tolist() == [[1.0]]


def test_max_t_separates_equal_models_in_one_of_twenty_corpora_at_most(rng: np.random.Generator) -> None:
    """The best of six equally good models differs from any other in at most 5 % of corpora, though it was chosen."""
    separated = 0
    for _ in range(200):
        truth, predicted = equal_models(rng, 6)
        drawn = bootstrap.bootstrap_scores(truth, predicted, CLASSES, draws=300)
        separated += bool((bootstrap.max_t([scores["f1"] for scores in drawn.values()]) < 0.05).any())
    assert separated <= stats.binom.ppf(0.999, 200, 0.05)
