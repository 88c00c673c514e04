"""The promise of a threshold: the precision holds on new tracks in nine of ten corpora."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from genre.features import Float32
from genre.model import thresholds
from genre.model.calibration import Calibration, Labels

PRECISION = 0.8


def drawn(rng: np.random.Generator, tracks: int, separation: float) -> tuple[Float32, Labels]:
    """Return answers on tracks of eight genres, of which some are harder than others, and the true genres."""
    labels = rng.integers(0, 8, tracks)
    logits = rng.normal(size=(tracks, 8))
    logits[np.arange(tracks), labels] += separation * np.linspace(0.5, 1.6, 8)[labels] * rng.uniform(0.2, 1.6, tracks)
    powers = np.exp(2 * logits)
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32), labels


def reported(probabilities: Float32, limits: tuple[float, ...]) -> np.ndarray:
    calibration = Calibration(thresholds=limits, tracks=1)
    return np.array([calibration.accepts(int(row.argmax()), float(row.max())) for row in probabilities])


@pytest.mark.parametrize(("tracks", "separation", "least"), [(100, 1.5, 0.02), (100, 2.7, 0.5), (600, 2.0, 0.3)])
def test_the_precision_holds_on_new_tracks_in_nine_of_ten_corpora(tracks: int, separation: float, least: float) -> None:
    rng = np.random.default_rng(0)
    new, truth = drawn(rng, 3000, separation)
    right = new.argmax(axis=1) == truth
    kept, shares = 0, []
    for _ in range(100):
        named = reported(new, thresholds.fit(*drawn(rng, tracks, separation), PRECISION))
        kept += not named.any() or right[named].mean() >= PRECISION
        shares.append(named.mean())
    assert kept >= 90
    assert np.mean(shares) > least  # and not because nothing is reported


def test_a_frequent_genre_has_its_own_threshold_and_rare_ones_share_one() -> None:
    level = np.linspace(0.5, 0.99, 100, dtype=np.float32)
    sure = np.stack([level, 1 - level, 0 * level], axis=1)
    probabilities = np.concatenate([sure, sure[:, [1, 0, 2]]])
    labels = np.repeat([0, 2], 100)  # the second genre is always wrong
    own, wrong, shared = thresholds.fit(probabilities, labels, PRECISION)
    assert own == 0
    assert wrong == shared == thresholds.NEVER


def test_too_few_answers_prove_nothing() -> None:
    sure = np.array([[0.99, 0.01]] * 10, np.float32)
    assert thresholds.fit(sure, np.zeros(10, np.int64), PRECISION) == (thresholds.NEVER, thresholds.NEVER)
    sure = np.array([[0.99, 0.01]] * 11, np.float32)
    assert thresholds.fit(sure, np.zeros(11, np.int64), PRECISION) == (0.0, 0.0)


@given(st.integers(1, 3000), st.floats(0, 1), st.floats(0.01, 0.99))
def test_the_tail_is_that_of_scipy(number: int, share: float, probability: float) -> None:
    least = round(share * number)
    expected = binom.sf(least - 1, number, probability)
    assert thresholds.binomial_tail(number, least, probability) == pytest.approx(expected, rel=1e-6, abs=1e-9)
