"""The answers of a saved model on clips, and what one answer costs on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from genre import devices
from genre.features import Clips, Float32
from genre.model import checkpoint
from genre.model.classifier import Classifier, predict
from genre.model.saved_model import ModelCard
from genre.storage import Location

_REPEATS = 9  # of which the median counts, since one may meet another process
MOST_CLIPS = 32
_ENOUGH_SECONDS = 0.5  # in which the clips of a throughput measurement are answered, about


@dataclass(frozen=True)
class InferenceCost:
    """What a model costs that answers alone on this machine."""

    clips_per_second: float
    latency_ms: float  # one clip alone
    parameters: int
    flops: int  # multiplications and additions for one clip
    hardware: str  # that the times were measured on


def answers(folder: Location, clips: Clips) -> tuple[ModelCard, Float32]:
    """Probabilities (tracks, classes) of the model saved in `folder`, and its card."""
    card, classifier = checkpoint.load(folder)
    return card, predict(classifier, clips, card.frames(), card.eval_windows)


def cost(folder: Location, clips: Clips) -> InferenceCost:
    """The cost of the model saved in `folder`, measured on the first few of `clips` with this process's threads."""
    card, classifier = checkpoint.load(folder)

    def median_seconds(some: Clips) -> float:
        taken: list[float] = []
        while len(taken) < _REPEATS and sum(taken) < 2 * _ENOUGH_SECONDS:
            started = time.perf_counter()
            predict(classifier, some, card.frames(), card.eval_windows)
            taken.append(time.perf_counter() - started)
        return float(np.median(taken))

    one = first(clips, 1)
    predict(classifier, one, card.frames(), card.eval_windows)  # the first answer prepares the network
    latency = median_seconds(one)
    several = first(clips, max(1, min(MOST_CLIPS, round(_ENOUGH_SECONDS / latency))))
    return InferenceCost(
        clips_per_second=len(several) / median_seconds(several),
        latency_ms=1000 * latency,
        parameters=sum(parameter.numel() for parameter in classifier.parameters()),
        flops=_flops(classifier, card),
        hardware=devices.hardware(),
    )


def first(clips: Clips, count: int) -> Clips:
    """The first clip of each of the first `count` tracks."""
    _, rows = np.unique(clips.track, return_index=True)
    rows = np.sort(rows)[:count]
    tracks = clips.track[rows]
    return Clips(
        clips.spectrograms[rows],
        clips.peak_db[rows],
        np.arange(len(rows)),
        clips.track_ids[tracks],
        clips.labels[tracks],
        clips.groups[tracks],
        clips.shape,
    )


def _flops(classifier: Classifier, card: ModelCard) -> int:
    """Floating-point operations for one clip: all of its evaluation windows."""
    window = torch.zeros(1, card.shape.bins, card.frames())
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        classifier(window)
    return int(counter.get_total_flops()) * card.eval_windows
