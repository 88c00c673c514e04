"""Clips -> windows of the length a model sees: at random in training, evenly spaced in evaluation.

Windows stay bytes here; they become decibels on the device that trains, so that a quarter of the
memory travels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genre.features import Bytes, Clips, Float32


@dataclass(frozen=True)
class Windows:
    """A batch: spectrograms (batch, bins, frames) in bytes, the peak of each clip in dB, class labels, tracks."""

    spectrograms: Bytes
    peak_db: Float32
    labels: npt.NDArray[np.int64]  # (batch,)
    tracks: npt.NDArray[np.int64]  # (batch,) row in Clips.track_ids


@dataclass(frozen=True)
class Shard:
    """Which of several equal workers this is."""

    rank: int = 0
    world: int = 1


def frames_in(seconds: float, clips: Clips) -> int:
    """Frames of a window of so many seconds, at most those of a clip and at least one."""
    return max(1, min(clips.shape.frames, round(seconds / clips.shape.frame_seconds)))


def steps_per_epoch(clips: int, per_clip: int, batch_size: int, world: int) -> int:
    """Optimiser steps in an epoch: full global batches; one smaller batch when there are too few clips."""
    return max(1, clips * per_clip // max(batch_size, world))


def training_windows(
    clips: Clips, frames: int, per_clip: int, batch_size: int, seed: tuple[int, ...], shard: Shard = Shard()
) -> Iterator[Windows]:
    """One epoch of random windows. The workers' shares of a global batch are disjoint and of equal size.

    `seed` decides everything, so an epoch can be repeated. What does not fill a last batch is left for
    another epoch; the order is drawn anew each time.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.repeat(np.arange(len(clips)), per_clip))
    starts = rng.integers(0, clips.shape.frames - frames + 1, size=len(order))
    total = len(order)
    batch = min(max(batch_size, shard.world), total)
    share = max(1, batch // shard.world)
    for step in range(steps_per_epoch(len(clips), per_clip, batch_size, shard.world)):
        mine = np.arange(step * batch + shard.rank * share, step * batch + (shard.rank + 1) * share) % total
        yield cut(clips, order[mine], starts[mine], frames)


def evaluation_windows(
    clips: Clips, frames: int, per_clip: int, batch_size: int, shard: Shard = Shard()
) -> Iterator[Windows]:
    """Evenly spaced windows of every clip, first to last frame; whole tracks are dealt to the workers in turn."""
    last = clips.shape.frames - frames
    starts = np.unique(np.linspace(0, last, min(per_clip, last + 1)).round().astype(np.int64))
    mine = np.flatnonzero(clips.track % shard.world == shard.rank)
    which, start = np.repeat(mine, len(starts)), np.tile(starts, len(mine))
    for begin in range(0, len(which), batch_size):
        rows = slice(begin, begin + batch_size)
        yield cut(clips, which[rows], start[rows], frames)


def cut(clips: Clips, which: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], frames: int) -> Windows:
    """Windows of `frames` frames of the clips `which`, each from its own start."""
    view = np.lib.stride_tricks.sliding_window_view(clips.spectrograms, frames, axis=2)
    tracks = clips.track[which]
    return Windows(view[which, :, starts], clips.peak_db[which], clips.labels[tracks], tracks)
