"""Cut windows in pairs that sound alike, for training without labels.

A pair is two windows of one instance: of the same track, or of two tracks of the same group. The pairs of an epoch
follow from its seed alone, so they are the same for any number of workers that have all clips.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from genre.arrays import Ints, Rows
from genre.errors import ConfigError
from genre.features import windows
from genre.features.clips import Clips
from genre.features.windows import EpochPlan, Windows, Worker
from genre.wording import plural

_CHUNK = 1 << 16  # rows


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
    first = _repeated_orders(len(clips), epoch.steps * per_step, rng)
    second = partners(clips, instances, first, rng)
    positions = clips.shape.frames - frames + 1
    later = copy.deepcopy(rng)  # draws the starts of the second windows, which follow those of all first ones
    for chunk in _chunks(len(first)):
        later.integers(0, positions, size=len(first[chunk]))
    own = slice(peers.rank * epoch.share, (peers.rank + 1) * epoch.share)

    def shares() -> Iterator[tuple[Ints, Ints]]:
        for begin in range(0, len(first), per_step):
            rows = [each[begin : begin + per_step][own] for each in (first, second)]
            starts = [each.integers(0, positions, size=per_step)[own] for each in (rng, later)]  # of all workers
            yield np.concatenate(rows).astype(np.int64), np.concatenate(starts)

    return windows.cut_each(clips, shares(), frames)


def _repeated_orders(clips: int, count: int, rng: np.random.Generator) -> Rows:
    """Return `count` rows of clips: all clips in a random order, then all in another one, and so on."""
    rows = np.empty(count, np.uint32)
    for begin in range(0, count, clips):
        order = np.arange(clips, dtype=np.uint32)
        rng.shuffle(order)
        rows[begin : begin + clips] = order[: count - begin]
    return rows


def partners(clips: Clips, instances: Ints, rows: npt.NDArray[np.integer[Any]], rng: np.random.Generator) -> Rows:
    """Return for each clip of `rows` a random clip of its instance, (rows,): of another track if there are several.

    Only clips of this machine are chosen.
    """
    places = _Places.of(clips, instances)
    chosen = np.empty(len(rows), np.uint32)
    for chunk in _chunks(len(rows)):
        place = places.of_track[clips.track[rows[chunk]]]
        begin, end = places.instance[:, place].astype(np.int64)
        own_begin, own_end = places.own[:, place].astype(np.int64)
        own = own_end - own_begin
        is_alone = own == end - begin
        # a number among the clips of the other tracks, or of the only one; those after the own track are counted on
        drawn = begin + rng.integers(0, np.where(is_alone, own, end - begin - own))
        drawn += np.where(~is_alone & (drawn >= own_begin), own, 0)
        chosen[chunk] = places.clips[drawn]
    return chosen


@dataclass(frozen=True)
class _Places:
    """Clips in an order in which those of an instance are neighbours, and so are those of a track."""

    clips: Rows  # (clips,) in this order
    of_track: Rows  # (tracks,) place of each track in the order of the tracks
    own: Rows  # (2, tracks) begin and end in `clips` of each track, by its place
    instance: Rows  # (2, tracks) and of its instance

    @classmethod
    def of(cls, clips: Clips, instances: Ints) -> _Places:
        """Sort clips by `instances`, (tracks,), and by track. Sorts tracks first, of which there may be few."""
        tracks = np.argsort(instances, kind="stable").astype(np.uint32)
        of_track = np.empty_like(tracks)
        of_track[tracks] = np.arange(len(tracks), dtype=np.uint32)
        order = np.argsort(of_track[clips.track], kind="stable").astype(np.uint32)
        edges = np.zeros(len(tracks) + 1, np.uint32)
        np.cumsum(np.bincount(clips.track, minlength=len(tracks))[tracks], out=edges[1:], dtype=np.uint32)
        own = np.stack([edges[:-1], edges[1:]])
        differs = np.diff(instances[tracks]) != 0
        begin = np.maximum.accumulate(own[0] * np.append(True, differs))
        end = np.where(np.append(differs, True), own[1], edges[-1])
        return cls(order, of_track, own, np.stack([begin, np.minimum.accumulate(end[::-1])[::-1]]))


def _chunks(count: int) -> Iterator[slice]:
    """Yield slices that divide `count` rows, so that what is computed of them is never all in memory."""
    for begin in range(0, count, _CHUNK):
        yield slice(begin, min(begin + _CHUNK, count))
