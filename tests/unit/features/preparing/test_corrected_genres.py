"""Corrected genres replace those of any corpus, and files that it does not list are added."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from scanning import touch

from genre import corpora
from genre.corpora import MISSING, Track
from genre.errors import ConfigError
from genre.features.preparing.corrections import corrected
from genre.features.preparing.scan import scan
from genre.reviewing.corrections import Corrections
from genre.settings import CorpusSettings
from genre.storage import Location

Correct = Callable[[dict[str, str]], str]
NAMES = ("Hip-Hop/a.wav", "Hip-Hop/b.wav", "Folk/c.wav", "Folk/d.wav")


@pytest.fixture
def music(tmp_path: Path) -> Path:
    return touch(tmp_path / "music", *NAMES)


@pytest.fixture
def correct(tmp_path: Path) -> Correct:
    """Return a function that writes the genres of files below `tmp_path` as the review does, and returns the path."""

    def write(genres: dict[str, str]) -> str:
        corrections = Corrections(Location.of(tmp_path / "corrections.csv"))
        for name, genre in genres.items():
            corrections.put(str(tmp_path / name), genre, "band")
        return str(corrections.file)

    return write


def scanned(settings: CorpusSettings) -> tuple[dict[str, tuple[str | None, str | None, str | None]], str]:
    """Return genre, group and split of each track by its id, and the line about the corrections."""
    lines: list[str] = []
    rows = scan(settings, lines.append).to_pylist()
    (line,) = [line for line in lines if line.startswith("corrections: ")]
    return {row["track_id"]: (row["genre"], row["group"], row["split"]) for row in rows}, line


def test_genres_change_and_files_are_added(music: Path, correct: Correct, tmp_path: Path) -> None:
    touch(tmp_path, "new/e.wav", content=b"four")
    file = correct({"music/Hip-Hop/a.wav": "Folk", "music/Folk/c.wav": "Folk", "new/e.wav": "hip hop"})
    settings = CorpusSettings(kind="folder", root=str(music), corrections=file)
    tracks, line = scanned(settings)
    assert line == "corrections: 1 genre changed, 1 track added"
    new = str(tmp_path / "new/e.wav")
    assert tracks == {
        "Hip-Hop/a.wav": ("Folk", None, None),
        "Hip-Hop/b.wav": ("Hip-Hop", None, None),
        "Folk/c.wav": ("Folk", None, None),
        "Folk/d.wav": ("Folk", None, None),
        new: ("Hip-Hop", "band", None),
    }
    (added,) = [row for row in scan(settings).to_pylist() if row["track_id"] == new]
    assert (added["path"], added["size"]) == (new, 4)
    assert added["modified"] == pytest.approx(Path(new).stat().st_mtime)


def test_the_corpus_keeps_its_spellings_and_new_genres_theirs(music: Path, correct: Correct) -> None:
    file = correct({"music/Folk/c.wav": "HIP HOP", "music/Folk/d.wav": "Hip-Hop", "music/Hip-Hop/a.wav": "Dub Techno"})
    tracks, _ = scanned(CorpusSettings(kind="folder", root=str(music), corrections=file))
    genres = {name: tracks[name][0] for name in NAMES}
    assert genres == {
        "Hip-Hop/a.wav": "Dub Techno",
        "Hip-Hop/b.wav": "Hip-Hop",
        "Folk/c.wav": "Hip-Hop",
        "Folk/d.wav": "Hip-Hop",
    }


def test_corrections_that_change_nothing_say_why(music: Path, correct: Correct) -> None:
    settings = CorpusSettings(kind="folder", root=str(music), corrections=correct({"music/Folk/c.wav": "folk"}))
    before = {name: (name.split("/")[0], None, None) for name in NAMES}
    assert scanned(settings) == (
        before,
        "corrections: 0 genres changed, 0 tracks added; the corpus has these genres already",
    )
    Path(settings.corrections).write_text("path,genre,group\n")
    assert scanned(settings) == (before, "corrections: 0 genres changed, 0 tracks added; the table gives no genre")


def test_a_missing_file_is_added_as_missing(music: Path, correct: Correct) -> None:
    settings = CorpusSettings(kind="folder", root=str(music), corrections=correct({"gone.wav": "Folk"}))
    assert [row["size"] for row in scan(settings).to_pylist()].count(MISSING) == 1


def test_published_splits_stay(tmp_path: Path, correct: Correct) -> None:
    touch(tmp_path, *(f"music/{name}.wav" for name in "abcde"))
    rows = ("a.wav,rock,test", "b.wav,rock,train", "../music/c.wav,,", "d.wav,folk,excluded", "e.wav,,excluded")
    (tmp_path / "music/table.csv").write_text("\n".join(("path,genre,split", *rows)))
    settings = CorpusSettings(
        kind="table",
        root=str(tmp_path / "music/table.csv"),
        corrections=correct({f"music/{name}.wav": "folk" for name in "acde"}),
    )
    tracks, line = scanned(settings)
    assert line == "corrections: 2 genres changed, 0 tracks added, 2 left out by the published split"
    assert {name: (genre, split) for name, (genre, _, split) in tracks.items()} == {
        "a.wav": ("folk", "test"),
        "b.wav": ("rock", "train"),
        "../music/c.wav": ("folk", None),
    }


def test_rows_without_a_genre_and_splits_of_the_corrections_do_nothing(music: Path, tmp_path: Path) -> None:
    file = tmp_path / "corrections.csv"
    file.write_text("path,genre,split\nmusic/Folk/c.wav,,test\nmusic/Folk/d.wav,Hip-Hop,test\n")
    tracks, line = scanned(CorpusSettings(kind="folder", root=str(music), corrections=str(file)))
    assert line == "corrections: 1 genre changed, 0 tracks added"
    assert tracks["Folk/c.wav"] == ("Folk", None, None)
    assert tracks["Folk/d.wav"] == ("Hip-Hop", None, None)


def test_music_inside_archives_does_not_match(correct: Correct, tmp_path: Path) -> None:
    track = Track("a", f"{tmp_path}/shard.tar?offset=512&size=9", "rock", 9, 1.0)
    touch(tmp_path, "shard.tar")
    settings = CorpusSettings(kind="folder", corrections=correct({"shard.tar": "folk"}))
    assert [each.genre for each in corrected([track], settings)] == ["rock", "folk"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "nowhere.csv: it does not exist; check the address"),
        (b"\xff\xfe\xfd\x00", "nowhere.csv "),
        (b"PK\x03\x04", "nowhere.csv is an Excel workbook"),
        (b"path,style\na.wav,rock\n", "nowhere.csv has no column 'genre'; it has path, style"),
        (b"path,genre\na.wav,rock\na.wav,folk\n", "'a.wav'"),
    ],
)
def test_corrections_that_cannot_be_read_are_an_error_of_a_line(
    content: bytes | None, says: str, music: Path, tmp_path: Path
) -> None:
    file = tmp_path / "nowhere.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        scan(CorpusSettings(kind="folder", root=str(music), corrections=str(file)))
    assert str(error.value).startswith("corpus.corrections: ")
    assert says in str(error.value)
    assert "corpus.root" not in str(error.value)
    assert "corpus.params" not in str(error.value)
    assert "\n" not in str(error.value)


def test_every_track_of_a_corpus_is_kept(music: Path, correct: Correct) -> None:
    settings = CorpusSettings(kind="folder", root=str(music), corrections=correct({"music/Folk/c.wav": "Hip-Hop"}))
    before = list(corpora.scan(settings))
    assert sorted(each.track_id for each in corrected(before, settings)) == sorted(each.track_id for each in before)
