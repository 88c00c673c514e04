from __future__ import annotations

import numpy as np
import pytest
from making import make_clips

from genre.errors import ConfigError
from genre.features import Clips, windows
from genre.features.windows import Shard, Windows


def epoch(clips: Clips, world: int = 1, seed: int = 0, frames: int = 16, batch: int = 6) -> list[list[Windows]]:
    """The batches of each worker."""
    return [list(windows.training_windows(clips, frames, 2, batch, (seed, 1), Shard(r, world))) for r in range(world)]


def flat(batches: list[Windows]) -> np.ndarray:
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
def test_plan(clips, per_clip, batch, world, steps, share):
    made = windows.plan(clips, per_clip, batch, world)
    assert (made.steps, made.share) == (steps, share)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
def test_steps_do_not_depend_on_workers(world):
    assert windows.plan(263, 2, 32, world).steps == 16


@pytest.mark.parametrize(("clips", "batch", "world"), [(100, 1, 1), (100, 7, 4), (5, 32, 3), (0, 32, 1)])
def test_a_step_without_two_windows_is_refused(clips, batch, world):
    with pytest.raises(ConfigError, match=f"train.batch_size={batch} with {clips} training windows") as caught:
        windows.plan(clips, 1, batch, world)
    assert "\n" not in str(caught.value)


def test_frames_of_a_window_stay_within_a_clip():
    clips = make_clips(frames=40)
    assert clips.shape.frames_in(0.23) == 10
    assert clips.shape.frames_in(9) == 40
    assert clips.shape.frames_in(1e-6) == 1


# --- training


def test_a_window_is_a_part_of_its_clip():
    clips = make_clips(tracks=6, per_track=2)
    batch = windows.cut(clips, np.array([0, 11, 3]), np.array([0, 24, 7]), 16)
    for row, (clip, start) in enumerate([(0, 0), (11, 24), (3, 7)]):
        assert np.array_equal(batch.spectrograms[row], clips.spectrograms[clip, :, start : start + 16])
        assert batch.peak_db[row] == clips.peak_db[clip]
        assert batch.tracks[row] == clips.track[clip]
        assert batch.labels[row] == clips.labels[clips.track[clip]]


def test_an_epoch_takes_each_clip_equally_often():
    clips = make_clips(tracks=12)
    (batches,) = epoch(clips)
    tracks = np.concatenate([batch.tracks for batch in batches])
    assert np.bincount(tracks).tolist() == [2] * 12
    assert all(len(batch.labels) == 6 for batch in batches)


def test_windows_reach_from_the_first_to_the_last_frame():
    clips = make_clips(tracks=200, frames=20)
    clips.spectrograms[:] = np.arange(20, dtype=np.uint8)
    (batches,) = epoch(clips)
    assert set(flat(batches)[:, 0, 0].tolist()) == {0, 1, 2, 3, 4}


def test_the_seed_decides_an_epoch():
    clips = make_clips()
    assert np.array_equal(flat(epoch(clips)[0]), flat(epoch(clips)[0]))
    assert not np.array_equal(flat(epoch(clips)[0]), flat(epoch(clips, seed=1)[0]))


@pytest.mark.parametrize("world", [2, 3])
def test_workers_share_the_batches_of_one(world):
    clips = make_clips(tracks=12)
    (whole,), parts = epoch(clips), epoch(clips, world)
    for step, batch in enumerate(whole):
        together = np.concatenate([worker[step].spectrograms for worker in parts])
        assert np.array_equal(together, batch.spectrograms)


# --- evaluation


def evaluated(clips: Clips, world: int = 1, batch: int = 7) -> list[list[Windows]]:
    return [list(windows.evaluation_windows(clips, 16, 3, batch, Shard(r, world))) for r in range(world)]


def test_evaluation_windows_are_evenly_spaced_from_end_to_end():
    clips = make_clips(tracks=1, frames=40)
    clips.spectrograms[:] = np.arange(40, dtype=np.uint8)
    assert flat(evaluated(clips)[0])[:, 0, 0].tolist() == [0, 12, 24]


def test_a_clip_as_short_as_a_window_gives_one():
    assert len(flat(evaluated(make_clips(tracks=5, frames=16))[0])) == 5


@pytest.mark.parametrize("world", [1, 2, 3, 4, 50])
@pytest.mark.parametrize("per_track", [1, 3])
def test_every_window_is_evaluated_once_in_the_same_batch_by_any_number_of_workers(world, per_track):
    clips = make_clips(tracks=11, per_track=per_track)
    whole = {batch.spectrograms.tobytes() for batch in evaluated(clips)[0]}
    parts = [batch for worker in evaluated(clips, world) for batch in worker]
    assert {batch.spectrograms.tobytes() for batch in parts} == whole
    assert sum(len(batch.labels) for batch in parts) == 11 * per_track * 3


def test_a_track_is_evaluated_by_one_worker():
    clips = make_clips(tracks=20, per_track=2)
    tracks = [{int(track) for batch in worker for track in batch.tracks} for worker in evaluated(clips, 3)]
    assert sum(len(some) for some in tracks) == len(set().union(*tracks)) == 20


def test_long_tracks_do_not_make_large_batches():
    clips = make_clips(tracks=2, per_track=60)
    assert max(len(batch.labels) for batch in evaluated(clips)[0]) <= 14
