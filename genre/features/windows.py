"""Cut clips into windows of the length that a model takes: random in training, evenly spaced in evaluation.

Windows are bytes. They are converted to decibels on the device of the model: bytes are a quarter of float32 to copy.
They have the frames first, as clips are stored, so that cutting copies one run of memory for each window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from genre.arrays import Bytes, Float32, Ints
from genre.errors import ConfigError
from genre.features.clips import Clips
from genre.features.schema import Shape
from genre.settings import TrainSettings
from genre.wording import plural

_BATCHES_AHEAD = 4  # whose windows are read from the disk before they are cut


@dataclass(frozen=True)
class Windows:
    """A batch of windows."""

    spectrograms: Bytes  # (batch, frames, bins)
    peak_db: Float32  # (batch,) of the clip
    labels: Ints  # (batch,)
    tracks: Ints  # (batch,) row in Clips.track_ids


@dataclass(frozen=True)
class Worker:
    """The rank of a worker among `world` equal ones."""

    rank: int = 0
    world: int = 1
    peers: Worker | None = None  # among the workers of its machine, where each machine has its own share of the clips

    @property
    def of_clips(self) -> Worker:
        """This worker among those that divide the clips of its machine; among all where each machine has all clips."""
        return self.peers or self


@dataclass(frozen=True)
class EpochPlan:
    """How an epoch is cut into optimiser steps. The number of steps does not depend on the number of workers."""

    steps: int
    batch: int  # windows in a step, over all workers
    share: int  # windows in a step, of one worker: batch // workers; the remainder is left out


def plan(clips: int, per_clip: int, batch_size: int, world: int = 1) -> EpochPlan:
    """Return a plan of full batches over all workers, or of one smaller batch when there are too few clips.

    Raises `ConfigError` when a worker would get fewer than two windows, which batch norm needs.
    """
    total = clips * per_clip
    batch = min(batch_size, total)
    share = batch // world
    if share < 2:
        raise ConfigError(
            f"train.batch_size={batch_size} with {plural(total, 'training window')} and {plural(world, 'worker')} "
            f"leaves {plural(share, 'window')} for a worker's step, batch norm needs 2; use a larger batch or fewer "
            "workers"
        )
    return EpochPlan(total // batch, batch, share)


def per_epoch(settings: TrainSettings, shape: Shape) -> int:
    """Return `windows_per_clip`, or for 0 the number of windows that fill a clip."""
    return settings.windows_per_clip or max(1, round(shape.frames / shape.frames_in(settings.window_seconds)))


def eval_starts(frames: int, clip_frames: int, per_clip: int) -> Ints:
    """Return the first frames of at most `per_clip` different windows, evenly spaced from end to end of a clip."""
    last = clip_frames - frames
    return np.unique(np.linspace(0, last, min(per_clip, last + 1)).round().astype(np.int64))


def training_windows(
    clips: Clips, frames: int, per_clip: int, batch_size: int, seed: tuple[int, ...], worker: Worker = Worker()
) -> Iterator[Windows]:
    """Yield one epoch of random windows. The workers' shares of a batch are disjoint and of equal size.

    `seed` decides everything, so an epoch can be repeated. Windows that do not fill the last batch are left out; the
    order is different in each epoch. Where each machine has its own clips, a machine with fewer than its part of the
    batches repeats some windows, from other positions.
    """
    epoch, peers = plan(clips.total, per_clip, batch_size, worker.world), worker.of_clips
    rng = np.random.default_rng(seed)
    order = np.repeat(np.arange(len(clips), dtype=np.uint32), per_clip)  # of an epoch: it may have 100 million windows
    rng.shuffle(order)
    per_step = epoch.share * peers.world if worker.peers else epoch.batch  # windows of the clips on this machine
    own = np.arange(epoch.share) + peers.rank * epoch.share

    def shares() -> Iterator[tuple[Ints, Ints]]:
        for begin in range(0, epoch.steps * per_step, per_step):
            starts = rng.integers(0, clips.shape.frames - frames + 1, size=per_step)  # of all workers
            yield order.take(begin + own, mode="wrap").astype(np.int64), starts[own]

    return cut_each(clips, shares(), frames)


def evaluation_windows(
    clips: Clips, frames: int, per_clip: int, batch_size: int, worker: Worker = Worker()
) -> Iterator[Windows]:
    """Yield evenly spaced windows of every clip, from its first to its last frame, at most `2 * batch_size` at a time.

    Groups of complete tracks, of about `batch_size` windows each, are dealt to the workers in turn. A batch lies
    within a group, so batches are the same for any number of workers. This matters because the last bit of a network's
    output can depend on the size of the batch.
    """
    starts = eval_starts(frames, clips.shape.frames, per_clip)
    of_track = np.bincount(clips.track, minlength=len(clips.track_ids)) * len(starts)
    group = ((np.cumsum(of_track) - of_track) // batch_size)[clips.track]
    order = np.argsort(group, kind="stable")
    peers = worker.of_clips
    members = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)[peers.rank :: peers.world]
    return cut_each(clips, _evaluation_batches(members, starts, 2 * batch_size), frames)


def _evaluation_batches(groups: list[Ints], starts: Ints, size: int) -> Iterator[tuple[Ints, Ints]]:
    """Yield clip and start of each window of each group of clips, at most `size` windows at a time."""
    for group in groups:
        clip, start = np.repeat(group, len(starts)), np.tile(starts, len(group))
        for begin in range(0, len(clip), size):
            yield clip[begin : begin + size], start[begin : begin + size]


def cut_each(clips: Clips, batches: Iterable[tuple[Ints, Ints]], frames: int) -> Iterator[Windows]:
    """Yield the windows of each batch of clips and starts, while those of the next batches are read from the disk."""
    waiting: deque[tuple[Ints, Ints]] = deque()
    for batch in batches:
        clips.prefetch(*batch, frames)
        waiting.append(batch)
        if len(waiting) > _BATCHES_AHEAD:
            yield cut(clips, *waiting.popleft(), frames)
    for batch in waiting:
        yield cut(clips, *batch, frames)


def cut(clips: Clips, rows: Ints, starts: Ints, frames: int) -> Windows:
    """Return windows of `frames` frames of the clips `rows`, each from its frame of `starts`, (windows,) both."""
    bins = clips.shape.bins
    flat = clips.stored.reshape(len(clips.stored), clips.shape.frames * bins)
    runs = np.lib.stride_tricks.sliding_window_view(flat, frames * bins, axis=1)
    tracks = clips.track[rows]
    spectrograms = runs[clips.rows_of(rows), starts * bins].reshape(len(rows), frames, bins)
    return Windows(spectrograms, clips.peak_db[rows], clips.labels[tracks], tracks)
