"""A folder for each genre."""

from __future__ import annotations

from pathlib import Path

import pytest
from scanning import ids, refused, scan, settings, touch

from genre import corpora
from genre.corpora import gtzan


class TestFolder:
    def test_genre_group_and_id(self, tmp_path: Path) -> None:
        touch(tmp_path, "rock/a.wav", "rock/a.mp3", "rock/Band/x.wav", "folk/Band/Album/CD 1/x.wav")
        assert [(track.track_id, track.genre, track.group, track.split) for track in scan("folder", tmp_path)] == [
            ("folk/Band/Album/CD 1/x.wav", "folk", "band", None),
            ("rock/Band/x.wav", "rock", "band", None),
            ("rock/a.mp3", "rock", None, None),
            ("rock/a.wav", "rock", None, None),
        ]
        assert corpora.classes(settings("folder", tmp_path)) is None

    @pytest.mark.parametrize(
        ("path", "group"),
        [
            ("rock/A/Abba/x.wav", "abba"),
            ("rock/0-9/2 Unlimited/CD1/x.wav", "2unlimited"),
            ("rock/CD 2/x.wav", None),
            ("rock/Various Artists/Hits Vol. 3/x.wav", "hitsvol3"),
            ("rock/Beyoncé feat. Jay-Z/x.wav", "beyonce"),
            ("rock/U2/x.wav", "u2"),
        ],
    )
    def test_a_shelf_and_nobody_are_no_artist(self, tmp_path: Path, path: str, group: str | None) -> None:
        (track,) = scan("folder", touch(tmp_path, path))
        assert track.group == group

    def test_decomposed_names_give_the_same_genre_and_group(self, tmp_path: Path) -> None:
        touch(tmp_path, "Électro/Zoé/a.wav", "E\u0301lectro/Zoe\u0301/b.wav")
        tracks = scan("folder", tmp_path)
        assert len({track.genre for track in tracks}) == len({track.group for track in tracks}) == 1
        assert len(set(ids(tracks))) == 2

    def test_group_pattern(self, tmp_path: Path) -> None:
        touch(tmp_path, "rock/Band - One.wav", "rock/Band - Two.wav", "rock/unknown.wav", "folk/sub/Band - Three.wav")
        tracks = scan("folder", tmp_path, group_pattern=r"(?P<group>[^/]+) - ")
        assert [track.group for track in tracks] == ["Band", "Band", "Band", None]

    @pytest.mark.parametrize(
        ("pattern", "message"),
        [
            ("(", "is not a regular expression"),
            ("(.*)/", "has no group 'group'"),
            ("(?P<group>zzz)", "matched none of 1 paths"),
        ],
    )
    def test_bad_group_pattern(self, tmp_path: Path, pattern: str, message: str) -> None:
        assert message in refused("folder", touch(tmp_path, "rock/a.wav"), group_pattern=pattern)

    def test_loose_files(self, tmp_path: Path) -> None:
        touch(tmp_path, "rock/a.wav", "loose.wav")
        message = refused("folder", tmp_path)
        assert "'loose.wav' is in no genre's folder" in message
        assert "ignore_loose=true" in message
        assert ids(scan("folder", tmp_path, ignore_loose=True)) == ["rock/a.wav"]
        (tmp_path / "rock" / "a.wav").unlink()
        assert "holds no audio file in a genre's folder" in refused("folder", tmp_path, ignore_loose=True)

    def test_official_split_is_refused(self, tmp_path: Path) -> None:
        assert "has no published split" in refused("folder", touch(tmp_path, "rock/a.wav"), "official")

    def test_real_music(self, shared_data: Path) -> None:
        tracks = scan("folder", shared_data / "gtzan-mini")
        assert len(tracks) == 509
        assert {track.genre for track in tracks} == set(gtzan.GENRES)
