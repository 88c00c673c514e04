"""The classical baseline: the exact machine, and the approximation of large corpora."""

from __future__ import annotations

import numpy as np
import pytest
from making import make_clips
from sklearn.metrics import f1_score

from genre.evaluation import baseline, track_statistics
from genre.evaluation.baseline import Baseline, LabelledStatistics


def split(tracks: int, classes: int, seed: int = 0) -> LabelledStatistics:
    clips = make_clips(tracks, classes, seed=seed)
    return LabelledStatistics(track_statistics.of_clips(clips), clips.labels)


def rings(tracks: int, seed: int) -> LabelledStatistics:
    """Return three classes that no linear machine separates: balls of different radius."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, tracks)
    points = rng.standard_normal((tracks, 8))
    points *= ((labels + 0.6) / np.linalg.norm(points, axis=1))[:, None]
    return LabelledStatistics(points.astype(np.float32), labels)


def fit(classes: int, tracks: int = 24, class_weights: bool = False, known: int = 0) -> Baseline:
    return baseline.fit(split(tracks, classes), split(12, classes, seed=1), known or classes, class_weights)


@pytest.fixture(params=["exact", "nystroem"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Fit small corpora with either machine."""
    if request.param == "nystroem":
        monkeypatch.setattr(baseline, "EXACT_TRACKS", 0)
        monkeypatch.setattr(baseline, "_COMPONENTS", 20)
        monkeypatch.setattr(baseline, "_BATCH", 7)
    return str(request.param)


@pytest.mark.parametrize("classes", [2, 3])
def test_it_learns(classes: int, kind: str) -> None:
    fitted = fit(classes, tracks=60)
    test = split(30, classes, seed=2)
    probabilities = fitted.predict(test.statistics)
    assert (probabilities.argmax(axis=1) == test.labels).mean() > 0.9
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert fitted.valid_f1 > 0.9
    assert fitted.settings["svm.C"] in baseline._PENALTIES
    assert fitted.train_seconds > 0
    assert fitted.name == ("statistics + svm" if kind == "exact" else "statistics + nystroem svm")


def test_a_class_without_training_tracks_has_probability_zero(kind: str) -> None:
    probabilities = fit(2, known=4).predict(split(6, 2, seed=2).statistics)
    assert probabilities.shape == (6, 4)
    assert (probabilities[:, 2:] == 0).all()


def test_it_is_repeatable(kind: str) -> None:
    first, second = fit(3), fit(3)
    test = split(9, 3, seed=2).statistics
    assert np.array_equal(first.predict(test), second.predict(test))


@pytest.mark.parametrize("class_weights", [False, True])
def test_classes_are_weighted_as_for_the_networks(class_weights: bool) -> None:
    machine = fit(2, class_weights=class_weights).machine
    assert machine[-1].class_weight == ("balanced" if class_weights else None)  # type: ignore[index]


def test_the_approximation_is_about_as_good_as_the_exact_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    train, valid = rings(600, seed=0), rings(300, seed=1)
    exact = baseline.fit(train, valid, 3, class_weights=False)
    monkeypatch.setattr(baseline, "EXACT_TRACKS", 599)
    monkeypatch.setattr(baseline, "_COMPONENTS", 200)
    approximate = baseline.fit(train, valid, 3, class_weights=False)
    assert exact.valid_f1 > 0.8
    assert approximate.valid_f1 > exact.valid_f1 - 0.03


def test_over_folds_it_learns_all_tracks_with_the_penalty_that_is_best_on_average(kind: str) -> None:
    tracks = rings(90, seed=0)
    fold = np.arange(90) % 3 + 1
    fitted = baseline.fit_over_folds(tracks, fold, 3, class_weights=False)
    means = {}
    for penalty in baseline._PENALTIES:
        scores = []
        for number in (1, 2, 3):
            (machine,) = baseline._machines_for(tracks)(tracks.take(fold != number), False, [penalty])
            held_out = tracks.take(fold == number)
            scores.append(f1_score(held_out.labels, machine.predict(held_out.statistics), average="macro"))
        means[penalty] = np.mean(scores)
    assert fitted.settings["svm.C"] == max(means, key=lambda penalty: means[penalty])
    assert fitted.valid_f1 == pytest.approx(max(means.values()))
    assert len(set(means.values())) > 1
    (machine,) = baseline._machines_for(tracks)(tracks, False, [fitted.settings["svm.C"]])
    test = rings(30, seed=1).statistics
    np.testing.assert_array_equal(fitted.machine.decision_function(test), machine.decision_function(test))


def test_the_machine_of_a_fold_depends_on_the_other_folds_alone(kind: str) -> None:
    tracks, fold = rings(120, seed=0), np.arange(120) % 4 + 1
    fitted = baseline.fit_for_fold(tracks, fold, 2, 3, class_weights=False)
    others = fold != 2
    expected = baseline.fit_over_folds(tracks.take(others), np.isin(fold[others], (3,)) * 1, 3, class_weights=False)
    assert fitted.settings == expected.settings
    test = rings(30, seed=1).statistics
    np.testing.assert_array_equal(fitted.predict(test), expected.predict(test))
    wrong = LabelledStatistics(
        np.where(others[:, None], tracks.statistics, 9), np.where(others, tracks.labels, (tracks.labels + 1) % 3)
    )
    again = baseline.fit_for_fold(wrong, fold, 2, 3, class_weights=False)
    np.testing.assert_array_equal(again.predict(test), fitted.predict(test))


@pytest.mark.parametrize("folds", [2, 3])
def test_the_penalty_of_a_fold_is_fixed_where_nothing_can_choose_it(folds: int, kind: str) -> None:
    """As with two folds, or with three where each of the other two has one class."""
    tracks, fold = rings(60, seed=0), np.arange(60) % folds + 1
    if folds == 3:
        tracks = LabelledStatistics(tracks.statistics, np.where(fold == 1, np.arange(60) // 3 % 2, fold - 2))
    fitted = baseline.fit_for_fold(tracks, fold, 1, 3, class_weights=False)
    assert fitted.settings["svm.C"] == baseline._UNCHOSEN
    assert np.isnan(fitted.valid_f1)
    np.testing.assert_allclose(fitted.predict(tracks.statistics).sum(axis=1), 1, atol=1e-5)


def test_weighted_classes_are_weighted_copies_in_the_approximation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weighting the rare class by 3 and the other by 1 equals three copies of each of its tracks."""
    monkeypatch.setattr(baseline, "_COMPONENTS", 10)
    rare, common = rings(20, seed=0), rings(60, seed=1)
    train = LabelledStatistics(np.concatenate([rare.statistics, common.statistics]), np.repeat([0, 1], [20, 60]))
    machine = baseline._nystroem(train)
    gram, right = baseline._normal_equations(machine, train, class_weights=True)
    copies = LabelledStatistics(
        np.concatenate([rare.statistics] * 3 + [common.statistics]), np.repeat([0, 1], [60, 60])
    )
    copied_gram, copied_right = baseline._normal_equations(machine, copies, class_weights=False)
    np.testing.assert_allclose(gram, copied_gram * 80 / 120)
    np.testing.assert_allclose(right, copied_right * 80 / 120, atol=1e-9)
