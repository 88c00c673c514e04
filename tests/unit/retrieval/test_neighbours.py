"""Votes of the nearest training tracks: what holds for any vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genre.retrieval import neighbours
from genre.retrieval.neighbours import SHOWN, VOTERS, TrainingTracks, votes

NAMES = [f"track {number}" for number in range(60)]


def training_tracks(seed: int, tracks: int = 60, size: int = 8) -> TrainingTracks:
    random = np.random.default_rng(seed)
    return TrainingTracks(
        NAMES[:tracks], random.integers(0, 4, tracks), random.normal(size=(tracks, size)).astype("f4")
    )


@given(st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_a_copy_of_a_training_track_is_its_nearest_neighbour_at_any_level(seed: int, level: float) -> None:
    train = training_tracks(seed)
    _, nearest = train.predict(train.vectors * np.float32(level), 4)
    assert nearest.track_ids[:, 0].tolist() == NAMES
    assert np.allclose(nearest.cosines[:, 0], 1)
    np.testing.assert_array_equal(nearest.genres[:, 0], train.labels)
    assert (np.diff(nearest.cosines, axis=1) <= 0).all()


@given(st.integers(0, 1000))
def test_the_order_of_the_training_tracks_does_not_matter(seed: int) -> None:
    train = training_tracks(seed)
    order = np.random.default_rng(seed).permutation(60)
    shuffled = TrainingTracks([NAMES[row] for row in order], train.labels[order], train.vectors[order])
    queries = training_tracks(seed + 1).vectors
    (first, nearest), (second, others) = train.predict(queries, 4), shuffled.predict(queries, 4)
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert (nearest.track_ids == others.track_ids).mean() > 0.99  # two cosines may be equal in six digits


def test_votes_do_not_depend_on_how_many_tracks_are_scaled_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    train, queries = training_tracks(0), training_tracks(1, tracks=700).vectors
    expected, nearest = train.predict(queries, 4)
    monkeypatch.setattr(neighbours, "_QUERIES", 256)
    probabilities, others = train.predict(queries, 4)
    np.testing.assert_array_equal(probabilities, expected)
    assert others.track_ids.tolist() == nearest.track_ids.tolist()


def test_few_training_tracks_and_vectors_of_zeros_give_probabilities() -> None:
    train = training_tracks(0, tracks=2)
    probabilities, nearest = train.predict(np.zeros((3, 8), np.float32), 4)
    assert nearest.track_ids.shape == (3, 2)
    assert nearest.track_ids.shape[1] < SHOWN < VOTERS
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert nearest.cosines.tolist() == [[0, 0]] * 3
    none, nothing = train.predict(np.zeros((0, 8), np.float32), 4)
    assert (none.shape, nothing.track_ids.shape) == ((0, 4), (0, 2))


def test_a_nearer_track_has_more_weight() -> None:
    shares = votes(np.array([[2, 0, 0]]), np.array([[0.9, 0.8, 0.8]], np.float32), 3)[0]
    assert shares[2] > shares[0] > shares[1] == 0  # exp(0.1 / 0.07) is more than 2
    even = votes(np.array([[2, 0, 0]]), np.array([[0.9, 0.9, 0.9]], np.float32), 3)[0]
    np.testing.assert_allclose(even, [2 / 3, 0, 1 / 3], rtol=1e-6)
