from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from genre.evaluation import metrics

CLASSES = 6


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def answers(rng, tracks=200, skill=0.6, classes=CLASSES, truth=None):
    truth = rng.integers(0, classes, tracks) if truth is None else truth
    guess = rng.integers(0, classes, len(truth))
    return truth, np.where(rng.random(len(truth)) < skill, truth, guess)


def interval_of(truth, predicted, classes=CLASSES, score="f1"):
    """As a leaderboard's row has it."""
    drawn = metrics.bootstrap_scores(truth, predicted, classes)[score]
    return metrics.interval(drawn, metrics.mean_scores(truth, predicted, classes)[score])


def p_value(truth, first, second, draws=2000):
    """Of no difference in macro F1 on the same resampled tracks."""
    one, other = (metrics.bootstrap_scores(truth, answer, CLASSES, draws=draws)["f1"] for answer in (first, second))
    return metrics.p_value_of_no_difference(one - other)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tracks", [3, 20, 500])
def test_scores_agree_with_scikit_learn(seed, tracks):
    truth, predicted = answers(np.random.default_rng(seed), tracks)
    counts = metrics.confusion_counts(truth, predicted, CLASSES)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, reference.confusion_matrix(truth, predicted, labels=np.arange(CLASSES)))
    ours = metrics.scores(counts)
    every = reference.precision_recall_fscore_support(truth, predicted, labels=np.arange(CLASSES), zero_division=0)
    for mine, theirs in zip(
        (ours.per_class.precision, ours.per_class.recall, ours.per_class.f1, ours.per_class.support), every, strict=True
    ):
        np.testing.assert_allclose(mine, theirs)
    macro = reference.precision_recall_fscore_support(
        truth, predicted, labels=np.unique(truth), average="macro", zero_division=0
    )
    np.testing.assert_allclose((ours.precision, ours.recall, ours.f1), macro[:3])
    assert ours.accuracy == pytest.approx(reference.accuracy_score(truth, predicted))


def test_counts_of_shards_add_up(rng):
    truth, predicted = answers(rng)
    parts = [metrics.confusion_counts(truth[i::3], predicted[i::3], CLASSES) for i in range(3)]
    np.testing.assert_array_equal(sum(parts), metrics.confusion_counts(truth, predicted, CLASSES))


def test_scores_do_not_depend_on_the_order_of_tracks_or_classes(rng):
    truth, predicted = answers(rng)
    expected = metrics.scores(metrics.confusion_counts(truth, predicted, CLASSES))
    order, names = rng.permutation(len(truth)), rng.permutation(CLASSES)
    shuffled = metrics.scores(metrics.confusion_counts(names[truth][order], names[predicted][order], CLASSES))
    for name in metrics.SCORES:
        assert getattr(shuffled, name) == pytest.approx(getattr(expected, name))
    np.testing.assert_allclose(shuffled.per_class.f1[names], expected.per_class.f1)


def test_a_perfect_answer_scores_one_with_a_class_absent():
    truth = np.array([0, 0, 2, 2, 3])
    result = metrics.scores(metrics.confusion_counts(truth, truth, 5))
    assert [getattr(result, name) for name in metrics.SCORES] == [1, 1, 1, 1]
    assert result.per_class.support.tolist() == [2, 0, 2, 1, 0]
    assert interval_of(truth, truth, 5) == (1, 1)


def test_a_class_without_support_is_left_out_of_macro_means_but_its_false_alarms_count():
    result = metrics.scores(metrics.confusion_counts([0, 0, 1, 1], [0, 2, 1, 1], 3))
    assert result.recall == pytest.approx(0.75)
    assert result.precision == 1
    assert result.f1 == pytest.approx((2 / 3 + 1) / 2)


def test_precision_of_a_class_never_predicted_is_zero():
    assert metrics.scores(metrics.confusion_counts([0, 1], [0, 0], 2)).per_class.precision.tolist() == [0.5, 0]


def test_no_tracks_score_zero():
    empty = np.array([], dtype=int)
    result = metrics.scores(metrics.confusion_counts(empty, empty, 3))
    assert [getattr(result, name) for name in metrics.SCORES] == [0, 0, 0, 0]
    assert interval_of(empty, empty, 3) == (0, 0)
    assert metrics.expected_calibration_error(empty, np.zeros((0, 3))) == 0


@pytest.mark.parametrize(
    ("truth", "predicted"), [([0, 3], [0, 0]), ([0, -1], [0, 0]), ([0, 1], [0]), ([0.5], [0]), ([[0]], [[0]])]
)
def test_labels_that_do_not_fit_are_refused(truth, predicted):
    with pytest.raises(ValueError, match=r"labels|shape"):
        metrics.confusion_counts(truth, predicted, 3)


def test_a_tie_goes_to_the_lower_class():
    assert metrics.decisions([[0.4, 0.4, 0.2], [0.0, 0.5, 0.5]]).tolist() == [0, 1]


def test_bootstrap_scores_equal_scores_of_the_resampled_tracks(rng):
    truth, predicted = answers(rng, 40)
    drawn = metrics.bootstrap_scores(truth, predicted, CLASSES, draws=5, seed=3)
    counts = np.random.default_rng(3).multinomial(40, np.full(40, 1 / 40), size=5)
    for index, times in enumerate(counts):
        again = metrics.scores(metrics.confusion_counts(np.repeat(truth, times), np.repeat(predicted, times), CLASSES))
        for name in metrics.SCORES:
            assert drawn[name][index] == pytest.approx(getattr(again, name))


def test_intervals_hold_the_score_are_repeatable_and_narrow_with_more_tracks(rng):
    truth, predicted = answers(rng, 800)
    low, high = interval_of(truth[:100], predicted[:100])
    few = metrics.mean_scores(truth[:100], predicted[:100], CLASSES)["f1"]
    assert low < few < high
    assert interval_of(truth[:100], predicted[:100]) == (low, high)
    more = interval_of(truth, predicted)
    assert more[1] - more[0] < 0.6 * (high - low)


def test_interval_of_accuracy_is_close_to_the_binomial_one(rng):
    truth, predicted = answers(rng, 400)
    low, high = interval_of(truth, predicted, score="accuracy")
    right = int((truth == predicted).sum())
    exact = stats.binomtest(right, 400).proportion_ci(method="wilson")
    assert (low, high) == (pytest.approx(exact.low, abs=0.01), pytest.approx(exact.high, abs=0.01))


def test_the_interval_is_corrected_for_bias():
    drawn = np.linspace(0, 1, 1001)
    assert metrics.interval(drawn, 0.5) == (pytest.approx(0.025, abs=0.002), pytest.approx(0.975, abs=0.002))
    low, high = metrics.interval(drawn, 0.7)
    assert low > 0.1
    assert high > 0.99


def test_blocks_of_draws_change_nothing(rng, monkeypatch):
    truth, predicted = answers(rng, 50)
    whole = metrics.bootstrap_scores(truth, predicted, CLASSES, draws=20)
    monkeypatch.setattr(metrics, "_BLOCK", 50 * 7)
    np.testing.assert_array_equal(metrics.bootstrap_scores(truth, predicted, CLASSES, draws=20)["f1"], whole["f1"])


def test_whole_groups_are_drawn_together(rng):
    truth, predicted = answers(rng, 60)
    copies = [np.repeat(labels, 5) for labels in (truth, predicted)]
    groups = np.repeat([f"artist {i}" for i in range(60)], 5)
    by_group = metrics.bootstrap_scores(*copies, CLASSES, groups=groups)["f1"].std()
    by_track = metrics.bootstrap_scores(*copies, CLASSES)["f1"].std()
    assert by_group == pytest.approx(metrics.bootstrap_scores(truth, predicted, CLASSES)["f1"].std(), rel=0.1)
    assert by_track < 0.6 * by_group
    with pytest.raises(ValueError, match="groups"):
        metrics.bootstrap_scores(truth, predicted, CLASSES, groups=groups)


def test_several_seeds_are_averaged_on_the_same_resampled_tracks(rng):
    truth, first = answers(rng)
    second = answers(rng, truth=truth)[1]
    together = metrics.bootstrap_scores(truth, np.stack([first, second]), CLASSES, draws=30)["f1"]
    apart = [metrics.bootstrap_scores(truth, run, CLASSES, draws=30)["f1"] for run in (first, second)]
    np.testing.assert_allclose(together, np.mean(apart, axis=0))


def test_paired_draws_tell_a_better_model_apart_and_not_a_copy(rng):
    truth, good = answers(rng, skill=0.8)
    poor = answers(rng, skill=0.4, truth=truth)[1]
    assert p_value(truth, good, poor) < 0.01
    assert p_value(truth, poor, good) == p_value(truth, good, poor)
    assert p_value(truth, good, good) == 1


def test_paired_draws_keep_their_level(rng):
    """Of pairs of equally good models on the same 60 tracks about one in twenty is told apart."""
    truth = np.repeat(np.arange(CLASSES), 10)
    hard = rng.random(len(truth))

    def model():
        right = hard + 0.5 * rng.random(len(truth)) < 0.85
        return np.where(right, truth, rng.integers(0, CLASSES, len(truth)))

    p_values = [p_value(truth, model(), model(), draws=400) for _ in range(300)]
    assert np.mean(np.array(p_values) < 0.05) < 0.1


def test_holm_steps_down():
    np.testing.assert_allclose(metrics.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(metrics.holm([0.6, 0.9]), [1, 1])
    assert metrics.holm([]).shape == (0,)


def test_calibration_error_of_known_bins():
    sure_and_right = np.tile([1.0, 0.0], (10, 1))
    assert metrics.expected_calibration_error(np.zeros(10, int), sure_and_right) == 0
    assert metrics.expected_calibration_error(np.ones(10, int), sure_and_right) == 1
    # Two bins: 0.9 sure and 3 of 4 right, 0.6 sure and 1 of 2 right.
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 2)
    found = metrics.expected_calibration_error([0, 0, 0, 1, 0, 1], probabilities, bins=10)
    assert found == pytest.approx((4 * 0.15 + 2 * 0.1) / 6)


def test_calibrated_answers_have_a_small_error_and_sharpened_ones_a_large_one(rng):
    probabilities = rng.dirichlet(np.ones(4), 20000)
    truth = (rng.random(20000)[:, None] > probabilities.cumsum(axis=1)).sum(axis=1).clip(max=3)
    sharp = probabilities**4 / (probabilities**4).sum(axis=1, keepdims=True)
    assert metrics.expected_calibration_error(truth, probabilities) < 0.015
    assert metrics.expected_calibration_error(truth, sharp) > 0.15
