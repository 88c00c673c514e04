"""The vote of the nearest training tracks compared with scikit-learn's classifier."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from genre.arrays import Float64
from genre.retrieval.neighbours import SHOWN, TEMPERATURE, VOTERS, TrainingTracks

CLASSES = 6


def weights(distances: Float64) -> Float64:
    weighted: Float64 = np.exp(-distances / TEMPERATURE)
    return weighted


@pytest.mark.parametrize(("tracks", "size"), [(400, 16), (VOTERS, 3), (1000, 128)])
def test_the_vote_is_that_of_scikit_learn(tracks: int, size: int) -> None:
    random = np.random.default_rng(tracks)
    labels = random.integers(1, CLASSES, tracks)  # no track of the first genre
    vectors = (random.normal(size=(tracks, size)) + 2 * np.eye(CLASSES, size)[labels]).astype(np.float32)
    queries = random.normal(size=(300, size)).astype(np.float32)
    train = TrainingTracks([str(number) for number in range(tracks)], labels, vectors)
    probabilities, nearest = train.predict(queries, CLASSES)

    reference = KNeighborsClassifier(VOTERS, weights=weights, metric="cosine").fit(vectors, labels)
    np.testing.assert_allclose(probabilities[:, reference.classes_], reference.predict_proba(queries), atol=2e-4)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert not probabilities[:, 0].any()
    distances, rows = reference.kneighbors(queries, SHOWN)
    np.testing.assert_allclose(nearest.cosines, 1 - distances, atol=2e-6)
    same = nearest.track_ids.astype(int) == rows
    assert same.mean() > 0.99  # the others are ties in the last digit
    np.testing.assert_array_equal(nearest.genres[same], labels[rows][same])
