"""The table of written genres: what it keeps, and that everything in it can be taken back."""

from __future__ import annotations

import csv
import io
import itertools
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest
from library import tone, write_tags

from genre import spreadsheet
from genre.errors import ArtifactError
from genre.storage import Location
from genre.tagging import file_tags, written_table
from genre.tagging.tag_fields import Field, TagFile, texts


@pytest.fixture
def music(tmp_path: Path) -> list[Path]:
    """Return three files without a genre and one with, whose names are difficult in a CSV file."""
    names = ("1, one.mp3", '2 "two".flac', "3\nthree.ogg", "4.wav")
    files = [tone(tmp_path / "music" / name, seed=number) for number, name in enumerate(names)]
    write_tags(files[3], genre=["Folk", "Ska"])
    return files


@pytest.fixture
def folder(tmp_path: Path) -> Location:
    return Location.of(tmp_path / "tags")


def listed(files: list[Path], *genres: str, is_label: bool = False) -> pa.Table:
    columns = {"path": [str(file) for file in files], "genres": [list(genres)] * len(files)}
    return pa.table(columns | {"is_label": [is_label] * len(files)})


def do(
    folder: Location,
    files: list[Path],
    *genres: str,
    field: Field = "genre",
    overwrite: bool = False,
    is_label: bool = False,
) -> list[str]:
    """Write genres, and return the actions in the order of the paths."""
    planned = written_table.plan(folder, listed(files, *genres, is_label=is_label), field, overwrite)
    actions: list[str] = written_table.write(folder, planned)["action"].to_pylist()
    return actions


def take_back(folder: Location) -> list[str]:
    actions: list[str] = written_table.undo(folder / "written.csv")["action"].to_pylist()
    return actions


def states(files: list[Path]) -> list[list[list[str]]]:
    return [[texts(TagFile(str(file)).state(field)) for field in ("genre", "custom")] for file in files]


def test_the_table_is_written_in_pieces_as_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["=1+1", 'a "b", c', None, "two\nlines", "", "Jazz", "+x"]
    rows = pa.table([texts] * len(written_table.SCHEMA), schema=written_table.SCHEMA)
    whole = io.BytesIO()
    pyarrow.csv.write_csv(spreadsheet.inert_table(rows), whole)
    monkeypatch.setattr(spreadsheet, "_ROWS", 2)
    file = Location.of(tmp_path / "written.csv")
    written_table._save(file, rows.slice(0, 3), rows.slice(3))
    assert file.read_bytes() == whole.getvalue()

    def damaged(table: pa.Table) -> pa.Table:
        raise OSError("the disk is gone")

    monkeypatch.setattr(spreadsheet, "inert_table", damaged)
    with pytest.raises(OSError, match="the disk is gone"):
        written_table._save(file, rows, rows)
    assert file.read_bytes() == whole.getvalue()


def test_all_runs_are_taken_back_together(folder: Location, music: list[Path]) -> None:
    before, contents = states(music), [file.read_bytes() for file in music]
    assert do(folder, music, "=Jazz") == ["written", "written", "written", "kept"]
    assert do(folder, music[:1], "Rock", "Pop") == ["written"]  # over our own answer
    assert do(folder, music, "Rock", field="custom") == ["written"] * 4
    assert do(folder, music[3:], "Rock", overwrite=True) == ["written"]
    assert states(music) == [[["Rock", "Pop"], ["Rock"]], *[[["=Jazz"], ["Rock"]]] * 2, [["Rock"], ["Rock"]]]
    assert sorted(take_back(folder)) == ["restored"] * 8
    assert states(music) == before
    assert [file.read_bytes() for file in music] == contents
    assert take_back(folder) == ["unchanged"] * 8
    assert (Location.of(folder.path) / "undone.csv").exists()


def test_fields_are_taken_back_in_the_order_in_which_they_were_written(folder: Location, music: list[Path]) -> None:
    """Also after a run that lists the first field again and writes nothing."""
    contents = [file.read_bytes() for file in music]
    for field in ("genre", "custom", "comment"):
        do(folder, music[:3], "Jazz", field=field)
    assert do(folder, music[:3], "Jazz", field="custom") == do(folder, music[:3], "Jazz") == ["kept"] * 3
    undone = written_table.undo(folder / "written.csv")
    assert undone["field"].to_pylist() == ["comment", "custom", "genre"] * 3
    assert undone["message"].null_count == 9
    assert [file.read_bytes() for file in music] == contents


def test_a_preview_changes_no_file_and_loses_no_earlier_run(folder: Location, music: list[Path]) -> None:
    before = states(music)
    do(folder, music, "Jazz")
    written = [file.read_bytes() for file in music]
    planned = written_table.plan(folder, listed(music, "Rock"), "genre", overwrite=False)
    assert planned.rows["action"].to_pylist() == ["would write"] * 3 + ["kept"]
    assert planned.rows["before"].to_pylist() == ["Jazz"] * 3 + ["Folk; Ska"]
    written_table.preview(folder, planned)
    assert [file.read_bytes() for file in music] == written
    take_back(folder)
    assert states(music) == before


def test_what_a_person_writes_after_a_preview_is_not_ours(folder: Location, music: list[Path]) -> None:
    file, *_ = music
    written_table.preview(folder, written_table.plan(folder, listed([file], "Rock"), "genre", overwrite=False))
    write_tags(file, genre=["Rock"])
    assert take_back(folder) == []
    assert do(folder, [file], "Rock") == do(folder, [file], "Jazz") == ["kept"]
    assert take_back(folder) == []
    assert states([file])[0][0] == ["Rock"]


def test_a_prediction_of_what_was_a_label_is_no_label(folder: Location, music: list[Path]) -> None:
    file, *_ = music
    assert do(folder, [file], "Rock", is_label=True) == ["written"]
    assert do(folder, [file], "Jazz") == ["kept"]
    assert do(folder, [file], "Jazz", overwrite=True) == do(folder, [file], "Rock") == ["written"]
    assert do(folder, [file], "Jazz") == ["written"]


@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_killed_job_can_be_taken_back_or_resumed(
    folder: Location, music: list[Path], done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies between two files, after the table was saved."""
    monkeypatch.setattr(written_table, "_WRITTEN_BATCH", 1)
    before, contents = states(music), [file.read_bytes() for file in music]
    die_after(done, folder, music, monkeypatch)
    taken = take_back(folder)
    assert (taken.count("restored"), taken.count("unchanged")) == (done, 3 - done)
    assert [file.read_bytes() for file in music] == contents
    die_after(done, folder, music, monkeypatch)
    assert do(folder, music, "Jazz").count("written") == 3 - done
    assert take_back(folder) == ["restored"] * 3
    assert states(music) == before
    assert [file.read_bytes() for file in music] == contents


def test_a_job_that_dies_between_two_saves_can_be_taken_back(
    folder: Location, music: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the fields are known of the files that it wrote last."""
    before = states(music)
    die_after(2, folder, music, monkeypatch)
    taken = written_table.undo(folder / "written.csv").to_pylist()
    assert [(row["action"], bool(row["message"])) for row in taken] == [
        ("restored", True), ("restored", True), ("unchanged", False)
    ]  # fmt: skip
    assert states(music) == before


def die_after(done: int, folder: Location, music: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = file_tags.write, itertools.count()

    def dying(path: str, change: file_tags.Change) -> file_tags.Result:
        if next(calls) == done:
            raise KeyboardInterrupt
        return real(path, change)

    with monkeypatch.context() as patch:
        patch.setattr(file_tags, "write", dying)
        with pytest.raises(KeyboardInterrupt):
            do(folder, music, "Jazz")


def test_a_write_protected_file_is_a_line_and_nothing_is_lost(
    folder: Location, music: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions are simulated, since root may write everything."""
    before, real, protected = states(music), os.access, set[str]()
    monkeypatch.setattr(os, "access", lambda path, mode: path not in protected and real(path, mode))
    content = music[1].read_bytes()
    protected.add(str(music[1]))
    assert do(folder, music, "Jazz") == ["written", "failed", "written", "kept"]
    assert music[1].read_bytes() == content
    assert "the file is write-protected" in Path(folder.path, "written.csv").read_text()
    protected.clear()
    assert do(folder, music, "Jazz") == ["kept", "written", "kept", "kept"]
    protected.add(str(music[1]))
    assert take_back(folder) == ["restored", "failed", "restored"]
    protected.clear()
    assert take_back(folder) == ["unchanged", "restored", "unchanged"]
    assert states(music) == before


def test_a_file_that_is_away_during_a_run_can_be_taken_back_later(folder: Location, music: list[Path]) -> None:
    before = states(music)
    do(folder, music, "Jazz")
    music[0].rename(music[0].with_suffix(".away"))
    assert do(folder, music, "Rock")[0] == "failed"
    music[0].with_suffix(".away").rename(music[0])
    take_back(folder)
    assert states(music) == before


def test_what_another_program_wrote_since_is_left(folder: Location, music: list[Path]) -> None:
    do(folder, music, "Jazz")
    write_tags(music[0], genre="Blues")
    undone = written_table.undo(folder / "written.csv").to_pylist()
    assert [row["action"] for row in undone] == ["left", "restored", "restored"]
    assert (undone[0]["before"], undone[0]["message"]) == (
        "Blues", "another program changed the field since; it is left as it is"
    )  # fmt: skip


def test_what_a_person_wrote_after_an_undo_is_left(folder: Location, music: list[Path]) -> None:
    """Also if it is what we had written, and by a later run, which can still be taken back itself."""
    do(folder, music, "Jazz")
    take_back(folder)
    contents = [file.read_bytes() for file in music]
    write_tags(music[0], genre="Jazz")
    assert do(folder, music, "Rock") == ["kept", "written", "written", "kept"]
    assert take_back(folder) == ["restored"] * 2
    assert texts(TagFile(str(music[0])).state("genre")) == ["Jazz"]
    assert [file.read_bytes() for file in music[1:]] == contents[1:]
    do(folder, music[1:2], "Jazz")
    take_back(folder)
    write_tags(music[1], genre="Jazz")
    assert take_back(folder) == ["left", "unchanged"]


def test_a_label_is_replaced_by_another_label_only(folder: Location, music: list[Path]) -> None:
    """A person's word outranks the model's, also when the model is asked later, without the label."""
    contents = [file.read_bytes() for file in music]
    assert do(folder, music[:1], "Jazz", is_label=True) == ["written"]
    assert do(folder, music[:1], "Rock") == ["kept"]
    assert do(folder, music[:1], "Blues", is_label=True) == ["written"]
    assert do(folder, music[:1], "Blues") == ["kept"]
    assert do(folder, music[:1], "Rock") == ["kept"]
    assert do(folder, music[:1], "Rock", overwrite=True) == ["written"]
    assert do(folder, music[:1], "Ska") == ["written"]
    assert take_back(folder) == ["restored"]
    assert [file.read_bytes() for file in music] == contents


@pytest.mark.parametrize("content", [b"", b"path,genre,action\na,b,written\n", b"\x00\xff"])
def test_another_file_is_refused_by_name(folder: Location, content: bytes) -> None:
    (folder / "written.csv").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"written.csv: not the written.csv of this version") as error:
        written_table.undo(folder / "written.csv")
    assert "\n" not in str(error.value)


def test_the_long_column_is_the_last_and_columns_are_read_by_name(folder: Location, music: list[Path]) -> None:
    before = states(music)
    do(folder, music, "Jazz")
    file = Path(folder.path, "written.csv")
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0])[-1] == "undo"
    with file.open("w", newline="") as stream:  # a person sorted the columns, and added one
        writer = csv.DictWriter(stream, sorted([*rows[0], "note"], reverse=True))
        writer.writeheader()
        writer.writerows(rows)
    assert take_back(folder) == ["restored"] * 3
    assert states(music) == before


def test_an_altered_row_is_a_line(folder: Location, music: list[Path]) -> None:
    do(folder, music, "Jazz")
    file = Path(folder.path, "written.csv")
    file.write_text(file.read_text().replace('{""field""', '{""feld""', 1))
    undone = written_table.undo(folder / "written.csv").to_pylist()
    assert [row["action"] for row in undone] == ["failed", "restored", "restored"]
    assert undone[0]["message"].startswith("the column undo was altered")
