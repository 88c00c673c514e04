"""Labels that are probably wrong are found, and right ones are left."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from genre.evaluation.label_issues import find_label_issues

CLASSES = 8


def answers(rng: np.random.Generator, truth: np.ndarray, skill: float) -> np.ndarray:
    """Return probabilities of a model that is right in a share `skill`, and less confident where it is wrong."""
    chosen = np.where(rng.random(len(truth)) < skill, truth, rng.integers(0, CLASSES, len(truth)))
    logits = rng.normal(size=(len(truth), CLASSES))
    logits[np.arange(len(truth)), chosen] += np.where(chosen == truth, 4, 2) + rng.normal(size=len(truth))
    table = np.exp(logits)
    return np.asarray(table / table.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_flipped_labels_are_found(rng: np.random.Generator, share: float) -> None:
    truth = np.repeat(np.arange(CLASSES), 50)
    probabilities = answers(rng, truth, skill=0.95)
    flipped = rng.choice(len(truth), round(share * len(truth)), replace=False)
    given_labels = truth.copy()
    given_labels[flipped] = (truth[flipped] + rng.integers(1, CLASSES, len(flipped))) % CLASSES
    issues = find_label_issues(given_labels, probabilities)
    first = issues.tracks[: len(flipped)]
    assert np.isin(first, flipped).mean() >= 0.6
    both = np.isin(first, flipped)
    assert (issues.suggested[: len(flipped)][both] == truth[first[both]]).mean() > 0.9


def test_a_model_that_is_always_right_has_no_issue() -> None:
    truth = np.repeat(np.arange(CLASSES), 3)
    assert not len(find_label_issues(truth, np.eye(CLASSES)[truth]).tracks)


def test_a_genre_without_tracks_is_never_suggested() -> None:
    probabilities = np.tile([0.2, 0.1, 0.7], (4, 1))
    assert find_label_issues([0, 0, 1, 1], probabilities).suggested.tolist() == [0, 0]


def test_rows_must_be_those_of_the_labels() -> None:
    with pytest.raises(ValueError, match="give a row for each track"):
        find_label_issues([0, 1], np.ones((3, 2)) / 2)
    assert not len(find_label_issues(np.zeros(0, int), np.zeros((0, 3))).tracks)


@given(
    table=arrays.arrays(np.float64, st.tuples(st.integers(1, 30), st.just(4)), elements=st.floats(0.01, 1)),
    data=st.data(),
)
def test_issues_are_ordered_and_invariant_to_the_order_of_tracks(table: np.ndarray, data: st.DataObject) -> None:
    truth = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(table), max_size=len(table))))
    issues = find_label_issues(truth, table)
    margins = issues.p_label - issues.p_suggested
    assert (np.diff(margins) >= 0).all()
    assert (issues.suggested != truth[issues.tracks]).all()
    np.testing.assert_array_equal(issues.p_label, table[issues.tracks, truth[issues.tracks]])
    np.testing.assert_array_equal(issues.p_suggested, table[issues.tracks, issues.suggested])
    order = np.array(data.draw(st.permutations(range(len(table)))))
    again = find_label_issues(truth[order], table[order])
    assert set(order[again.tracks]) == set(issues.tracks)
