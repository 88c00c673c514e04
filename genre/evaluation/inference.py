"""Predictions of a saved model on clips, and their cost on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch.utils.flop_counter import FlopCounterMode

from genre import devices
from genre.features import Clips
from genre.model import checkpoint
from genre.model.checkpoint import LoadedModel
from genre.storage import Location

MAX_CLIPS = 32  # that a measurement uses
_REPEATS = 9  # of which the median counts, since other processes may delay some
_BATCH_SECONDS = 0.5  # about the time of one repeat of the throughput measurement


@dataclass(frozen=True)
class InferenceCost:
    """The cost of a model that is alone on this machine."""

    clips_per_second: float
    latency_ms: float  # one clip alone
    parameters: int
    flops: int  # multiplications and additions for one clip
    hardware: str  # on which the times were measured


def cost(folder: Location, clips: Clips) -> InferenceCost:
    """Measure the cost of the model saved in `folder` on the first few of `clips`, with this process's threads."""
    model = checkpoint.load(folder)

    def median_seconds(batch: Clips) -> float:
        seconds: list[float] = []
        while len(seconds) < _REPEATS and sum(seconds) < 2 * _BATCH_SECONDS:
            started = time.perf_counter()
            model.predict(batch)
            seconds.append(time.perf_counter() - started)
        return float(np.median(seconds))

    clip = first_clips(clips, 1)
    model.predict(clip)  # the first prediction prepares the network
    latency = median_seconds(clip)
    several = first_clips(clips, max(1, min(MAX_CLIPS, round(_BATCH_SECONDS / latency))))
    return InferenceCost(
        clips_per_second=len(several) / median_seconds(several),
        latency_ms=1000 * latency,
        parameters=sum(parameter.numel() for parameter in model.classifier.parameters()),
        flops=_flops(model),
        hardware=devices.hardware(),
    )


def first_clips(clips: Clips, count: int) -> Clips:
    """Return the first clip of each of the first `count` tracks."""
    _, rows = np.unique(clips.track, return_index=True)
    rows = np.sort(rows)[:count]
    tracks = clips.track[rows]
    return Clips(
        clips.stored[clips.rows_of(rows)],
        clips.peak_db[rows],
        np.arange(len(rows)),
        clips.track_ids.take(pa.array(tracks)),
        clips.labels[tracks],
        clips.groups.take(pa.array(tracks)),
        clips.shape,
    )


def _flops(model: LoadedModel) -> int:
    """Return the floating-point operations for all evaluation windows of one clip."""
    card = model.card
    window = torch.zeros(1, card.shape.bins, card.frames())
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.classifier(window)
    return int(counter.get_total_flops()) * card.eval_windows
