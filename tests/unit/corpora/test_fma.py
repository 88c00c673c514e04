"""FMA by its metadata."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from scanning import ids, refused, scan, settings, touch

from genre import corpora
from genre.corpora import fma


class TestFma:
    ROWS = (
        # track, subset, split, artist, genre, title
        (2, "small", "training", "1", "Hip-Hop", "Food"),
        (5, "small", "validation", "1", "Hip-Hop", 'a "quoted", title\nof two lines'),
        (10, "small", "test", "6", "Pop", "Freeway"),
        (140, "medium", "training", "54", "Old-Time / Historic", "Queen"),
        (3000, "large", "training", "9", "", "x"),
    )

    @staticmethod
    def metadata(root: Path, rows: Any = ROWS) -> None:
        """Write tracks.csv as published: two levels of names, the name of the index, then one line per track."""
        header = [
            ["", "album", "artist", "artist", "set", "set", "track", "track", "track"],
            ["", "title", "bio", "id", "split", "subset", "duration", "genre_top", "title"],
            ["track_id", "", "", "", "", "", "", "", ""],
        ]
        touch(root, "fma_metadata/tracks.csv")
        with open(root / "fma_metadata" / "tracks.csv", "w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(header)
            for track, subset, split, artist, genre, title in rows:
                csv.writer(stream).writerow([track, "A", "<p>bio</p>", artist, split, subset, 168, genre, title])

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        self.metadata(tmp_path)
        return touch(tmp_path, *(f"fma_small/000/{n:06d}.mp3" for n in (2, 5)), "fma_small/checksums")

    def test_small(self, root: Path) -> None:
        tracks = scan("fma", root)
        assert [(t.track_id, t.genre, t.group, t.split, t.size) for t in tracks] == [
            ("000002", "Hip-Hop", "1", "train", 1),
            ("000005", "Hip-Hop", "1", "valid", 1),
            ("000010", "Pop", "6", "test", -1),  # listed, but missing
        ]
        assert tracks[2].path == str(root / "fma_small" / "000" / "000010.mp3")
        assert corpora.classes(settings("fma", root)) == list(fma.SMALL)
        assert {track.split for track in scan("fma", root, "random")} == {None}

    def test_medium_includes_the_small_tracks(self, root: Path) -> None:
        touch(root, *(f"fma_medium/000/{n:06d}.mp3" for n in (2, 5, 10, 140)))
        tracks = scan("fma", root, subset="medium")
        assert ids(tracks) == ["000002", "000005", "000010", "000140"]
        assert tracks[3].genre == "Old-Time / Historic"
        assert corpora.classes(settings("fma", root, subset="medium")) == sorted(fma.MEDIUM)
        assert set(fma.SMALL) < set(fma.MEDIUM)

    @pytest.mark.parametrize("subset", ["large", "full"])
    def test_tracks_of_several_top_level_genres_are_unlabelled(self, root: Path, subset: str) -> None:
        touch(root, *(f"fma_{subset}/000/{n:06d}.mp3" for n in (2, 5, 10, 140)), f"fma_{subset}/003/003000.mp3")
        tracks = {track.track_id: track for track in scan("fma", root, subset=subset)}
        assert list(tracks) == ["000002", "000005", "000010", "000140", "003000"]
        assert (tracks["003000"].genre, tracks["003000"].split) == (None, corpora.UNLABELLED)
        assert (tracks["000005"].genre, tracks["000005"].split) == ("Hip-Hop", "valid")
        assert corpora.classes(settings("fma", root, subset=subset)) == sorted(fma.MEDIUM)
        random = {track.split for track in scan("fma", root, "random", subset=subset)}
        assert random == {None, corpora.UNLABELLED}

    def test_small_is_read_from_medium(self, root: Path) -> None:
        (root / "fma_small").rename(root / "fma_medium")
        touch(root, "fma_medium/000/000140.mp3")
        assert ids(scan("fma", root)) == ["000002", "000005", "000010"]

    def test_refusals(self, root: Path) -> None:
        assert "has no folder fma_medium" in refused("fma", root, subset="medium")
        assert "params.subset: found \"huge\"; use 'small', 'medium', 'large' or 'full'" in refused(
            "fma", root, subset="huge"
        )
        touch(root, "fma_small/009/009999.mp3")
        assert "'009/009999.mp3' is not in fma_metadata/tracks.csv" in refused("fma", root)
        (root / "fma_metadata" / "tracks.csv").write_text("path,genre\na,b\n")
        assert "is not FMA's tracks.csv" in refused("fma", root)
        (root / "fma_metadata" / "tracks.csv").unlink()
        assert "unpack fma_metadata.zip" in refused("fma", root)

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ((2, "small", "training", "1", "", "x"), "track 2 has genre ''"),
            ((2, "small", "dev", "1", "Rock", "x"), "track 2 has split 'dev'"),
        ],
    )
    def test_bad_row(self, root: Path, row: tuple[Any, ...], message: str) -> None:
        self.metadata(root, [row, self.ROWS[1]])
        assert message in refused("fma", root)
