"""Genres that `tag` wrote into files are no labels for `prepare` with the same output."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from library import tone, write_tags
from music import InTurn

from genre.features import Features
from genre.storage import Location
from genre.tagging import written_table
from ray_jobs import prepare
from ray_jobs.engine import cli


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Return files of five artists by name: those called `rock` have a genre, `new` has none."""
    monkeypatch.setattr(prepare, "Workers", lambda *_: InTurn())
    names = ("rock 1.flac", "rock 2.mp3", "folk 1.ogg", "new 1.flac", "new 2.mp3", "new 3.wav")
    files = {name: tone(tmp_path / "music" / name, seed=n, seconds=1.5) for n, name in enumerate(names)}
    for name, file in files.items():
        genre = name.split()[0].title()
        write_tags(file, artist=f"Artist {name}", **({} if genre == "New" else {"genre": genre}))
    return files


def write(
    home: Path,
    files: list[Path],
    genres: list[str],
    field: str = "genre",
    overwrite: bool = False,
    is_label: bool = False,
) -> None:
    """Write genres as the job `tag` does."""
    columns = {"path": [str(file) for file in files], "genres": [genres] * len(files)}
    listed = pa.table(columns | {"is_label": [is_label] * len(files)})
    planned = written_table.plan(Location.of(home / "out/tags"), listed, field, overwrite)  # type: ignore[arg-type]
    written_table.write(Location.of(home / "out/tags"), planned)


def labels(home: Path, *settings: str) -> dict[str, str | None]:
    """Return the genres that `prepare` gives the tracks."""
    assert cli.main("prepare", arguments(home, *settings)) == cli.OK
    tracks = Features.open(Location.of(home / "out/features")).tracks().to_pylist()
    return {track["track_id"]: track["genre"] for track in tracks if track["genre"]}


def arguments(home: Path, *settings: str) -> list[str]:
    few = ["corpus.params.min_tracks=1", "corpus.params.min_artists=1", "audio.clip_seconds=1", "audio.min_seconds=0.2"]
    return ["corpus.kind=tags", f"corpus.root={home / 'music'}", f"output={home / 'out'}", *few, *settings]


ROCK_AND_FOLK = {"rock 1.flac": "Rock", "rock 2.mp3": "Rock", "folk 1.ogg": "Folk"}


def test_written_genres_are_not_learned(
    library: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert labels(tmp_path) == ROCK_AND_FOLK
    assert "written by tag" not in capsys.readouterr().err
    write(tmp_path, list(library.values()), ["Rock", "Ska"])
    write(tmp_path, [library["new 3.wav"]], ["Folk"])  # another prediction over our own
    line = "prepare: 3 genres were written by tag and are not learned; to learn those that are right, accept"
    assert cli.main("prepare", arguments(tmp_path, "--dry-run")) == cli.OK
    assert line in capsys.readouterr().err
    assert labels(tmp_path) == ROCK_AND_FOLK
    printed = capsys.readouterr().err
    assert line in printed
    assert "unlabelled: 3 files without a genre" in printed
    assert "Ska" not in printed  # not counted either

    write_tags(library["new 1.flac"], genre="Folk")  # by a person
    (tmp_path / "corrections.csv").write_text(f"path,genre\n{library['new 2.mp3']},Rock\n")
    corrected = f"corpus.corrections={tmp_path / 'corrections.csv'}"
    assert labels(tmp_path, corrected) == ROCK_AND_FOLK | {"new 1.flac": "Folk", "new 2.mp3": "Rock"}


def test_a_genre_that_replaced_that_of_a_person_is_not_learned(library: dict[str, Path], tmp_path: Path) -> None:
    write(tmp_path, [library["rock 1.flac"]], ["Folk"], overwrite=True)
    write(tmp_path, [library["rock 2.mp3"]], ["Folk"], field="comment")
    assert labels(tmp_path) == {name: genre for name, genre in ROCK_AND_FOLK.items() if name != "rock 1.flac"}


def test_genres_of_a_killed_job_are_not_learned(library: dict[str, Path], tmp_path: Path) -> None:
    """Its table lists what it would write, and is not saved after each file."""
    write(tmp_path, [library["new 1.flac"]], ["Rock"])
    table = tmp_path / "out/tags/written.csv"
    table.write_text(table.read_text().replace("written", "would write"))
    assert labels(tmp_path) == ROCK_AND_FOLK


def test_after_an_undo_the_same_genre_is_a_label(library: dict[str, Path], tmp_path: Path) -> None:
    write(tmp_path, [library["new 1.flac"], library["new 2.mp3"]], ["Rock"])
    table = tmp_path / "out/tags/written.csv"
    written_table.undo(Location.of(table))
    assert labels(tmp_path) == ROCK_AND_FOLK
    write_tags(library["new 1.flac"], genre="Rock")
    assert labels(tmp_path) == ROCK_AND_FOLK | {"new 1.flac": "Rock"}
    write(tmp_path, [library["new 2.mp3"], library["new 3.wav"]], ["Rock"])  # others, and one of them again
    assert labels(tmp_path) == ROCK_AND_FOLK | {"new 1.flac": "Rock"}
    write(tmp_path, list(library.values()), ["Rock"])
    assert labels(tmp_path) == ROCK_AND_FOLK | {"new 1.flac": "Rock"}


def test_a_label_of_a_person_that_was_written_is_learned(library: dict[str, Path], tmp_path: Path) -> None:
    write(tmp_path, [library["new 1.flac"], library["new 2.mp3"]], ["Rock"], is_label=True)
    assert labels(tmp_path) == ROCK_AND_FOLK | {"new 1.flac": "Rock", "new 2.mp3": "Rock"}
    write(tmp_path, list(library.values()), ["Rock"])  # predictions, of these files as well
    assert labels(tmp_path) == ROCK_AND_FOLK | {"new 1.flac": "Rock", "new 2.mp3": "Rock"}
    write(tmp_path, [library["new 3.wav"]], ["Rock"], is_label=True)  # a person accepts a prediction
    write(tmp_path, [library["new 2.mp3"]], ["Folk"], overwrite=True)
    assert labels(tmp_path) == ROCK_AND_FOLK | {"new 1.flac": "Rock", "new 3.wav": "Rock"}


def test_genres_written_through_a_link_are_not_learned(library: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "music", target_is_directory=True)
    write(tmp_path, [tmp_path / "link/new 1.flac"], ["Rock"])
    write(tmp_path, [library["new 2.mp3"]], ["Rock"])
    assert labels(tmp_path) == ROCK_AND_FOLK
    assert labels(tmp_path, f"corpus.root={tmp_path / 'link'}") == ROCK_AND_FOLK
    assert labels(tmp_path, f"corpus.root={(tmp_path / 'music').as_uri()}") == ROCK_AND_FOLK


def test_files_that_were_renamed_are_counted(
    library: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tone(tmp_path / "elsewhere/new 4.flac")
    write(tmp_path, [library["new 1.flac"], library["new 2.mp3"], tmp_path / "elsewhere/new 4.flac"], ["Rock"])
    labels(tmp_path)
    assert "not found" not in capsys.readouterr().err
    library["new 1.flac"].rename(tmp_path / "music/renamed.flac")
    assert labels(tmp_path) == ROCK_AND_FOLK | {"renamed.flac": "Rock"}
    line = (
        f"prepare: not found: 1 file that {tmp_path / 'out/tags/written.csv'} lists; if renamed since, their genres are"
    )
    assert line in capsys.readouterr().err


@pytest.mark.parametrize("genres", [["80"], ["(17)", "Rock"], ["250"], ["(4)Eurodisco"]])
def test_genres_that_are_read_in_another_way_are_not_learned(
    library: dict[str, Path], tmp_path: Path, genres: list[str]
) -> None:
    """Numbers of ID3v1 are read as names, which differs by format."""
    write(tmp_path, [library["new 1.flac"], library["new 2.mp3"], library["new 3.wav"]], genres)
    assert labels(tmp_path) == ROCK_AND_FOLK


def test_a_damaged_table_is_an_error(
    library: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, [library["new 1.flac"]], ["Rock"])
    table = tmp_path / "out/tags/written.csv"
    content = table.read_text()
    for damaged in (content.replace("ours", "yours"), "path\n", ""):
        table.write_text(damaged)
        assert cli.main("prepare", arguments(tmp_path)) == cli.FAILED
        message = capsys.readouterr().err.splitlines()[-1]
        assert message.startswith(f"error: {table}: cannot be read (")
        assert message.endswith("restore it, or choose another output to take all of them for labels")
