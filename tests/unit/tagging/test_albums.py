"""One genre for an album."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from library import tone, write_tags

from genre.arrays import Float32, Ints
from genre.audio.tags import FileTags
from genre.model.calibration import Calibration
from genre.tagging.albums import AGREES, DIFFERS, FILLED, MOST_UNNAMED, NO_ALBUM, Albums, numbers, read_numbers
from genre.tagging.result_tables import Predictions

CLASSES = 3
CALIBRATION = Calibration(thresholds=(0.6, 0.7, 0.5), precision=0.8, tracks=100)


def decide(probabilities: Float32, albums: Ints, chunk: int = 1000) -> tuple[Ints, list[str | None]]:
    """Return the genres of tracks and their relation to the album, after `chunk` tracks are added at a time."""
    answers = Albums(albums, CLASSES, CALIBRATION)
    places = np.arange(len(albums))
    for begin in range(0, len(albums), chunk):
        answers.add(places[begin : begin + chunk], probabilities[begin : begin + chunk])
    return answers.decide(places, CALIBRATION.reported(probabilities))


@st.composite
def tracks(draw: st.DrawFn) -> tuple[Float32, Ints]:
    """Return probabilities of tracks (tracks, classes), and the album of each."""
    rows = draw(st.lists(st.tuples(*[st.integers(0, 20)] * CLASSES).filter(any), min_size=1, max_size=30))
    albums = draw(st.lists(st.integers(-1, 3), min_size=len(rows), max_size=len(rows)))
    weights = np.array(rows, np.float32)
    return weights / weights.sum(axis=1, keepdims=True), np.array(albums, np.int64)


@given(tracks(), st.randoms(), st.integers(1, 7))
def test_the_order_of_the_tracks_does_not_matter(sample: tuple[Float32, Ints], random: object, chunk: int) -> None:
    probabilities, albums = sample
    order = list(range(len(albums)))
    random.shuffle(order)  # type: ignore[attr-defined]
    genres, states = decide(probabilities, albums)
    shuffled, relations = decide(probabilities[order], albums[order], chunk)
    assert shuffled.tolist() == genres[order].tolist()
    assert relations == [states[place] for place in order]


@given(tracks())
def test_only_unknown_tracks_change_and_sure_ones_keep_their_own(sample: tuple[Float32, Ints]) -> None:
    probabilities, albums = sample
    own = CALIBRATION.reported(probabilities)
    genres, states = decide(probabilities, albums)
    filled: dict[int, set[int]] = {}
    for before, genre, state, album in zip(own, genres, states, albums, strict=True):
        assert genre == before or (before == -1 and state == FILLED)
        assert state is None or album != NO_ALBUM
        if state in (FILLED, AGREES):
            filled.setdefault(int(album), set()).add(int(genre))
        if state == DIFFERS:
            assert genre == before != -1
    assert all(len(album) == 1 for album in filled.values())


@given(tracks())
def test_a_track_alone_keeps_its_own_answer(sample: tuple[Float32, Ints]) -> None:
    probabilities, _ = sample
    genres, states = decide(probabilities, np.arange(len(probabilities)))
    assert genres.tolist() == CALIBRATION.reported(probabilities).tolist()
    assert set(states) == {None}


def test_an_album_fills_the_unsure_and_keeps_the_sure() -> None:
    sure, unsure, other = [0.9, 0.05, 0.05], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]
    genres, states = decide(np.array([sure, sure, unsure, sure, other], np.float32), np.zeros(5, np.int64))
    assert genres.tolist() == [0, 0, 0, 0, 2]
    assert states == [AGREES, AGREES, FILLED, AGREES, DIFFERS]


def test_one_track_that_excludes_a_genre_has_no_veto() -> None:
    rows = np.array([[1, 0, 0]] * 20 + [[0, 0, 1], [0.5, 0.25, 0.25]], np.float32)
    genres, states = decide(rows, np.zeros(22, np.int64))
    assert (genres[-1], states[-2:]) == (0, [DIFFERS, FILLED])


def test_an_album_of_three_thousand_tracks() -> None:
    rows = np.tile(np.array([[0.9, 0.05, 0.05]], np.float32), (3000, 1))
    rows[0] = 1 / 3
    genres, states = decide(rows, np.zeros(3000, np.int64))
    assert (set(genres.tolist()), states[0]) == ({0}, FILLED)


@pytest.mark.parametrize(
    ("albums", "artists", "is_album"),
    [
        (["A", "a"], ["X", "x feat. Y"], True),
        (["A", "B"], ["X", "X"], False),
        (["", ""], ["", ""], True),  # tags are missing
        (["", "Unknown Album"], ["X", ""], True),
        (["", ""], ["X", "Y"], False),  # a loose folder
        (["Hits 2003", "Hits 2003"], ["X", "Y"], False),  # a compilation
        (["A", "A"], ["Various Artists", "X"], True),  # which is nobody
    ],
)
def test_what_an_album_is(albums: list[str], artists: list[str], is_album: bool) -> None:
    found = [FileTags(album=album, artist=artist) for album, artist in zip(albums, artists, strict=True)]
    first, second = numbers(["/m/a.mp3", "/m/b.mp3"], found).tolist()
    assert (first == second != NO_ALBUM) is is_album
    assert set(numbers(["/m/a.mp3", "/n/b.mp3"], found).tolist()) == {NO_ALBUM}, "an album is in one folder"


def test_a_heap_of_songs_without_an_album_is_none_however_many_tracks_an_album_has() -> None:
    paths = [f"/m/{number}.mp3" for number in range(3000)]
    assert set(numbers(paths, [FileTags(album="A")] * 3000)) == {0}
    assert set(numbers(paths, [FileTags()] * 3000)) == {NO_ALBUM}
    assert set(numbers(paths[:MOST_UNNAMED], [FileTags()] * MOST_UNNAMED)) == {0}


def test_albums_are_read_from_the_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ("one/a.mp3", "one/b.flac", "one/c.m4a", "two/a.ogg", "two/b.wav")
    paths = [write_tags(tone(tmp_path / name), album=os.path.dirname(name), artist="X") for name in names]
    (tmp_path / "two/bad.mp3").write_bytes(b"no music")
    paths += [tmp_path / "two/bad.mp3", tmp_path / "two/gone.mp3"]
    found = read_numbers([str(path) for path in paths], [True] * len(paths))
    assert found[:3].tolist() == [found[0]] * 3
    assert found[3] == found[4] != found[0]
    assert found[5] == found[6] not in found[:5].tolist()
    assert "the tags of 2 files cannot be read" in caplog.text


def test_further_genres_have_half_the_probability_of_the_first() -> None:
    rows = np.array([[0.6, 0.3, 0.1], [0.7, 0.25, 0.05], [0.4, 0.35, 0.25]], np.float32)
    predictions = Predictions.of(rows, CALIBRATION)
    names = ["a", "b", "c"]
    assert predictions.genres(names, 1) == [["a"], ["a"], []]
    assert predictions.genres(names, 3) == [["a", "b"], ["a"], []]
    filled = Predictions(rows, np.array([0, 0, 2]))
    assert filled.genres(names, 3)[2] == ["c"], "the album's genre alone"
