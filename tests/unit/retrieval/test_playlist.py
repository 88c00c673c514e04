"""Playlists: what is chosen, the order of artists, and the file."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genre.retrieval import m3u, playlist
from genre.retrieval.playlist import Song
from genre.storage import Location


def song(path: str, artist: str | None = None, seconds: float = 60.0, place: int = 0) -> Song:
    """Return a song; those of different places have orthogonal vectors."""
    return Song(path, artist, path, seconds, np.eye(16, dtype=np.float32)[place])


@st.composite
def collections(draw: st.DrawFn) -> list[Song]:
    artists = draw(st.lists(st.sampled_from(["a", "b", "c", "d", None]), max_size=12))
    return [
        song(str(n), artist, draw(st.sampled_from([30.0, 100.0])), draw(st.integers(0, 15)))
        for n, artist in enumerate(artists)
    ]


def repeats(songs: list[Song] | tuple[Song, ...]) -> int:
    """Return how often a song has the artist of the one before it."""
    return sum(a.artist == b.artist is not None for a, b in itertools.pairwise(songs))


@given(collections(), st.sampled_from([0.0, 50.0, 200.0, 10_000.0]))
def test_a_playlist_is_long_enough_and_has_no_duplicates(songs: list[Song], seconds: float) -> None:
    chosen = playlist.choose(songs, seconds, bound=0.9)
    places = [int(each.vector.argmax()) for each in chosen]
    assert len(set(places)) == len(places)
    assert len({each.path for each in chosen}) == len(chosen)
    total = sum(each.seconds for each in chosen)
    if total < seconds:  # then all are used, one of each place
        assert set(places) == {int(each.vector.argmax()) for each in songs}
    else:
        assert total - max([each.seconds for each in chosen], default=0) < seconds or not chosen


@given(collections())
def test_no_artist_follows_himself_if_another_order_avoids_it(songs: list[Song]) -> None:
    """The fewest possible repeats follow from the artist with the most songs: the others are put between them."""
    ordered = playlist.separate(songs)
    assert sorted(each.path for each in ordered) == sorted(each.path for each in songs)
    counts = [sum(each.artist == artist for each in songs) for artist in "abcd"]
    most = max(counts)
    assert repeats(ordered) == max(0, most - (len(songs) - most) - 1)


@given(collections())
def test_an_order_that_needs_no_change_is_kept(songs: list[Song]) -> None:
    once = playlist.separate(songs)
    if not repeats(songs):
        assert once == songs
    if not repeats(once):
        assert playlist.separate(once) == once


@given(collections(), st.floats(10, 1000))
def test_a_song_that_waits_is_next_when_it_can_be(songs: list[Song], seconds: float) -> None:
    """If songs are left over that would have separated the artists, none of them follows himself."""
    chosen = playlist.choose(songs, seconds, bound=2.0)
    rest = [each for each in songs if each not in chosen]
    if repeats(chosen):
        (twice,) = {a.artist for a, b in itertools.pairwise(chosen) if a.artist == b.artist is not None}
        assert all(each.artist == twice for each in rest)


def test_the_nearest_track_of_another_artist_comes_between() -> None:
    songs = [song("1", "a"), song("2", "a"), song("3", "b"), song("4", "a"), song("5", None), song("6", None)]
    chosen = playlist.choose(songs, 5 * 60, bound=2.0)
    assert [each.path for each in chosen] == ["1", "3", "2", "5", "4"]


_NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=8)


@given(st.lists(_NAMES.filter(lambda name: name not in (".", "..")), min_size=1, max_size=3), _NAMES)
def test_a_line_of_a_playlist_leads_to_the_song(folders: list[str], name: str) -> None:
    path = "/".join(["", "music", *folders, f"{name}.mp3"])
    target = Location.of("/music/lists/x.m3u8")
    line = m3u.address(path, target)
    if line is None:
        assert path.splitlines() != [path]
        return
    assert not line.startswith(("/", "#"))
    assert Path(Path("/music/lists") / line).parts[:3] == ("/", "music", "lists")
    assert str(Location.of(f"/music/lists/{line}").path) == path
    text = m3u.content([Song(path, None, f"{name}\n- x", 61.4, np.zeros(1, np.float32))], target)
    assert text.splitlines()[1].startswith("#EXTINF:61,")
    assert text.splitlines()[2:] == [line]


@pytest.mark.parametrize(
    ("path", "target", "line"),
    [
        ("/m/a b.mp3", "/m/x.m3u8", "a b.mp3"),
        ("/m/#1.mp3", "/m/x.m3u8", "./#1.mp3"),
        ("/m/x/a.mp3", "/m/lists/x.m3u8", "../x/a.mp3"),
        ("s3://b/a.mp3", "/m/x.m3u8", "s3://b/a.mp3"),
        ("/m/a\r.mp3", "/m/x.m3u8", None),
    ],
)
def test_addresses(path: str, target: str, line: str | None) -> None:
    assert m3u.address(path, Location.of(target)) == line
    if line is None:
        with pytest.raises(ValueError, match="line break"):
            m3u.content([song(path)], Location.of(target))
