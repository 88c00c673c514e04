"""The files that docs/CORPORA.md shows, written as they are, and the commands that use them."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest
from conftest import REPOSITORY
from documents import commands, files
from music import write_song

from genre import corpora
from genre.config import load
from genre.corpora import Track
from genre.corpora._genre_names import GenreNames
from ray_jobs.engine import cli

PAGE = REPOSITORY / "docs/CORPORA.md"
# three lines in the layout of MTG-Jamendo's autotagging_genre.tsv
JAMENDO = """\
TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS
track_0000214\tartist_000014\talbum_000031\t14/214.mp3\t124.6\tgenre---punkrock
track_0000215\tartist_000014\talbum_000031\t15/215.mp3\t151.4\tgenre---metal\tgenre---rock
track_0000382\tartist_000020\talbum_000046\t82/382.mp3\t211.1\tgenre---ambient\tgenre---newage\tgenre---pop
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the files of the page into a folder, in which /music and /data are folders too."""
    for block in files("docs/CORPORA.md"):
        (tmp_path / block.file).write_text(filled(block.text, tmp_path), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def filled(text: str, folder: Path) -> str:
    return re.sub(r"(?<!\w)/(music|data)(?!\w)", rf"{folder}/\1", text)


def planned(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what the page's command with this name in it says that it would do."""
    (command,) = [line.text for line in commands([PAGE]) if name in line.text and line.text.startswith("genre prepare")]
    assert cli.main("prepare", [*shlex.split(filled(command, folder))[2:], "--dry-run"]) == cli.OK
    return capsys.readouterr().err


def described(tracks: list[Track]) -> list[tuple[str, str | None, str | None]]:
    return [(track.track_id, track.genre, track.group) for track in tracks]


def test_a_list_of_discogs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.search(r"```text\n(release_id,.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert shown
    write_song(folder / "music/vinyl/1362-a1.flac", seed=1)
    (folder / "music/discogs.csv").write_text(shown[1], encoding="utf-8")
    assert "prepare: 1 track to do" in planned("--config discogs.yaml", folder, capsys)
    tracks = list(corpora.scan(load("discogs.yaml", []).corpus))
    assert described(tracks) == [("vinyl/1362-a1.flac", "Dub Techno", "basicchannel")]


def test_a_table_of_excel(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.search(r"```text\n(table: .*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert shown
    genres = ["Klassik"] * 7 + ["Hip-Hop"] * 4 + ["hip hop"] * 2 + ["Reggae"] * 4 + ["Raggae", ""]
    rows = [f"Musik\\Jäger {number}.flac;Jäger {number % 4};{genre};geprüft" for number, genre in enumerate(genres)]
    for number in range(len(genres)):
        write_song(folder / f"Musik/Jäger {number}.flac", seed=number, seconds=0.2)
    (folder / "labels.csv").write_text("\n".join(["Datei;Interpret;Stil;Bemerkung", *rows]), encoding="cp1252")
    assert shown[1] in planned("root=labels.csv", folder, capsys)


def test_a_table_of_jamendo(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("14/214", "15/215", "82/382")):
        song = write_song(folder / f"data/mtg-jamendo/{name}.wav", seed=number)
        song.rename(song.with_suffix(".mp3"))
    (folder / "autotagging_genre.tsv").write_text(JAMENDO, encoding="utf-8")
    runpy.run_path("jamendo_table.py")
    assert "prepare: 3 tracks to do" in planned("mtg-jamendo/tracks.csv", folder, capsys)
    settings = load(None, ["corpus.kind=table", f"corpus.root={folder}/data/mtg-jamendo/tracks.csv"]).corpus
    assert described(list(corpora.scan(settings))) == [
        ("track_0000214", "punkrock", "artist000014"), ("track_0000215", "metal", "artist000014"),
        ("track_0000382", "ambient", "artist000020"),
    ]  # fmt: skip


@pytest.mark.usefixtures("folder")
def test_mappings_of_genres() -> None:
    settings = load(None, ["corpus.kind=tags", "corpus.params.genres=my_genres.yaml"]).corpus
    names = GenreNames(str(settings.params["genres"]))
    assert names.problems == []
    written = ("rap", "Deep House", "House", "other")
    assert [[names.name(key) for key in names.resolve(text)] for text in written] == [
        ["Hip-Hop"], ["Electronic"], ["Electronic"], [],
    ]  # fmt: skip
