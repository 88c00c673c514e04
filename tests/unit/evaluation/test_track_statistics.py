"""Statistics of timbre and rhythm: against librosa and scipy, and read from a folder in pieces."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import scipy
from making import make_clips

from genre import features
from genre.arrays import Float64
from genre.evaluation import track_statistics
from genre.features import Clips, Shape

BANDS, RATES = 8, 10


def clip_of(levels: Float64, frame_seconds: float = 0.023) -> Clips:
    """Return one track of one clip with these `levels` in dB."""
    stored, peak = features.encode(levels.astype(np.float32), 80.0)
    row = np.zeros(1, np.int64)
    shape = Shape(levels.shape[0], levels.shape[1], 80.0, frame_seconds)
    return Clips(stored[None], np.array([peak], np.float32), row, np.array(["a"]), row, np.array(["a"]), shape)


def test_mfcc_statistics_are_those_of_librosa_and_scipy_averaged_over_clips() -> None:
    clips = make_clips(tracks=2, per_track=2, bins=24)
    statistics = track_statistics.of_clips(clips)
    n = track_statistics.MFCCS
    rows = []
    for spectrogram, peak in zip(clips.spectrograms[2:], clips.peak_db[2:], strict=True):
        mfcc = librosa.feature.mfcc(S=features.decode(spectrogram, peak, 80.0), n_mfcc=n)
        skewness = scipy.stats.skew(mfcc, axis=1)
        rows.append(np.concatenate([mfcc.mean(axis=1), mfcc.std(axis=1), skewness]))
    np.testing.assert_allclose(statistics[1, : 3 * n], np.mean(rows, axis=0), rtol=1e-3, atol=1e-4)
    assert statistics.shape == (2, 5 * n + 2 * 7 + BANDS * RATES)


def test_differences_enter_by_their_deviation() -> None:
    """Frames in another order have the same levels, and so nearly the same mean difference, but another texture."""
    rng = np.random.default_rng(0)
    smooth = np.sort(rng.uniform(-60, 0, (16, 200)), axis=1)
    n = min(track_statistics.MFCCS, 16)
    calm, rough = (track_statistics.of_clips(clip_of(levels))[0] for levels in (smooth, rng.permuted(smooth, axis=1)))
    first, second = slice(3 * n, 4 * n), slice(4 * n, 5 * n)
    assert (rough[first] > 5 * calm[first])[1:].all()
    assert (rough[second] > 5 * calm[second])[1:].all()


def test_contrast_is_the_difference_between_peaks_and_valleys() -> None:
    flat = np.full((35, 50), -20.0)
    peaky = flat.copy()
    peaky[::5] += 20  # one bin of each band of five
    n = 5 * track_statistics.MFCCS
    np.testing.assert_allclose(track_statistics.of_clips(clip_of(peaky))[0, n : n + 7], 20, atol=0.4)
    np.testing.assert_allclose(track_statistics.of_clips(clip_of(flat))[0, n : n + 7], 0, atol=0.4)


@pytest.mark.parametrize("hertz", [1.0, 4.0])
def test_modulation_is_in_the_range_of_its_rate_at_any_phase(hertz: float) -> None:
    frames, frame_seconds = 400, 0.02
    time = np.arange(frames) * frame_seconds
    edges = np.geomspace(0.4, 14, RATES + 1)
    right = int(np.searchsorted(edges, hertz, side="right")) - 1
    for phase in (0, 1.3):
        levels = np.tile(-30 + 20 * np.sin(2 * np.pi * hertz * time + phase), (16, 1))
        modulation = track_statistics.of_clips(clip_of(levels, frame_seconds))[0, -BANDS * RATES :]
        assert (modulation.reshape(BANDS, RATES).argmax(axis=1) == right).all()


@pytest.mark.parametrize(("bins", "frames"), [(9, 40), (2, 40), (16, 1), (16, 2)])
def test_small_spectrograms_have_statistics_too(bins: int, frames: int) -> None:
    statistics = track_statistics.of_clips(make_clips(classes=2, bins=bins, frames=frames))
    assert np.isfinite(statistics).all()


def test_a_clip_in_which_nothing_changes_has_finite_statistics() -> None:
    assert np.isfinite(track_statistics.of_clips(clip_of(np.zeros((16, 40))))).all()
