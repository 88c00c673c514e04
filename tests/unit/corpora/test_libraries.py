"""The corpus `tags`: genres and artists from the tags of a library."""

from __future__ import annotations

import shutil
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from library import CLASSES, tone, write_cyrillic_tags, write_library, write_tags
from music import InTurn
from scanning import refused, scan, settings, touch

from genre import corpora
from genre.audio.tags import FileTags
from genre.corpora import SPLITS, UNLABELLED, Track, group_of
from genre.corpora._genre_names import GenreNames, fold
from genre.features import Features
from genre.features.splitting.splits import require_trainable
from genre.storage import Location
from genre.tagging import file_tags
from ray_jobs import prepare
from ray_jobs.engine import cli

ALL: dict[str, Any] = {"min_tracks": 1, "min_artists": 1}


def song(root: Path, name: str, genre: str | list[str] = "", artist: str = "", **fields: str) -> Path:
    """Write a file with tags; its name decides its content."""
    values: dict[str, str | list[str]] = {"genre": genre, "artist": artist, **fields}
    return write_tags(tone(root / name, seed=sum(name.encode())), **{key: text for key, text in values.items() if text})


def genres(tracks: list[Track]) -> dict[str, str | None]:
    return {track.track_id: track.genre for track in tracks}


def report(root: Path, **params: Any) -> list[str]:
    lines: list[str] = []
    list(corpora.scan(settings("tags", root, **params), lines.append))
    return lines


def mappings(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


class TestNames:
    @given(st.text())
    def test_folding_again_changes_nothing(self, name: str) -> None:
        assert fold(fold(name)) == fold(name)

    @given(st.text())
    def test_unicode_form_case_and_spaces_do_not_count(self, name: str) -> None:
        for form in ("NFC", "NFD"):
            assert fold(unicodedata.normalize(form, name)) == fold(name)
        assert fold(f"  {name} ") == fold(name)
        assert fold(name.casefold()) == fold(name)

    @given(st.text(alphabet="abcXYZ019éÜñ", min_size=1), st.text(alphabet=" -_./'!", max_size=5))
    def test_punctuation_does_not_count(self, name: str, between: str) -> None:
        assert fold(between.join(name)) == fold(name)

    @given(st.text())
    def test_a_name_is_never_lost(self, name: str) -> None:
        assert bool(fold(name)) == bool("".join(name.split())) or all(
            unicodedata.combining(letter) or not letter.isprintable() for letter in name
        )

    @pytest.mark.parametrize(
        ("one", "other"),
        [("Hip-Hop", "hiphop"), ("Beyoncé", "BEYONCE"), ("Simon & Garfunkel", "Simon and Garfunkel"), ("!!!", "! !!")],
    )
    def test_spellings_are_equal(self, one: str, other: str) -> None:
        assert fold(one) == fold(other)

    def test_different_names_stay_different(self) -> None:
        names = ["がき", "かき", "Рок", "Рэп", "C", "C3", "!!!", "???", "música", "musical"]
        assert len({fold(name) for name in names}) == len(names)

    @given(st.text(min_size=1))
    def test_any_text_is_resolved_without_an_error(self, text: str) -> None:
        keys = GENRES.resolve(text)
        assert keys == [key for key in keys if key]
        assert len(set(keys)) == len(keys)


GENRES = GenreNames()


class TestMappings:
    def test_what_ships_has_no_contradiction(self) -> None:
        assert GENRES.problems == []

    @pytest.mark.parametrize(
        ("written", "names"),
        [
            ("hiphop", ["Hip-Hop"]), ("Rap/Hip Hop", ["Hip-Hop"]), ("Deep House", ["Electronic"]),
            ("R&B/Soul", ["R&B"]), ("Rock; Jazz", ["Rock", "Jazz"]), ("Rock/rock music", ["Rock"]), ("Other", []),
            ("", []), ("Рок", ["Rock"]),
            ("x" * 10_000, []), (", ".join(["rock"] * 400), []), ("???", []), ("Rock, " + "x" * 70, ["Rock"]),
        ],
    )  # fmt: skip
    def test_what_people_write(self, written: str, names: list[str]) -> None:
        assert [GENRES.name(key) for key in GENRES.resolve(written)] == names

    def test_nested_parents_count_as_the_highest(self, tmp_path: Path) -> None:
        file = mappings(tmp_path / "m.yaml", "parents: {C: B, B: A}\naliases: {C: [cee]}\n")
        assert GenreNames(file).resolve("Cee") == ["a"]

    def test_parents_in_a_circle_are_a_line_and_stay(self, tmp_path: Path) -> None:
        names = GenreNames(mappings(tmp_path / "m.yaml", "parents: {A: B, B: A, X: A, S: S}\n"))
        assert names.problems == [
            "parents in a circle: A > B > A; each stays a genre of its own",
            "parents in a circle: S > S; each stays a genre of its own",
        ]
        assert [names.resolve(text) for text in "ABXS"] == [["a"], ["b"], ["a"], ["s"]]

    def test_an_alias_of_two_genres_is_a_line(self, tmp_path: Path) -> None:
        names = GenreNames(mappings(tmp_path / "m.yaml", "aliases: {A: [x], B: [X]}\n"))
        assert names.problems == ["'X' is an alias of 'A' and of 'B'; the first counts"]
        assert names.resolve("x") == ["a"]

    @pytest.mark.parametrize("text", ["a: [", "[1]", "aliases: {A: b}", "unknown: {}", "\x00"])
    def test_a_file_that_is_no_mapping_is_refused(self, tmp_path: Path, text: str) -> None:
        song(tmp_path / "music", "a.mp3", "Rock")
        message = refused("tags", tmp_path / "music", genres=mappings(tmp_path / "m.yaml", text))
        assert "corpus.params.genres" in message

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        song(tmp_path / "music", "a.mp3", "Rock")
        assert "cannot be read" in refused("tags", tmp_path / "music", genres=str(tmp_path / "none.yaml"))


class TestGroups:
    @pytest.mark.parametrize(
        ("found", "group"),
        [
            (FileTags(artist="The Beatles"), "beatles"), (FileTags(artist="Beatles, The"), "beatles"),
            (FileTags(artist="Prince feat. Eve"), "prince"), (FileTags(artist="Prince (ft. Eve)"), "prince"),
            (FileTags(artist="PRINCE [Featuring Eve]"), "prince"), (FileTags(artist="A", album_artist="B"), "b"),
            (FileTags(artist="A", album_artist="Various Artists"), "a"),
            (FileTags(album_artist="V.A.", album="Hits"), "album hits"), (FileTags(artist="AC/DC"), "acdc"),
            (FileTags(artist="Unknown Artist"), None), (FileTags(), None), (FileTags(artist="!!!"), "!!!"),
            (FileTags(artist="Ft. Worth"), "ftworth"), (FileTags(artist="Leftfield"), "leftfield"),
        ],
    )  # fmt: skip
    def test_the_artist_is_the_group(self, found: FileTags, group: str | None) -> None:
        assert group_of(found) == group


class TestScan:
    def test_small_genres_are_unlabelled_and_named(self, tmp_path: Path) -> None:
        for number in range(4):
            song(tmp_path, f"rock{number}.mp3", "Rock", f"artist {number % 2}")
            song(tmp_path, f"jazz{number}.flac", "jazz", "the same artist")
        song(tmp_path, "polka.ogg", "Polka", "x")
        tracks = scan("tags", tmp_path, min_tracks=3, min_artists=2)
        assert Counter(track.genre for track in tracks) == {"Rock": 4, None: 5}
        assert {track.split for track in tracks if track.genre is None} == {UNLABELLED}
        assert {track.split for track in tracks if track.genre} == {None}
        lines = "\n".join(report(tmp_path, min_tracks=3, min_artists=2))
        assert "Jazz (4 tracks, 1 artist), Polka (1 track, 1 artist)" in lines
        assert "fewer than two genres can be learned" in lines

    def test_the_first_genre_that_is_a_class_counts(self, tmp_path: Path) -> None:
        song(tmp_path, "1.mp3", ["Polka", "Rock"], "a")
        song(tmp_path, "2.mp3", ["Rock", "Jazz"], "b")
        song(tmp_path, "3.mp3", "Rock", "c")
        song(tmp_path, "4.mp3", "Jazz", "d")
        song(tmp_path, "5.mp3", "Jazz", "e")
        found = genres(scan("tags", tmp_path, min_tracks=2, min_artists=2))
        assert found == {"1.mp3": "Rock", "2.mp3": "Rock", "3.mp3": "Rock", "4.mp3": "Jazz", "5.mp3": "Jazz"}

    def test_a_genre_that_no_mapping_has_is_named_as_most_files_write_it(self, tmp_path: Path) -> None:
        for number, text in enumerate(["Chicha", "CHICHA", "chicha", "Chicha", "Rock/Chicha"]):
            song(tmp_path, f"{number}.mp3", text)
        assert set(genres(scan("tags", tmp_path, **ALL)).values()) == {"Chicha", "Rock"}

    def test_every_file_is_a_track_whatever_its_tags(self, tmp_path: Path) -> None:
        """Nothing is lost: without tags, contradictory, too long, in another encoding, damaged, or not music."""
        song(tmp_path, "good.mp3", "Rock", "a")
        tone(tmp_path / "none.wav")
        song(tmp_path, "several.flac", ["Rock", "Jazz"], "b")
        song(tmp_path, "long.mp3", "x" * 10_000, "c")
        write_cyrillic_tags(tone(tmp_path / "cyrillic.mp3"), genre="Рок")
        song(tmp_path, "jazz.ogg", "Jazz", "d")
        touch(tmp_path, "broken.mp3", "empty.flac", "a\nline\u2028break.mp3", content=b"no music")
        tracks = scan("tags", tmp_path, **ALL)
        assert genres(tracks) == {
            "a\nline\u2028break.mp3": None, "broken.mp3": None,
            "cyrillic.mp3": "Rock", "empty.flac": None, "good.mp3": "Rock", "jazz.ogg": "Jazz",
            "long.mp3": None, "none.wav": None, "several.flac": "Rock",
        }  # fmt: skip
        lines = report(tmp_path, **ALL)
        assert not [line for line in lines if line.splitlines() != [line] or len(line) > 400]
        text = "\n".join(lines)
        assert "1 file with several genres, of which the first counts; the first is several.flac" in text
        assert "1 file with a genre of more than 60 characters" in text
        assert "1 file with tags in Windows-1251" in text
        assert "3 files without readable tags; the first is a line break.mp3" in text
        assert lines[0] == "tags: 9 files of 4 artists: 4 with 2 genres, 5 unlabelled"

    def test_a_file_without_bytes_is_called_that(self, tmp_path: Path) -> None:
        song(tmp_path, "good.mp3", "Rock", "a")
        touch(tmp_path, "empty.flac", content=b"")
        odd = "odd: 1 file without readable tags; the first is empty.flac (the file has no bytes)"
        assert odd in report(tmp_path, **ALL)

    def test_odd_artists_and_genres_are_reported(self, tmp_path: Path) -> None:
        for number, genre in enumerate(["Rock", "Jazz", "Pop", "Blues"]):
            song(tmp_path, f"{number}.mp3", genre, "Chameleon")
        song(tmp_path, "5.mp3", "Rock", "b")
        text = "\n".join(report(tmp_path, **ALL))
        assert "odd: artist chameleon has 4 genres: Blues, Jazz, Pop, Rock" in text
        assert "odd: Jazz has one artist, chameleon" in text
        assert "odd: Rock" not in text

    def test_artists_are_counted_by_the_genre_that_a_track_gets(self, tmp_path: Path) -> None:
        for number in range(3):
            song(tmp_path, f"{number}.mp3", "Jazz", "a")
        for number in range(2):
            song(tmp_path, f"rare{number}.mp3", ["Polka", "Jazz"], f"b{number}")
        text = "\n".join(report(tmp_path, min_tracks=3, min_artists=1))
        assert "5 Jazz, 3 artists" in text
        assert "odd: Jazz" not in text
        assert "not learned: genres with fewer than" in text
        assert "Polka (2 tracks, 2 artists)" in text

    def test_a_rare_genre_that_is_spelled_almost_as_a_class_is_named(self, tmp_path: Path) -> None:
        for number, genre in enumerate(["Reggae", "Reggae", "Raggae", "Punk", "Funk", "Funk"]):
            song(tmp_path, f"{number}.mp3", genre, str(number))
        odd = [line for line in report(tmp_path, min_tracks=2, min_artists=2) if line.startswith("odd: ")]
        assert odd == ["odd: Raggae may be Reggae misspelt; corpus.params.genres can map it"]

    def test_order_and_classes_do_not_depend_on_threads(self, tmp_path: Path) -> None:
        for number in range(200):
            song(tmp_path, f"{number:03d}.wav", ["Rock", "Jazz"][number % 2], f"a{number % 7}")
        tracks = scan("tags", tmp_path)
        assert [track.track_id for track in tracks] == [f"{number:03d}.wav" for number in range(200)]
        assert tracks == scan("tags", tmp_path)

    def test_a_bucket_gives_the_same_tracks(self, tmp_path: Path, bucket_server: dict[str, str]) -> None:
        song(tmp_path, "a/1.mp3", "Rock", "x")
        song(tmp_path, "b/2.m4a", "Jazz", "y")
        root = Location.of("s3://bucket/library")
        for name in ("a/1.mp3", "b/2.m4a"):
            (root / name).write_bytes((tmp_path / name).read_bytes())
        local, remote = scan("tags", tmp_path, **ALL), scan("tags", "s3://bucket/library", **ALL)
        assert [(t.track_id, t.genre, t.group) for t in local] == [(t.track_id, t.genre, t.group) for t in remote]

    def test_there_is_no_official_split(self, tmp_path: Path) -> None:
        song(tmp_path, "a.mp3", "Rock")
        assert "no published split" in refused("tags", tmp_path, "official")


def test_a_library_is_prepared_with_its_unlabelled_tracks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A third of the tracks has no genre: their features are made, and the others can be trained on."""
    truth = write_library(tmp_path / "music", tracks_per_genre=12, seconds=1.0)
    arguments = [
        "corpus.kind=tags", f"corpus.root={tmp_path / 'music'}", f"output={tmp_path / 'out'}", "audio.clip_seconds=1",
        "train.window_seconds=1", "corpus.params.min_tracks=4", "corpus.params.min_artists=3",
    ]  # fmt: skip
    assert cli.main("prepare", [*arguments, "--dry-run"]) == cli.OK
    planned = capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(prepare, "Workers", lambda *_: InTurn())
    assert cli.main("prepare", arguments) == cli.OK
    printed = capsys.readouterr().err
    described = report(tmp_path / "music", min_tracks=4, min_artists=3)
    assert described[0] == "tags: 48 files of 20 artists: 32 with 4 genres, 16 unlabelled"
    assert all(line in planned and line in printed for line in described)
    assert "16 tracks without a genre, which training leaves out" in printed

    kept = {file: file.read_bytes() for file in (tmp_path / "out/scan").rglob("*.parquet")}
    (tmp_path / "out/scan/.DS_Store").write_bytes(b"")
    shutil.copy(next((tmp_path / "music").rglob("*.mp3")), tmp_path / "music/new.mp3")
    assert cli.main("prepare", [*arguments, "--dry-run"]) == cli.OK
    planned = capsys.readouterr().err
    assert "tags of 48 of 49 files are known from an earlier scan" in planned
    assert "prepare: 1 track to do" in planned
    assert kept == {file: file.read_bytes() for file in (tmp_path / "out/scan").rglob("*.parquet")} != {}
    (tmp_path / "music/new.mp3").unlink()

    features = Features.open(Location.of(tmp_path / "out/features"))
    assert features.classes == sorted(CLASSES.values())
    assert features.manifest.counts.unlabelled == 16
    assert features.manifest.split == "random"
    tracks = features.tracks().to_pylist()
    assert len(tracks) == len(truth)
    for track in tracks:
        assert track["genre"] in (None, truth[track["track_id"]])
        assert (track["genre"] is None) == (track["split"] == UNLABELLED)
    assert len({track["group"] for track in tracks}) == 20
    require_trainable(features.tracks(), features.classes)
    before = (tmp_path / "out/features/manifest.json").read_bytes()
    assert cli.main("prepare", arguments) == cli.OK
    assert (tmp_path / "out/features/manifest.json").read_bytes() == before

    workers = InTurn()
    monkeypatch.setattr(prepare, "Workers", lambda *_: workers)
    for track in tracks:
        if track["genre"] is None:
            change = file_tags.plan(track["path"], [truth[track["track_id"]]]).change
            assert change
            assert file_tags.write(track["path"], change).action == file_tags.Action.WRITTEN
    assert cli.main("prepare", arguments) == cli.OK
    after = {
        track["track_id"]: track for track in Features.open(Location.of(tmp_path / "out/features")).tracks().to_pylist()
    }
    assert workers.tracks <= 2 * 16, "only files that got a genre are compared and decoded again"
    splits: dict[str, set[str]] = {}
    for track in tracks:
        new = after[track["track_id"]]
        assert new["split"] == track["split"] if track["genre"] else new["split"] in SPLITS
        splits.setdefault(new["group"], set()).add(new["split"])
    assert all(len(names) == 1 for names in splits.values())
