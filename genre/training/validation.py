"""Validation during training: loss and scores on the validation tracks, and how often they are computed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from genre.evaluation import metrics
from genre.features import Clips
from genre.features.windows import Worker
from genre.model.classifier import Classifier, predict
from genre.training import workers

_BATCH = 64  # windows
_LARGEST_SHARE = 0.2  # of the work of a training that validation may take
_TRAINING_COST = 3.0  # of a window, in forward passes: one forward pass, and a backward pass that costs two


@dataclass(frozen=True)
class Validator:
    """Computes loss and scores on `clips`; each of several workers predicts its share of the tracks."""

    clips: Clips
    classes: int
    frames: int  # of a window
    windows_per_clip: int
    worker: Worker
    autocast: torch.dtype | None

    def __call__(self, classifier: Classifier) -> tuple[float, metrics.Scores]:
        """Return the mean loss and the scores over all tracks; they do not depend on the number of workers."""
        probabilities = predict(
            classifier, self.clips, self.frames, self.windows_per_clip, _BATCH, self.worker, self.autocast
        )
        tracks = np.flatnonzero(probabilities.any(axis=1))
        counts = np.zeros((self.classes, self.classes))
        likelihood = np.zeros(len(self.clips.labels))  # of each track: the order of the sum below must not change
        if len(tracks):
            truth = self.clips.labels[tracks]
            counts += metrics.confusion_counts(truth, metrics.decisions(probabilities[tracks]), self.classes)
            likelihood[tracks] = np.log(np.maximum(probabilities[tracks, truth], 1e-12))
        local = torch.from_numpy(np.append(counts.ravel(), likelihood)).to(classifier.mean.device)
        sums = workers.sum_over_workers(local).cpu().numpy()
        counts = sums[: counts.size].reshape(counts.shape)
        return float(-sums[counts.size :].mean()), metrics.scores(counts)


def epochs_per_validation(train_windows: int, valid_windows: int) -> int:
    """Return the number of epochs from one validation to the next, so that it takes at most a fifth of the work.

    The work is counted in windows and not measured, so that every machine validates the same epochs of a training.
    """
    epochs = valid_windows * (1 / _LARGEST_SHARE - 1) / (_TRAINING_COST * train_windows)
    return max(1, math.ceil(epochs))
