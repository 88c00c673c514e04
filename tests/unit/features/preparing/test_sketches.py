"""Sketches of tracks: alike for copies in another form, unlike for other music, absent where there is too little."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from genre.arrays import Float32
from genre.audio import recordings
from genre.corpora.synthetic.compose import compose
from genre.corpora.synthetic.instruments import SAMPLE_RATE
from genre.corpora.synthetic.styles import STYLES
from genre.evaluation import changes
from genre.evaluation.changes import Sound
from genre.features.preparing import near_copies, sketches
from genre.features.preparing.tracks import TrackPreparer
from genre.features.recipe import Recipe
from genre.settings import Config

RECIPE = Recipe.of(Config.model_validate({"audio": {"clip_seconds": 8}}))


def sketch_of(samples: Float32, rate: int = SAMPLE_RATE, recipe: Recipe = RECIPE) -> bytes | None:
    track = TrackPreparer(recipe).track(recordings.of_samples(samples, rate, recipe.audio))
    return sketches.sketch(track.clips, track.end_seconds, recipe.shape())


def near(*made: bytes | None) -> list[list[int]]:
    """Return the pairs of near copies among sketches."""
    pairs: list[list[int]] = near_copies.near(
        pa.chunked_array([list(made)], pa.binary()), np.arange(len(made))
    ).tolist()
    return pairs


@pytest.fixture(scope="module")
def song() -> Float32:
    return compose("waltz", 1, 2, seconds=14.0)


@pytest.mark.parametrize(
    "change",
    [
        lambda sound: changes.change_level(sound, -6.0),
        lambda sound: changes.change_level(sound, -30.0),
        lambda sound: changes.through_mp3(sound, 128),
        lambda sound: changes.through_mp3(changes.change_level(sound, -6.0), 96),
        lambda sound: Sound(changes._resample(sound.samples, sound.sample_rate, 44100), 44100),
        lambda sound: Sound(np.repeat(sound.samples, 2, axis=1), sound.sample_rate),
    ],
)
def test_a_copy_in_another_form_is_found(song: Float32, change: Callable[[Sound], Sound]) -> None:
    copy = change(Sound(song[:, None], SAMPLE_RATE))
    assert near(sketch_of(song), sketch_of(copy.samples, copy.sample_rate)) == [[0, 1]]


@pytest.mark.parametrize("seed", range(6))
def test_a_copy_that_starts_later_is_found(song: Float32, seed: int) -> None:
    start = int(np.random.default_rng(seed).uniform(0.1, 3) * SAMPLE_RATE)  # no multiple of a frame
    assert near(sketch_of(song), sketch_of(song[start:])) == [[0, 1]]


def test_silence_at_the_end_changes_little(song: Float32) -> None:
    """Of a track that is shorter than a clip, the clip repeats the sound, which would hide what is repeated."""
    silent = np.concatenate([song, np.zeros(30 * SAMPLE_RATE, np.float32)])
    for seconds in (8, 30):
        recipe = Recipe.of(Config.model_validate({"audio": {"clip_seconds": seconds}}))
        made = [sketch_of(samples, recipe=recipe) for samples in (song, silent)]
        shared = near_copies.aligned(pa.chunked_array([made], pa.binary()), np.array([[0, 1]]))
        assert shared[0] > 2 * near_copies.LEAST


def test_other_music_of_the_same_artists_and_rhythms_is_not() -> None:
    songs = [
        compose(genre, artist, 100 * artist + n) for genre in list(STYLES)[:4] for artist in (0, 1) for n in (0, 1, 2)
    ]
    noises = [np.random.default_rng(seed).normal(0, 0.1, 8 * SAMPLE_RATE).astype(np.float32) for seed in range(3)]
    made = [sketch_of(samples) for samples in songs + noises]
    assert all(made)
    assert near(*made) == []


def test_the_same_loop_under_other_melodies_is_not_a_copy() -> None:
    drums = np.tile(compose("house", 3, 4, seconds=2.0)[: 2 * SAMPLE_RATE], 6)
    melodies = [compose("ballad", artist, artist, seconds=12.0)[: len(drums)] for artist in (5, 6, 7)]
    made = [sketch_of(drums[: len(melody)] + melody) for melody in melodies]
    assert all(made)
    assert near(*made) == []


def test_what_has_too_few_landmarks_has_no_sketch() -> None:
    time = np.arange(8 * SAMPLE_RATE) / SAMPLE_RATE
    for pitches in ([440.0], [220.0, 277.2, 329.6]):
        assert (
            sketch_of(np.sum([0.2 * np.sin(2 * np.pi * hz * time) for hz in pitches], axis=0).astype(np.float32))
            is None
        )


def test_only_the_first_two_minutes_count() -> None:
    rng = np.random.default_rng(0)
    begin, *ends = (rng.normal(0, 0.1, seconds * SAMPLE_RATE).astype(np.float32) for seconds in (121, 4, 9))
    made = [sketch_of(np.concatenate([begin, end])) for end in ends]
    assert near(*made) == [[0, 1]]
    assert len(made[0] or b"") == sketches.BYTES
