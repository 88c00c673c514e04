"""Tests of the pairs of windows that pretraining compares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from making import make_clips

from genre.arrays import Ints
from genre.errors import ConfigError
from genre.features import Clips, pairs, windows
from genre.features.windows import Windows, Worker


def clips_of(counts: list[int], groups: list[int], seed: int = 0) -> Clips:
    """Return clips of tracks that have `counts` clips each and belong to `groups`, in a random order."""
    clips = make_clips(tracks=sum(counts))
    track = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    names = pa.array([f"artist {group}" for group in groups])
    ids = pa.array([f"{number}" for number in range(len(counts))])
    return replace(clips, track=track, track_ids=ids, groups=names, labels=np.zeros(len(counts), np.int64))


music = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=9).map(
    lambda tracks: clips_of([count for count, _ in tracks], [group for _, group in tracks])
)


@given(music, st.integers(0, 9))
def test_a_partner_is_of_the_same_unit_and_of_another_track_where_there_is_one(clips: Clips, seed: int) -> None:
    rows = np.arange(len(clips))
    for kind in ("track", "group"):
        instances = pairs.instances_of(clips, "group" if kind == "group" else "track")
        partner = pairs.partners(clips, instances, rows, np.random.default_rng(seed))
        own, other = clips.track[rows], clips.track[partner]
        assert (instances[own] == instances[other]).all()
        has_others = np.bincount(instances, minlength=instances.max() + 1)[instances[own]] > 1
        assert ((own != other) == has_others).all()


def test_every_clip_of_the_other_tracks_is_as_likely() -> None:
    clips = clips_of([1, 2, 3, 2], [0, 0, 0, 1])
    row = int(np.flatnonzero(clips.track == 1)[0])
    drawn = pairs.partners(clips, pairs.instances_of(clips, "group"), np.full(8000, row), np.random.default_rng(0))
    counts = np.bincount(drawn, minlength=len(clips))
    assert (counts[np.isin(clips.track, (1, 3))] == 0).all()
    assert counts[np.isin(clips.track, (0, 2))] == pytest.approx(2000, abs=200)


def drawn_at_once(clips: Clips, instances: Ints, per_clip: int, batch: int, seed: int) -> Iterator[tuple[Ints, Ints]]:
    """Yield clips and starts of the batches of one worker, from arrays of all numbers of the epoch."""
    plan, rng = pairs.plan(len(clips), per_clip, batch), np.random.default_rng(seed)
    count = plan.steps * plan.batch
    first = np.concatenate([rng.permutation(len(clips)) for _ in range(-(-count // len(clips)))])[:count]
    order = np.lexsort((clips.track, instances[clips.track]))
    instance, track = instances[clips.track][order], clips.track[order]
    begin, end = (np.searchsorted(instance, instances[clips.track[first]], side) for side in ("left", "right"))
    own_begin = np.array([np.flatnonzero(track == number)[0] for number in clips.track[first]])
    own = np.bincount(track)[clips.track[first]]
    others = end - begin - own
    drawn = begin + rng.integers(0, np.where(others == 0, own, others))
    drawn += np.where((others > 0) & (drawn >= own_begin), own, 0)
    rows = np.stack([first, order[drawn]])
    starts = rng.integers(0, clips.shape.frames - 16 + 1, size=rows.shape)
    for step in range(plan.steps):
        part = slice(step * plan.batch, (step + 1) * plan.batch)
        yield rows[:, part].ravel(), starts[:, part].ravel()


@given(music, st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 5), st.integers(4, 20))
def test_pairs_are_drawn_as_if_the_epoch_were_in_memory(
    clips: Clips, seed: int, chunk: int, per_clip: int, batch: int
) -> None:
    assume(len(clips) * per_clip // 2 >= 2)
    instances = pairs.instances_of(clips, "group")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "_CHUNK", chunk)
        batches = list(pairs.training_pairs(clips, instances, 16, per_clip, batch, (seed,), Worker()))
    expected = list(drawn_at_once(clips, instances, per_clip, batch, seed))
    for computed, (rows, starts) in zip(batches, expected, strict=True):
        other = windows.cut(clips, rows, starts, 16)
        for array, same in zip(vars(computed).values(), vars(other).values(), strict=True):
            np.testing.assert_array_equal(array, same, strict=True)


def epoch(clips: Clips, world: int, seed: int = 0) -> list[list[Windows]]:
    """Return the batches of each worker, of 12 windows over all of them."""
    instances = pairs.instances_of(clips, "track")
    shards = [Worker(rank, world) for rank in range(world)]
    return [list(pairs.training_pairs(clips, instances, 16, 3, 12, (seed, 1), worker)) for worker in shards]


@pytest.mark.parametrize("world", [2, 3])
def test_the_workers_share_the_pairs_of_one_worker(world: int) -> None:
    clips = make_clips(tracks=11, per_track=2)
    (alone,) = epoch(clips, 1)
    for batch, *shares in zip(alone, *epoch(clips, world), strict=True):
        for half in (0, 1):  # the first windows of the pairs, and the second ones
            parts = [np.split(share.spectrograms, 2)[half] for share in shares]
            assert np.array_equal(np.split(batch.spectrograms, 2)[half], np.concatenate(parts))


def test_windows_half_a_batch_apart_are_of_the_same_track_and_differ() -> None:
    clips = make_clips(tracks=9, per_track=2)
    (batches,) = epoch(clips, 1)
    assert len(batches) == 4  # 27 pairs, 6 in a step
    for batch in batches:
        first, second = np.split(batch.tracks, 2)
        assert np.array_equal(first, second)
        one, two = np.split(batch.spectrograms, 2)
        assert not np.array_equal(one, two)
    (again,), (other,) = epoch(clips, 1), epoch(clips, 1, seed=1)
    assert np.array_equal(again[0].spectrograms, batches[0].spectrograms)
    assert not np.array_equal(other[0].spectrograms, batches[0].spectrograms)


def test_a_machine_with_a_share_of_the_clips_makes_as_many_steps() -> None:
    clips = make_clips(tracks=12)
    shared = replace(clips, stored=clips.spectrograms[:5], peak_db=clips.peak_db[:5], track=clips.track[:5])
    shared = replace(shared, everywhere=np.ones(12, np.int64))
    worker = Worker(1, 2, peers=Worker(0, 1))
    batches = list(pairs.training_pairs(shared, pairs.instances_of(shared, "track"), 16, 4, 12, (0, 1), worker))
    assert [len(batch.tracks) for batch in batches] == [6] * 4
    assert max(batch.tracks.max() for batch in batches) < 5


@pytest.mark.parametrize(("clips", "batch", "world"), [(100, 12, 4), (1, 128, 1), (3, 128, 2)])
def test_too_few_pairs_for_a_worker_are_refused(clips: int, batch: int, world: int) -> None:
    with pytest.raises(ConfigError, match=r"pretrain.batch_size=\d+ .* leaves \d pairs? for a worker's step"):
        pairs.plan(clips, 2, batch, world)
