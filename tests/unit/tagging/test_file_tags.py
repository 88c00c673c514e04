"""Genres written into the tags of music files of every container, and taken back."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mutagen
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from library import CONTAINERS, read_genre, tone, write_ape_tags, write_tags
from mutagen import id3
from saving import song

from genre.tagging.file_tags import Action, Change, Result, plan, undo, write
from genre.tagging.tag_fields import Field, TagFile, is_same, texts

FIELDS: tuple[Field, ...] = ("genre", "comment", "grouping", "custom")
# XML's characters are those that all formats hold; ID3 and MP4 end a text at NUL
VALUE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a short file of each container, without a genre."""
    folder = tmp_path_factory.mktemp("tones")
    for container in (*CONTAINERS, "wma", "wv"):
        tone(folder / f"tone.{container}")
    return folder


def change_of(path: Path, values: list[str], field: Field = "genre", **options: Any) -> Change:
    change = plan(str(path), values, field, **options).change
    assert change
    return change


def write_genre(path: Path, *values: str, field: Field = "genre", overwrite: bool = False) -> Result:
    planned = plan(str(path), list(values), field, overwrite)
    return write(str(path), planned.change) if planned.action == Action.WOULD_WRITE and planned.change else planned


@pytest.mark.parametrize("suffix", ["mp3", "flac", "ogg", "wav", "aiff"])
def test_a_genre_is_written_and_replaced_only_on_request(tmp_path: Path, suffix: str) -> None:
    path = song(tmp_path / f"song.{suffix}", seconds=1)
    before, _ = soundfile.read(path)
    assert plan(str(path), ["jazz"]).action == Action.WOULD_WRITE
    assert read_genre(path) is None
    assert write_genre(path, "jazz").action == Action.WRITTEN
    assert read_genre(path) == "jazz"
    assert write_genre(path, "rock") == Result(Action.KEPT, "jazz")
    assert read_genre(path) == "jazz"
    written = write_genre(path, "rock", overwrite=True)
    assert (written.action, written.before) == (Action.WRITTEN, "jazz")
    assert read_genre(path) == "rock"
    after, _ = soundfile.read(path)
    assert np.array_equal(before, after)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("container", [*CONTAINERS, "wma", "wv"])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_undo_restores_every_field(tones: Path, container: str, field: Field, data: st.DataObject) -> None:
    """For any values that were there, in any field, also of former answers of ours that were replaced."""
    path = tones / f"copy.{container}"
    shutil.copy(tones / f"tone.{container}", path)
    present = data.draw(st.lists(VALUE, max_size=3))
    file = TagFile(str(path))
    for name in FIELDS:
        if name != field:
            file.set(name, [f"other {name}"])
    if present:
        file.set(field, present)
    file.save()
    before, content = {name: TagFile(str(path)).state(name) for name in FIELDS}, path.read_bytes()
    answers = data.draw(st.lists(st.lists(VALUE, min_size=1, max_size=3), min_size=1, max_size=3))
    change: Change | None = None
    for values in answers:
        planned = plan(str(path), values, field, overwrite=True, earlier=change)
        if planned.action == Action.WOULD_WRITE:
            assert planned.change
            written = write(str(path), planned.change)
            assert written.action == Action.WRITTEN
            change = written.change
        assert texts(TagFile(str(path)).state(field)) == values
    if change:
        is_known = data.draw(st.booleans())  # not after a job that was killed before it saved the delta
        again = Change.from_json(change.to_json() if is_known else replace(change, delta=None).to_json())
        expected = Action.UNCHANGED if is_same(TagFile(str(path)).state(field), before[field]) else Action.RESTORED
        assert undo(str(path), again).action == expected
        assert undo(str(path), again).action == Action.UNCHANGED
        assert path.read_bytes() == content or not is_known or expected == Action.UNCHANGED
    assert {name: TagFile(str(path)).state(name) for name in FIELDS} == before


def without_padding(path: Path) -> None:
    write_tags(path, genre="Folk", artist="A", title="T")
    if path.suffix != ".wv":  # APE has none
        file: Any = mutagen.File(path)
        file.save(padding=lambda info: 0)


def id3_tag(version: int, frames: bytes) -> bytes:
    size = bytes(len(frames) >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3" + bytes([version, 0, 0]) + size + frames


def id3_of_another_program(path: Path) -> None:
    """Put a cover first, a frame that mutagen does not know, and a genre that is a number."""
    cover = b"\0image/jpeg\0\3\0" + np.random.default_rng(0).bytes(200_000)
    frames = {b"APIC": cover, b"XYZA": b"\0hello", b"TIT2": b"\0T", b"TCON": b"\0(17)"}
    content = b"".join(name + len(text).to_bytes(4, "big") + bytes(2) + text for name, text in frames.items())
    path.write_bytes(id3_tag(3, content) + path.read_bytes())


def id3_of_version_2(path: Path) -> None:
    path.write_bytes(id3_tag(2, b"TT2\0\0\6\0title" + b"TCO\0\0\5\0Folk") + path.read_bytes())


def id3_of_version_1(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"TAG" + b"Title".ljust(60, b" ") + bytes(64) + b"\x11")


@pytest.mark.parametrize(
    ("container", "prepare"),
    [
        *itertools.product((*CONTAINERS, "wma", "wv"), (lambda path: None, without_padding)),
        *(("mp3", each) for each in (id3_of_another_program, id3_of_version_2, id3_of_version_1)),
    ],
)
def test_a_file_gets_back_all_its_bytes(
    tones: Path, tmp_path: Path, container: str, prepare: Callable[[Path], None]
) -> None:
    """Also what mutagen writes in another way: an order, a padding, a version, a number."""
    path = Path(shutil.copy(tones / f"tone.{container}", tmp_path))
    prepare(path)
    before = path.read_bytes()
    written = write_genre(path, "Jazz", "Größe", overwrite=True)
    assert written.action == Action.WRITTEN
    assert path.read_bytes() != before
    assert written.change
    assert len(written.change.to_json()) < 1000
    assert undo(str(path), written.change).action == Action.RESTORED
    assert path.read_bytes() == before


def test_what_another_program_wrote_in_another_field_stays(tones: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(tones / "tone.flac", tmp_path))
    change = write_genre(path, "Jazz").change
    assert change
    write_tags(path, title="New")
    result = undo(str(path), change)
    assert (result.action, result.before) == (Action.RESTORED, "Jazz")
    assert "the field alone" in (result.message or "")
    assert (read_genre(path), mutagen.File(path)["title"]) == (None, ["New"])


@pytest.mark.parametrize("container", [*CONTAINERS, "wma", "wv"])
def test_several_genres_are_several_values(tones: Path, tmp_path: Path, container: str) -> None:
    path = Path(shutil.copy(tones / f"tone.{container}", tmp_path))
    write_genre(path, "Jazz", "Größe & ロック")
    assert texts(TagFile(str(path)).state("genre")) == ["Jazz", "Größe & ロック"]
    if container == "mp3":
        (frame,) = mutagen.File(path).tags.getall("TCON")
        assert frame.text == ["Jazz", "Größe & ロック"]
    elif container in ("flac", "ogg"):
        assert mutagen.File(path)["genre"] == ["Jazz", "Größe & ロック"]
    elif container == "m4a":
        assert mutagen.File(path)["\xa9gen"] == ["Jazz", "Größe & ロック"]


def test_a_value_of_another_program_is_left(tones: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(tones / "tone.mp3", tmp_path))
    change = change_of(path, ["Jazz"])
    write(str(path), change)
    write_tags(path, genre="Folk")
    result = undo(str(path), change)
    assert (result.action, result.before) == (Action.LEFT, "Folk")
    assert "another program" in (result.message or "")
    assert read_genre(path) == "Folk"
    assert write(str(path), change).action == Action.FAILED
    assert read_genre(path) == "Folk"


def test_our_own_answer_is_replaced_without_a_request(tones: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(tones / "tone.flac", tmp_path))
    first = change_of(path, ["Jazz"])
    write(str(path), first)
    second = plan(str(path), ["Rock"], earlier=first)
    assert second.action == Action.WOULD_WRITE
    assert second.change == Change("genre", [["Rock"], ["Jazz"]], [], first.is_tagged)
    # a job that was killed before it wrote the second can be taken back as well
    assert undo(str(path), second.change).action == Action.RESTORED
    assert read_genre(path) is None


def test_the_version_and_the_other_frames_of_id3_stay(tones: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(tones / "tone.mp3", tmp_path))
    written: Any = id3.ID3()  # type: ignore[no-untyped-call]
    written.add(id3.TYER(encoding=0, text=["1999"]))  # type: ignore[no-untyped-call]
    written.add(id3.TCON(encoding=0, text=["(17)", "Ska"]))  # type: ignore[no-untyped-call]
    written.add(id3.TPE1(encoding=1, text=["A", "B"]))  # type: ignore[no-untyped-call]
    written.add(id3.COMM(encoding=0, lang="eng", desc="iTunNORM", text=["0001"]))  # type: ignore[no-untyped-call]
    written.save(path, v2_version=3, v23_sep=None)
    before = written_frames(path)
    for field in ("genre", "comment"):
        change = change_of(path, ["Größe", "Jazz"], field, overwrite=True)
        assert write(str(path), change).action == Action.WRITTEN
        assert undo(str(path), change).action == Action.RESTORED
        assert written_frames(path) == before


def written_frames(path: Path) -> tuple[Any, dict[str, str]]:
    tags: Any = id3.ID3(path, translate=False)  # type: ignore[no-untyped-call]
    return tags.version, {key: repr(frame) for key, frame in tags.items()}


def test_genres_in_tags_that_are_not_written_count(tones: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(tones / "tone.mp3", tmp_path))
    write_ape_tags(path, Genre="Jazz")
    assert plan(str(path), ["Rock"]) == Result(Action.KEPT, "Jazz")


@pytest.mark.parametrize("container", ["mp3", "flac", "wv"])
def test_an_empty_text_is_no_genre(tones: Path, tmp_path: Path, container: str) -> None:
    path = Path(shutil.copy(tones / f"tone.{container}", tmp_path))
    write_tags(path, genre=" ")
    before = path.read_bytes()
    written = write_genre(path, "Jazz")
    assert (written.action, read_genre(path)) == (Action.WRITTEN, "Jazz")
    assert written.change
    assert undo(str(path), replace(written.change, delta=None)).action == Action.RESTORED
    assert texts(TagFile(str(path)).state("genre")) == [" "]
    write_genre(path, "Jazz")
    assert undo(str(path), written.change).action == Action.RESTORED
    assert path.read_bytes() == before


def test_a_file_without_support_for_tags_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    path.write_bytes(b"not music")
    result = plan(str(path), ["jazz"])
    assert result.action == Action.FAILED
    assert result.message
    assert write(str(path), Change("genre", [["jazz"]], [], True)).action == Action.FAILED
    assert undo(str(path), Change("genre", [["jazz"]], [], True)).action == Action.FAILED
    assert path.read_bytes() == b"not music"
    assert plan(str(tmp_path / "gone.mp3"), ["jazz"]).action == Action.FAILED
