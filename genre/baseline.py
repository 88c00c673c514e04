"""The classical baseline: MFCC statistics and a support vector machine.

Tzanetakis and Cook, "Musical genre classification of audio signals", IEEE TSAP 10(5), 2002, summarised
MFCCs over a track; here mean and standard deviation of 20 MFCCs and of their first differences, from the
stored log-mel spectrograms by librosa, and scikit-learn's SVC with an RBF kernel. Its C is chosen on the
validation split, as a network's best epoch is.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import librosa
import numpy as np
import numpy.typing as npt
from sklearn.metrics import f1_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from genre import features
from genre.features import Clips, Float32

MFCCS = 20
_PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline and how it came out on the validation split."""

    pipeline: Pipeline
    classes: int
    penalty: float
    valid_f1: float
    train_seconds: float

    def predict(self, clips: Clips) -> Float32:
        """Shares (tracks, classes) from the machine's one-against-rest scores by softmax: a ranking, not calibrated."""
        scores = self.pipeline.decision_function(track_statistics(clips))
        if scores.ndim == 1:  # two classes
            scores = np.stack([-scores, scores], axis=1)
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        full = np.zeros((len(shares), self.classes), dtype=np.float32)
        full[:, self.pipeline.classes_] = shares / shares.sum(axis=1, keepdims=True)
        return full


def fit(train: Clips, valid: Clips, classes: int) -> Baseline:
    """Fit on the training split; the penalty with the best macro F1 on the validation split wins."""
    started = time.perf_counter()
    inputs, valid_inputs = track_statistics(train), track_statistics(valid)
    best: tuple[float, float, Pipeline] | None = None
    for penalty in _PENALTIES:
        pipeline = make_pipeline(StandardScaler(), SVC(C=penalty, class_weight="balanced"))
        pipeline.fit(inputs, train.labels)
        score = float(f1_score(valid.labels, pipeline.predict(valid_inputs), average="macro", zero_division=0))
        if best is None or score > best[0]:
            best = (score, penalty, pipeline)
    assert best is not None
    return Baseline(best[2], classes, best[1], best[0], time.perf_counter() - started)


def track_statistics(clips: Clips) -> npt.NDArray[np.float64]:
    """Mean and standard deviation of MFCCs and of their differences, averaged over clips: (tracks, 4 * MFCCs).

    There are `MFCCS` of them, or as many as there are bins.
    """
    number = min(MFCCS, clips.shape.bins)
    total = np.zeros((len(clips.track_ids), 4 * number))
    for spectrogram, peak, track in zip(clips.spectrograms, clips.peak_db, clips.track, strict=True):
        levels = features.decode(spectrogram, peak, clips.shape.range_db)
        mfcc = librosa.feature.mfcc(S=levels, n_mfcc=number)
        parts = (mfcc, np.diff(mfcc, axis=1))
        statistics = [s for part in parts for s in (part.mean(axis=1), part.std(axis=1))]
        total[track] += np.concatenate(statistics)
    return total / np.bincount(clips.track, minlength=len(total))[:, None]
