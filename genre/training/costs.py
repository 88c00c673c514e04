"""Seconds that training and answering take on this machine, from a few steps of each network.

`probe` measures a network on noise of the corpus's shape; the functions below turn its result into the length of a
training and of an evaluation. Nothing here reads the corpus.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from genre.config import TrainSettings
from genre.features import Clips, Shape, windows
from genre.model.classifier import predict
from genre.training import experiment
from genre.training.experiment import Data, Experiment
from genre.training.trainer import epochs_per_validation

_FEW = 2  # windows of the first steps: one of the largest network takes a slow CPU seconds
_FAST_ENOUGH = 0.25  # seconds of a step of few windows, below which whole batches are measured
_STEPS = 12
_LONG_ENOUGH = 1.0  # second, after which fewer steps do


@dataclass(frozen=True)
class Workload:
    """The clips that a search trains on, validates on and tests on; `shape` is that of one clip."""

    train: int
    valid: int
    test: int
    shape: Shape
    classes: int


@dataclass(frozen=True)
class Cost:
    """Seconds of one process for one window: to learn from it, and to answer it."""

    train: float
    answer: float


def probe(experiment: Experiment, workload: Workload, device: torch.device) -> Cost:
    """Measure a few steps of `experiment` in this process; takes a few seconds."""
    batch_size = experiment.train.batch_size
    few = _measure(experiment, workload, min(_FEW, batch_size), device)
    if few.train * _FEW > _FAST_ENOUGH or batch_size <= _FEW:
        return few
    return _measure(experiment, workload, batch_size, device)


def trial_seconds(settings: TrainSettings, workload: Workload, cost: Cost, workers: int = 1) -> float:
    """Seconds of one training of `settings.epochs`, validations included."""
    plan = windows.plan(workload.train, _per_clip(settings, workload), settings.batch_size, workers)
    learned = settings.epochs * plan.steps * plan.batch * cost.train
    answered = validations(settings, workload) * workload.valid * _eval_windows(settings, workload) * cost.answer
    return (learned + answered) / workers


def validations(settings: TrainSettings, workload: Workload) -> int:
    """How often a training of `settings.epochs` is validated."""
    trained, validated = (
        workload.train * _per_clip(settings, workload),
        workload.valid * _eval_windows(settings, workload),
    )
    return math.ceil(settings.epochs / epochs_per_validation(trained, validated))


def answer_seconds(settings: TrainSettings, workload: Workload, cost: Cost) -> float:
    """Seconds in which one process answers all test clips with one model."""
    return workload.test * _eval_windows(settings, workload) * cost.answer


def _per_clip(settings: TrainSettings, workload: Workload) -> int:
    frames = windows.frames_in(settings.window_seconds, workload.shape)
    return windows.per_epoch(settings.windows_per_clip, frames, workload.shape.frames)


def _eval_windows(settings: TrainSettings, workload: Workload) -> int:
    frames = windows.frames_in(settings.window_seconds, workload.shape)
    return len(windows.eval_starts(frames, workload.shape.frames, settings.eval_windows))


def _measure(measured: Experiment, workload: Workload, batch: int, device: torch.device) -> Cost:
    """Return the median seconds of a window in a few steps of `batch` windows, without the first step."""
    size = {"batch_size": batch, "windows_per_clip": 1, "eval_windows": 1, "epochs": _STEPS + 1}
    neutral = {"patience": 0, "init_from": "", "freeze": False}
    measured = replace(measured, train=measured.train.model_copy(update=size | neutral))
    noise, bins = _noise(workload, batch), workload.shape.bins
    manifest = {"classes": [str(number) for number in range(workload.classes)], "settings": {}, "fingerprint": ""}
    data = Data(noise, _noise(workload, 1), np.zeros(bins, np.float32), np.ones(bins, np.float32), manifest)
    card, trainer = experiment.trainer_for(measured, data, device)
    started = time.perf_counter()
    learned = []
    for epoch in trainer.run():  # of one step
        learned.append(1 / epoch.windows_per_second)
        if len(learned) > 1 and time.perf_counter() - started > _LONG_ENOUGH:
            break
    started = time.perf_counter()
    predict(trainer.classifier, noise, card.frames(), 1)
    return Cost(float(np.median(learned[1:])), (time.perf_counter() - started) / batch)


def _noise(workload: Workload, clips: int) -> Clips:
    """Clips of the corpus's shape to compute on; the time of a step does not depend on what is in them."""
    rng = np.random.default_rng(0)
    shape = (clips, workload.shape.bins, workload.shape.frames)
    rows = np.arange(clips)
    return Clips(
        spectrograms=rng.integers(0, 256, shape, dtype=np.uint8),
        peak_db=np.zeros(clips, np.float32),
        track=rows,
        track_ids=rows.astype(str),
        labels=rows % workload.classes,
        groups=rows.astype(str),
        shape=workload.shape,
    )
