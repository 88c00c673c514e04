"""Clips -> windows of the length a model sees: at random in training, evenly spaced in evaluation.

Windows stay bytes here; they become decibels on the device that trains, so that a quarter of the
memory travels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genre.errors import ConfigError
from genre.features.clips import Clips
from genre.features.encoding import Bytes, Float32


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


@dataclass(frozen=True)
class Plan:
    """How an epoch is cut into optimiser steps. The number of steps does not depend on the number of workers."""

    steps: int
    batch: int  # windows in a step, over all workers
    share: int  # windows in a step, of one worker; what does not divide evenly is left out


def plan(clips: int, per_clip: int, batch_size: int, world: int = 1) -> Plan:
    """Full global batches; one smaller batch when there are too few clips.

    Raises `ConfigError` when a worker would get a single window, since batch norm needs two.
    """
    total = clips * per_clip
    batch = min(batch_size, total)
    share = batch // world
    if share < 2:
        raise ConfigError(
            f"train.batch_size={batch_size} with {total} training windows and {world} workers leaves "
            f"{share} windows for a worker's step, batch norm needs 2; use a larger batch or fewer workers"
        )
    return Plan(total // batch, batch, share)


def per_epoch(asked: int, frames: int, clip_frames: int) -> int:
    """Windows of `frames` frames that an epoch cuts from each clip: `asked`, or for 0 as many as fill the clip."""
    return asked or max(1, round(clip_frames / frames))


def eval_starts(frames: int, clip_frames: int, per_clip: int) -> npt.NDArray[np.int64]:
    """First frames of at most `per_clip` different evaluation windows, evenly spaced from end to end of a clip."""
    last = clip_frames - frames
    return np.unique(np.linspace(0, last, min(per_clip, last + 1)).round().astype(np.int64))


def training_windows(
    clips: Clips, frames: int, per_clip: int, batch_size: int, seed: tuple[int, ...], shard: Shard = Shard()
) -> Iterator[Windows]:
    """One epoch of random windows. The workers' shares of a global batch are disjoint and of equal size.

    `seed` decides everything, so an epoch can be repeated. What does not fill a last batch is left for
    another epoch; the order is drawn anew each time.
    """
    epoch = plan(len(clips), per_clip, batch_size, shard.world)
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.repeat(np.arange(len(clips)), per_clip))
    starts = rng.integers(0, clips.shape.frames - frames + 1, size=len(order))
    for step in range(epoch.steps):
        begin = step * epoch.batch + shard.rank * epoch.share
        mine = slice(begin, begin + epoch.share)
        yield cut(clips, order[mine], starts[mine], frames)


def evaluation_windows(
    clips: Clips, frames: int, per_clip: int, batch_size: int, shard: Shard = Shard()
) -> Iterator[Windows]:
    """Evenly spaced windows of every clip, first to last frame, in batches of at most `2 * batch_size`.

    Groups of whole tracks, of about `batch_size` windows each, are dealt to the workers in turn. A batch
    lies within a group, so it is the same for any number of workers: what a network answers may depend
    on the size of its batch in the last bit, but not on how the work was shared.
    """
    starts = eval_starts(frames, clips.shape.frames, per_clip)
    of_track = np.bincount(clips.track, minlength=len(clips.track_ids)) * len(starts)
    group = ((np.cumsum(of_track) - of_track) // batch_size)[clips.track]
    order = np.argsort(group, kind="stable")
    for mine in np.split(order, np.flatnonzero(np.diff(group[order])) + 1)[shard.rank :: shard.world]:
        which, start = np.repeat(mine, len(starts)), np.tile(starts, len(mine))
        for begin in range(0, len(which), 2 * batch_size):
            rows = slice(begin, begin + 2 * batch_size)
            yield cut(clips, which[rows], start[rows], frames)


def cut(clips: Clips, which: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], frames: int) -> Windows:
    """Windows of `frames` frames of the clips `which`, each from its own start."""
    view = np.lib.stride_tricks.sliding_window_view(clips.spectrograms, frames, axis=2)
    tracks = clips.track[which]
    return Windows(view[which, :, starts], clips.peak_db[which], clips.labels[tracks], tracks)
