"""Cut windows in pairs that sound alike, for training without labels.

A pair is two windows of one instance: of the same track, or of two tracks of the same group. The pairs of an epoch
follow from its seed alone, so they are the same for any number of workers that have all clips.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from genre.arrays import Ints
from genre.errors import ConfigError
from genre.features import windows
from genre.features.clips import Clips
from genre.features.windows import EpochPlan, Windows, Worker
from genre.wording import plural


def instances_of(clips: Clips, pairs: Literal["track", "group"]) -> Ints:
    """Return the instance of each track, (tracks,): the track itself or its group; the same numbers on all machines."""
    if pairs == "track":
        return np.arange(len(clips.track_ids))
    instances: Ints = clips.groups.dictionary_encode().indices.to_numpy().astype(np.int64)
    return instances


def plan(clips: int, per_clip: int, batch_size: int, world: int = 1) -> EpochPlan:
    """Return how an epoch of pairs is cut into steps, counted in pairs; it has about `per_clip` windows of each clip.

    `batch_size` counts windows. Raises `ConfigError` when a worker would get fewer than two pairs.
    """
    total = clips * per_clip // 2
    batch = min(batch_size // 2, total)
    share = batch // world
    if share < 2:
        raise ConfigError(
            f"pretrain.batch_size={batch_size} with {plural(total, 'pair')} of windows and {plural(world, 'worker')} "
            f"leaves {plural(share, 'pair')} for a worker's step, and the loss compares at least 2; use a larger "
            "batch, more music or fewer workers"
        )
    return EpochPlan(total // batch, batch, share)


def training_pairs(
    clips: Clips, instances: Ints, frames: int, per_clip: int, batch_size: int, seed: tuple[int, ...], worker: Worker
) -> Iterator[Windows]:
    """Yield one epoch of pairs at random positions: windows `i` and `n / 2 + i` of a batch of `n` are a pair.

    `instances` are as in `instances_of`. Each clip is the first of a pair before one is for the second time, so that
    a batch has few windows of the same track. Workers, seed and pairs that fill no batch are as in
    `windows.training_windows`.
    """
    epoch, peers = plan(clips.total, per_clip, batch_size, worker.world), worker.of_clips
    rng = np.random.default_rng(seed)
    per_step = epoch.share * peers.world if worker.peers else epoch.batch  # pairs of the clips on this machine
    count = epoch.steps * per_step
    first = np.concatenate([rng.permutation(len(clips)) for _ in range(-(-count // len(clips)))])[:count]
    rows = np.stack([first, partners(clips, instances, first, rng)])
    starts = rng.integers(0, clips.shape.frames - frames + 1, size=rows.shape)
    begins = range(peers.rank * epoch.share, epoch.steps * per_step, per_step)
    shares = (slice(begin, begin + epoch.share) for begin in begins)
    return windows.cut_each(clips, ((rows[:, pairs].ravel(), starts[:, pairs].ravel()) for pairs in shares), frames)


def partners(clips: Clips, instances: Ints, rows: Ints, rng: np.random.Generator) -> Ints:
    """Return for each clip of `rows` a random clip of its instance, (rows,): of another track if there are several.

    Only clips of this machine are chosen.
    """
    instance = instances[clips.track]
    order = np.lexsort((clips.track, instance))  # clips of an instance are neighbours, and so are those of a track
    of_instance, of_track = _ranges(instance[order]), _ranges(clips.track[order])
    place = np.empty(len(clips), np.int64)
    place[order] = np.arange(len(clips))
    begin, end = of_instance[:, place[rows]]
    own_begin, own_end = of_track[:, place[rows]]
    own = own_end - own_begin
    is_alone = own == end - begin
    # a number among the clips of the other tracks, or of the only one; those after the own track are counted on
    drawn = begin + rng.integers(0, np.where(is_alone, own, end - begin - own))
    drawn += np.where(~is_alone & (drawn >= own_begin), own, 0)
    chosen: Ints = order[drawn]
    return chosen


def _ranges(values: Ints) -> Ints:
    """Return begin and end of the run of equal values that each value is in, (2, values)."""
    ends = np.flatnonzero(np.diff(values, append=-1)) + 1
    lengths = np.diff(ends, prepend=0)
    return np.repeat(np.stack([ends - lengths, ends]), lengths, axis=1)
