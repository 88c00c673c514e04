"""Scores, compared with scikit-learn's where that has them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from predicting import CLASSES, drawn_scores, predictions
from sklearn import metrics as reference

from genre.evaluation import bootstrap, metrics


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tracks", [3, 20, 500])
def test_scores_agree_with_scikit_learn(seed: int, tracks: int) -> None:
    truth, predicted = predictions(np.random.default_rng(seed), tracks)
    counts = metrics.confusion_counts(truth, predicted, CLASSES)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, reference.confusion_matrix(truth, predicted, labels=np.arange(CLASSES)))
    ours = metrics.scores(counts)
    every = reference.precision_recall_fscore_support(truth, predicted, labels=np.arange(CLASSES), zero_division=0)
    own = (ours.per_class.precision, ours.per_class.recall, ours.per_class.f1, ours.per_class.support)
    for values, expected in zip(own, every, strict=True):
        np.testing.assert_allclose(values, expected)
    macro = reference.precision_recall_fscore_support(
        truth, predicted, labels=np.unique(truth), average="macro", zero_division=0
    )
    np.testing.assert_allclose((ours.precision, ours.recall, ours.f1), macro[:3])
    assert ours.accuracy == pytest.approx(reference.accuracy_score(truth, predicted))


def test_counts_of_shards_add_up(rng: np.random.Generator) -> None:
    truth, predicted = predictions(rng)
    parts = [metrics.confusion_counts(truth[i::3], predicted[i::3], CLASSES) for i in range(3)]
    np.testing.assert_array_equal(sum(parts), metrics.confusion_counts(truth, predicted, CLASSES))


def test_scores_do_not_depend_on_the_order_of_tracks_or_classes(rng: np.random.Generator) -> None:
    truth, predicted = predictions(rng)
    expected = metrics.scores(metrics.confusion_counts(truth, predicted, CLASSES))
    order, names = rng.permutation(len(truth)), rng.permutation(CLASSES)
    shuffled = metrics.scores(metrics.confusion_counts(names[truth][order], names[predicted][order], CLASSES))
    for name in metrics.SCORES:
        assert getattr(shuffled, name) == pytest.approx(getattr(expected, name))
    np.testing.assert_allclose(shuffled.per_class.f1[names], expected.per_class.f1)


def test_a_perfect_prediction_scores_one_with_a_class_absent() -> None:
    truth = np.array([0, 0, 2, 2, 3])
    result = metrics.scores(metrics.confusion_counts(truth, truth, 5))
    assert [getattr(result, name) for name in metrics.SCORES] == [1, 1, 1, 1]
    assert result.per_class.support.tolist() == [2, 0, 2, 1, 0]
    assert bootstrap.interval(drawn_scores(truth, truth, 5)["f1"], 1.0) == (1, 1)


def test_a_class_without_support_is_left_out_of_macro_means_but_its_false_alarms_count() -> None:
    result = metrics.scores(metrics.confusion_counts([0, 0, 1, 1], [0, 2, 1, 1], 3))
    assert result.recall == pytest.approx(0.75)
    assert result.precision == 1
    assert result.f1 == pytest.approx((2 / 3 + 1) / 2)


def test_precision_of_a_class_never_predicted_is_zero() -> None:
    assert metrics.scores(metrics.confusion_counts([0, 1], [0, 0], 2)).per_class.precision.tolist() == [0.5, 0]


def test_no_tracks_score_zero() -> None:
    empty = np.array([], dtype=int)
    result = metrics.scores(metrics.confusion_counts(empty, empty, 3))
    assert [getattr(result, name) for name in metrics.SCORES] == [0, 0, 0, 0]
    assert bootstrap.interval(drawn_scores(empty, empty, 3)["f1"], 0.0) == (0, 0)
    assert metrics.expected_calibration_error(empty, np.zeros((0, 3))) == 0


@pytest.mark.parametrize(
    ("truth", "predicted"), [([0, 3], [0, 0]), ([0, -1], [0, 0]), ([0, 1], [0]), ([0.5], [0]), ([[0]], [[0]])]
)
def test_labels_that_do_not_fit_are_refused(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> None:
    with pytest.raises(ValueError, match=r"labels|shape"):
        metrics.confusion_counts(truth, predicted, 3)


def test_a_tie_goes_to_the_lower_class() -> None:
    assert metrics.decisions([[0.4, 0.4, 0.2], [0.0, 0.5, 0.5]]).tolist() == [0, 1]


def test_calibration_error_of_known_bins() -> None:
    certain = np.tile([1.0, 0.0], (10, 1))
    assert metrics.expected_calibration_error(np.zeros(10, int), certain) == 0
    assert metrics.expected_calibration_error(np.ones(10, int), certain) == 1
    # Two bins: confidence 0.9 and 3 of 4 correct, confidence 0.6 and 1 of 2 correct.
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 2)
    error = metrics.expected_calibration_error([0, 0, 0, 1, 0, 1], probabilities, bins=10)
    assert error == pytest.approx((4 * 0.15 + 2 * 0.1) / 6)


def test_calibrated_probabilities_have_a_small_error_and_sharpened_ones_a_large_one(rng: np.random.Generator) -> None:
    probabilities = rng.dirichlet(np.ones(4), 20000)
    truth = (rng.random(20000)[:, None] > probabilities.cumsum(axis=1)).sum(axis=1).clip(max=3)
    sharp = probabilities**4 / (probabilities**4).sum(axis=1, keepdims=True)
    assert metrics.expected_calibration_error(truth, probabilities) < 0.015
    assert metrics.expected_calibration_error(truth, sharp) > 0.15
