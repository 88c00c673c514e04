from __future__ import annotations

import librosa
import numpy as np
import pytest
from making import make_clips

from genre import baseline, features


def test_statistics_are_librosas_mfcc_averaged_over_clips():
    clips = make_clips(tracks=2, per_track=2, bins=24)
    found = baseline.track_statistics(clips)
    assert found.shape == (2, 4 * baseline.MFCCS)
    rows = []
    for spectrogram, peak in zip(clips.spectrograms[2:], clips.peak_db[2:], strict=True):
        mfcc = librosa.feature.mfcc(S=features.decode(spectrogram, peak, 80.0), n_mfcc=baseline.MFCCS)
        steps = np.diff(mfcc, axis=1)
        rows.append(np.concatenate([mfcc.mean(axis=1), mfcc.std(axis=1), steps.mean(axis=1), steps.std(axis=1)]))
    np.testing.assert_allclose(found[1], np.mean(rows, axis=0), rtol=1e-5)


def test_fewer_bins_give_fewer_coefficients():
    assert baseline.track_statistics(make_clips(bins=9)).shape == (12, 36)


@pytest.mark.parametrize("classes", [2, 3])
def test_it_learns(classes):
    fitted = baseline.fit(make_clips(60, classes), make_clips(30, classes, seed=1), classes)
    test = make_clips(30, classes, seed=2)
    probabilities = fitted.predict(test)
    assert (probabilities.argmax(axis=1) == test.labels).mean() > 0.9
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert fitted.valid_f1 > 0.9
    assert fitted.penalty in baseline._PENALTIES
    assert fitted.train_seconds > 0


def test_a_class_that_training_lacks_gets_nothing():
    fitted = baseline.fit(make_clips(24, 2), make_clips(12, 2, seed=1), 4)
    probabilities = fitted.predict(make_clips(6, 2, seed=2))
    assert probabilities.shape == (6, 4)
    assert (probabilities[:, 2:] == 0).all()


def test_it_is_repeatable():
    first, second = (baseline.fit(make_clips(24), make_clips(12, seed=1), 3) for _ in range(2))
    test = make_clips(9, seed=2)
    assert np.array_equal(first.predict(test), second.predict(test))
