"""Seconds that training and prediction take on this machine, estimated from a few steps of each architecture.

`probe` measures an architecture on random clips of the corpus's shape. The other functions compute from its result how
long a training or the test takes. Nothing here reads the corpus.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch

from genre.features import Clips, Manifest, Shape, windows
from genre.model.classifier import predict
from genre.settings import TrainSettings
from genre.training import experiment
from genre.training.experiment import Data, Experiment
from genre.training.validation import epochs_per_validation

_SMALL_BATCH = 2  # windows in the first steps: a full batch of the largest network may take seconds
_FAST_STEP = 0.25  # seconds: if a step with a small batch takes less, full batches are measured as well
_STEPS = 12
_MAX_SECONDS = 1.0  # the measurement ends after this time, with fewer steps


@dataclass(frozen=True)
class Workload:
    """The numbers of clips that a search trains, validates and tests on; `shape` is that of one clip.

    `test_tracks` and `train_tracks` are numbers of tracks, of which robustness and nearest neighbours take samples.
    """

    train: int
    valid: int
    test: int
    shape: Shape
    classes: int
    test_tracks: int
    train_tracks: int


@dataclass(frozen=True)
class Cost:
    """Seconds that one process takes to train on a window, and to predict it."""

    train: float
    predict: float


def probe(planned: Experiment, workload: Workload, device: torch.device) -> Cost:
    """Measure a few steps of the planned experiment in this process, which takes a few seconds."""
    batch_size = planned.train.batch_size
    cost = _measure(planned, workload, min(_SMALL_BATCH, batch_size), device)
    if cost.train * _SMALL_BATCH > _FAST_STEP or batch_size <= _SMALL_BATCH:
        return cost
    return _measure(planned, workload, batch_size, device)


def trial_seconds(settings: TrainSettings, workload: Workload, cost: Cost, workers: int) -> float:
    """Return the seconds of one training of `settings.epochs`, with its validations."""
    plan = windows.plan(workload.train, windows.per_epoch(settings, workload.shape), settings.batch_size, workers)
    training = settings.epochs * plan.steps * plan.batch * cost.train
    validation = validations(settings, workload) * workload.valid * _eval_windows(settings, workload) * cost.predict
    return (training + validation) / workers


def validations(settings: TrainSettings, workload: Workload) -> int:
    """Return the number of validations in a training of `settings.epochs`."""
    train_windows = workload.train * windows.per_epoch(settings, workload.shape)
    valid_windows = workload.valid * _eval_windows(settings, workload)
    return math.ceil(settings.epochs / epochs_per_validation(train_windows, valid_windows))


def predict_seconds(settings: TrainSettings, workload: Workload, clips: float, cost: Cost) -> float:
    """Return the seconds in which one process predicts a number of clips with one model."""
    return clips * _eval_windows(settings, workload) * cost.predict


def _eval_windows(settings: TrainSettings, workload: Workload) -> int:
    """Return the windows of a clip in evaluation."""
    frames = workload.shape.frames_in(settings.window_seconds)
    return len(windows.eval_starts(frames, workload.shape.frames, settings.eval_windows))


def _measure(planned: Experiment, workload: Workload, batch: int, device: torch.device) -> Cost:
    """Return the median seconds per window in a few steps of `batch` windows; the first step is not counted."""
    size = {"batch_size": batch, "windows_per_clip": 1, "eval_windows": 1, "epochs": _STEPS + 1}
    neutral = {"patience": 0, "init_from": "", "freeze": False}
    short = replace(planned, train=planned.train.model_copy(update=size | neutral))
    noise, bins = _noise(workload, batch), workload.shape.bins
    manifest = Manifest(
        fingerprint="", shape=workload.shape, classes=[str(number) for number in range(workload.classes)]
    )
    data = Data(noise, _noise(workload, 1), np.zeros(bins, np.float32), np.ones(bins, np.float32), manifest)
    card, trainer = experiment.trainer_for(short, data, device)
    started = time.perf_counter()
    seconds = []  # per window
    for epoch in trainer.run():  # an epoch is one step
        seconds.append(1 / epoch.windows_per_second)
        if len(seconds) > 1 and time.perf_counter() - started > _MAX_SECONDS:
            break
    started = time.perf_counter()
    predict(trainer.classifier, noise, card.frames(), 1)
    return Cost(float(np.median(seconds[1:])), (time.perf_counter() - started) / batch)


def _noise(workload: Workload, clips: int) -> Clips:
    """Return random clips of the corpus's shape; the time of a step does not depend on their content."""
    rng = np.random.default_rng(0)
    shape = (clips, workload.shape.frames, workload.shape.bins)
    rows = np.arange(clips)
    return Clips(
        stored=rng.integers(0, 256, shape, dtype=np.uint8),
        peak_db=np.zeros(clips, np.float32),
        track=rows,
        track_ids=pa.array(rows.astype(str)),
        labels=rows % workload.classes,
        groups=pa.array(rows.astype(str)),
        shape=workload.shape,
    )
