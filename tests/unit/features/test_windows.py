"""Tests of the windows of training and evaluation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from making import make_clips

from genre.arrays import Bytes
from genre.errors import ConfigError
from genre.features import Clips, Shape, windows
from genre.features.windows import Windows, Worker


def epoch(clips: Clips, world: int = 1, seed: int = 0, frames: int = 16, batch: int = 6) -> list[list[Windows]]:
    """Return the batches of each worker."""
    return [list(windows.training_windows(clips, frames, 2, batch, (seed, 1), Worker(r, world))) for r in range(world)]


def joined(batches: list[Windows]) -> Bytes:
    return np.concatenate([batch.spectrograms for batch in batches])


# --- the plan of an epoch


@pytest.mark.parametrize(
    ("clips", "per_clip", "batch", "world", "steps", "share"),
    [
        (100, 1, 32, 1, 3, 32),
        (100, 2, 32, 4, 6, 8),
        (100, 1, 32, 3, 3, 10),  # two windows of each batch are left out
        (10, 1, 32, 1, 1, 10),  # fewer than a batch
        (10, 1, 32, 3, 1, 3),
    ],
)
def test_plan(clips: int, per_clip: int, batch: int, world: int, steps: int, share: int) -> None:
    plan = windows.plan(clips, per_clip, batch, world)
    assert (plan.steps, plan.share) == (steps, share)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
def test_steps_do_not_depend_on_workers(world: int) -> None:
    assert windows.plan(263, 2, 32, world).steps == 16


@pytest.mark.parametrize(("clips", "batch", "world"), [(100, 1, 1), (100, 7, 4), (5, 32, 3), (0, 32, 1)])
def test_share_of_less_than_two_windows_is_refused(clips: int, batch: int, world: int) -> None:
    with pytest.raises(ConfigError, match=f"train.batch_size={batch} with {clips} training windows") as error:
        windows.plan(clips, 1, batch, world)
    assert "\n" not in str(error.value)


def test_window_has_at_least_one_frame_and_at_most_those_of_a_clip() -> None:
    clips = make_clips(frames=40)
    assert clips.shape.frames_in(0.23) == 10
    assert clips.shape.frames_in(9) == 40
    assert clips.shape.frames_in(1e-6) == 1


@given(st.integers(1, 2000), st.floats(1e-4, 1), st.floats(1e-6, 1e4))
def test_any_window_has_between_one_and_all_frames_of_a_clip(frames: int, frame_seconds: float, seconds: float) -> None:
    assert 1 <= Shape(8, frames, 80.0, frame_seconds).frames_in(seconds) <= frames


# --- training


def numbered_clips(tracks: int, per_track: int, frames: int) -> Clips:
    """Return clips whose lower bin holds the number of the clip and whose upper bin that of the frame."""
    clips = make_clips(tracks=tracks, per_track=per_track, frames=frames, classes=2, bins=2)
    clips.spectrograms[:, :, 0] = np.arange(len(clips))[:, None]
    clips.spectrograms[:, :, 1] = np.arange(frames)
    return clips


def check_windows(batch: Windows, clips: Clips, frames: int) -> None:
    """Check that each window is consecutive frames of one clip, with the peak, label and track of that clip."""
    assert batch.spectrograms.shape == (len(batch.labels), frames, 2)
    clip = batch.spectrograms[:, 0, 0].astype(int)
    assert (batch.spectrograms[:, :, 0] == clip[:, None]).all()
    assert (np.diff(batch.spectrograms[:, :, 1].astype(int)) == 1).all()
    np.testing.assert_array_equal(batch.peak_db, clips.peak_db[clip])
    np.testing.assert_array_equal(batch.tracks, clips.track[clip])
    np.testing.assert_array_equal(batch.labels, clips.clip_labels()[clip])


SIZES = {
    "tracks": st.integers(1, 12),
    "per_track": st.integers(1, 3),
    "clip_frames": st.integers(1, 30),
    "frames": st.integers(1, 30),
    "per_clip": st.integers(1, 4),
    "batch_size": st.integers(2, 20),
    "world": st.integers(1, 4),
}


@given(**SIZES, seed=st.integers(0, 2**32))
def test_training_windows_of_any_size_are_parts_of_clips_shared_without_overlap(
    tracks: int, per_track: int, clip_frames: int, frames: int, per_clip: int, batch_size: int, world: int, seed: int
) -> None:
    frames = min(frames, clip_frames)
    clips = numbered_clips(tracks, per_track, clip_frames)
    assume(min(batch_size, len(clips) * per_clip) // world >= 2)
    plan = windows.plan(len(clips), per_clip, batch_size, world)
    epochs = [
        list(windows.training_windows(clips, frames, per_clip, batch_size, (seed,), Worker(rank, world)))
        for rank in range(world)
    ]
    for batches in epochs:
        assert [len(batch.labels) for batch in batches] == [plan.share] * plan.steps
        for batch in batches:
            check_windows(batch, clips, frames)
    drawn = np.concatenate([batch.spectrograms[:, 0, 0] for batches in epochs for batch in batches])
    assert np.bincount(drawn).max() <= per_clip


@given(**SIZES, seed=st.integers(0, 2**32), is_shared=st.booleans())
def test_training_windows_are_drawn_as_if_the_epoch_were_in_memory(
    tracks: int,
    per_track: int,
    clip_frames: int,
    frames: int,
    per_clip: int,
    batch_size: int,
    world: int,
    seed: int,
    is_shared: bool,
) -> None:
    frames = min(frames, clip_frames)
    clips = numbered_clips(tracks, per_track, clip_frames)
    assume(min(batch_size, len(clips) * per_clip) // world >= 2)
    plan, worker = windows.plan(len(clips), per_clip, batch_size, world), Worker(0, world)
    if is_shared:  # the machine of one of the workers holds a part of the clips
        clips, worker = part_of(clips, list(range(-(-len(clips) // 2)))), Worker(0, world, Worker(0, 1))
    per_step = plan.share if is_shared else plan.batch
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.repeat(np.arange(len(clips)), per_clip))
    order = np.resize(order, max(len(order), plan.steps * per_step))
    starts = rng.integers(0, clip_frames - frames + 1, size=len(order))
    batches = list(windows.training_windows(clips, frames, per_clip, batch_size, (seed,), worker))
    assert len(batches) == plan.steps
    for step, batch in enumerate(batches):
        rows = slice(step * per_step, step * per_step + plan.share)
        expected = windows.cut(clips, order[rows], starts[rows], frames)
        for array, other in zip(vars(batch).values(), vars(expected).values(), strict=True):
            np.testing.assert_array_equal(array, other, strict=True)


# --- training, examples


def test_window_is_a_part_of_its_clip() -> None:
    clips = make_clips(tracks=6, per_track=2)
    batch = windows.cut(clips, np.array([0, 11, 3]), np.array([0, 24, 7]), 16)
    for row, (clip, start) in enumerate([(0, 0), (11, 24), (3, 7)]):
        assert np.array_equal(batch.spectrograms[row], clips.spectrograms[clip, start : start + 16])
        assert batch.peak_db[row] == clips.peak_db[clip]
        assert batch.tracks[row] == clips.track[clip]
        assert batch.labels[row] == clips.labels[clips.track[clip]]
    assert batch.spectrograms.flags.c_contiguous


def test_epoch_takes_each_clip_equally_often() -> None:
    clips = make_clips(tracks=12)
    (batches,) = epoch(clips)
    tracks = np.concatenate([batch.tracks for batch in batches])
    assert np.bincount(tracks).tolist() == [2] * 12
    assert all(len(batch.labels) == 6 for batch in batches)


def test_windows_start_anywhere_in_a_clip() -> None:
    clips = make_clips(tracks=200, frames=20)
    clips.spectrograms[:] = np.arange(20, dtype=np.uint8)[:, None]
    (batches,) = epoch(clips)
    assert set(joined(batches)[:, 0, 0].tolist()) == {0, 1, 2, 3, 4}


def test_seed_decides_an_epoch() -> None:
    clips = make_clips()
    assert np.array_equal(joined(epoch(clips)[0]), joined(epoch(clips)[0]))
    assert not np.array_equal(joined(epoch(clips)[0]), joined(epoch(clips, seed=1)[0]))


@pytest.mark.parametrize("world", [2, 3])
def test_workers_share_the_batches_of_a_single_worker(world: int) -> None:
    clips = make_clips(tracks=12)
    (batches,), parts = epoch(clips), epoch(clips, world)
    for step, batch in enumerate(batches):
        together = np.concatenate([worker[step].spectrograms for worker in parts])
        assert np.array_equal(together, batch.spectrograms)


# --- shares of several machines


def part_of(clips: Clips, rows: list[int]) -> Clips:
    """Return the clips of a machine that holds these rows."""
    return replace(
        clips,
        stored=clips.spectrograms[rows],
        peak_db=clips.peak_db[rows],
        track=clips.track[rows],
        everywhere=np.bincount(clips.track),
    )


def test_machines_with_shares_draw_their_part_of_every_batch_from_their_own_clips() -> None:
    clips = numbered_clips(tracks=25, per_track=1, frames=40)
    parts = [part_of(clips, [row for row in range(25) if row % 3 in held]) for held in ((0, 1), (2,))]
    shards = [(0, Worker(0, 3, Worker(0, 2))), (0, Worker(1, 3, Worker(1, 2))), (1, Worker(2, 3, Worker(0, 1)))]
    epochs = [list(windows.training_windows(parts[m], 16, 2, 12, (0, 1), worker)) for m, worker in shards]
    plan = windows.plan(25, 2, 12, 3)
    assert [len(batches) for batches in epochs] == [plan.steps] * 3
    for (machine, _), batches in zip(shards, epochs, strict=True):
        for batch in batches:
            assert len(batch.labels) == plan.share
            assert set(batch.spectrograms[:, 0, 0]) <= set(parts[machine].spectrograms[:, 0, 0])
            check_windows(batch, clips, 16)
    cut = [tuple(window) for batches in epochs[:2] for batch in batches for window in batch.spectrograms[:, 0]]
    assert len(set(cut)) > 0.9 * len(cut)  # the two workers of a machine share its windows


def test_a_machine_with_too_few_clips_repeats_some() -> None:
    clips = numbered_clips(tracks=20, per_track=1, frames=40)
    worker = Worker(0, 2, Worker(0, 1))
    batches = list(windows.training_windows(part_of(clips, [0, 1, 2]), 16, 2, 8, (0, 1), worker))
    assert [len(batch.labels) for batch in batches] == [4] * 5


def test_shares_are_evaluated_once_by_the_workers_of_their_machine() -> None:
    clips = numbered_clips(tracks=20, per_track=2, frames=40)
    seen: list[int] = []
    for held in range(2):
        part = part_of(clips, [row for row in range(40) if row // 2 % 2 == held])
        for rank in range(2):
            for batch in windows.evaluation_windows(part, 40, 1, 5, Worker(2 * held + rank, 4, Worker(rank, 2))):
                check_windows(batch, clips, 40)
                seen += batch.spectrograms[:, 0, 0].tolist()
    assert sorted(seen) == list(range(40))


# --- evaluation


def evaluated(clips: Clips, world: int = 1, batch: int = 7) -> list[list[Windows]]:
    return [list(windows.evaluation_windows(clips, 16, 3, batch, Worker(r, world))) for r in range(world)]


def test_evaluation_windows_are_evenly_spaced_from_end_to_end() -> None:
    clips = make_clips(tracks=1, frames=40)
    clips.spectrograms[:] = np.arange(40, dtype=np.uint8)[:, None]
    assert joined(evaluated(clips)[0])[:, 0, 0].tolist() == [0, 12, 24]


def test_clip_as_short_as_a_window_gives_one_window() -> None:
    assert len(joined(evaluated(make_clips(tracks=5, frames=16))[0])) == 5


@pytest.mark.parametrize("world", [1, 2, 3, 4, 50])
@pytest.mark.parametrize("per_track", [1, 3])
def test_every_window_is_evaluated_once_in_the_same_batch_by_any_number_of_workers(world: int, per_track: int) -> None:
    clips = make_clips(tracks=11, per_track=per_track)
    expected = {batch.spectrograms.tobytes() for batch in evaluated(clips)[0]}
    parts = [batch for worker in evaluated(clips, world) for batch in worker]
    assert {batch.spectrograms.tobytes() for batch in parts} == expected
    assert sum(len(batch.labels) for batch in parts) == 11 * per_track * 3


def test_track_is_evaluated_by_one_worker() -> None:
    clips = make_clips(tracks=20, per_track=2)
    tracks = [{int(track) for batch in worker for track in batch.tracks} for worker in evaluated(clips, 3)]
    assert sum(map(len, tracks)) == len(set().union(*tracks)) == 20


def test_long_tracks_do_not_make_large_batches() -> None:
    clips = make_clips(tracks=2, per_track=60)
    assert max(len(batch.labels) for batch in evaluated(clips)[0]) <= 14


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20))
def test_evaluation_starts_are_distinct_and_evenly_spaced(clip_frames: int, frames: int, per_clip: int) -> None:
    frames = min(frames, clip_frames)
    starts = windows.eval_starts(frames, clip_frames, per_clip)
    last = clip_frames - frames
    assert len(starts) == min(per_clip, last + 1)
    assert starts[0] == 0
    if len(starts) > 1:
        gaps = np.diff(starts)
        assert starts[-1] == last
        assert 1 <= gaps.min() <= gaps.max() <= gaps.min() + 1


@given(**SIZES)
def test_evaluation_takes_the_same_windows_of_each_clip_with_any_number_of_workers(
    tracks: int, per_track: int, clip_frames: int, frames: int, per_clip: int, batch_size: int, world: int
) -> None:
    frames = min(frames, clip_frames)
    clips = numbered_clips(tracks, per_track, clip_frames)
    seen: list[tuple[int, int]] = []
    for rank in range(world):
        for batch in windows.evaluation_windows(clips, frames, per_clip, batch_size, Worker(rank, world)):
            assert len(batch.labels) <= 2 * batch_size
            check_windows(batch, clips, frames)
            seen += zip(batch.spectrograms[:, 0, 0].tolist(), batch.spectrograms[:, 0, 1].tolist(), strict=True)
    starts = windows.eval_starts(frames, clip_frames, per_clip).tolist()
    assert sorted(seen) == [(clip, start) for clip in range(len(clips)) for start in starts]
