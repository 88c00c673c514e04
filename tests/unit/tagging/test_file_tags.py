"""Genres in the tags of music files."""

from __future__ import annotations

from pathlib import Path

import mutagen
import numpy as np
import pytest
import soundfile
from saving import song

from genre.tagging.file_tags import Action, Result, read_genre, write_genre


@pytest.mark.parametrize("suffix", ["mp3", "flac", "ogg", "wav", "aiff"])
def test_a_genre_is_written_and_replaced_only_on_request(tmp_path: Path, suffix: str) -> None:
    path = song(tmp_path / f"song.{suffix}", seconds=1)
    before, _ = soundfile.read(path)
    assert write_genre(str(path), "jazz", preview=True).action == Action.WOULD_WRITE
    assert read_genre(str(path)) is None
    assert write_genre(str(path), "jazz").action == Action.WRITTEN
    assert read_genre(str(path)) == "jazz"
    assert write_genre(str(path), "rock") == Result(Action.KEPT, "jazz")
    assert read_genre(str(path)) == "jazz"
    assert write_genre(str(path), "rock", replace=True) == Result(Action.WRITTEN, "jazz")
    assert read_genre(str(path)) == "rock"
    after, _ = soundfile.read(path)
    assert np.array_equal(before, after)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_other_tags_stay(tmp_path: Path) -> None:
    path = song(tmp_path / "song.flac", seconds=1)
    file = mutagen.File(path)
    file["artist"] = "somebody"
    file.save()
    write_genre(str(path), "jazz")
    assert mutagen.File(path)["artist"] == ["somebody"]


def test_a_file_without_support_for_tags_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    path.write_bytes(b"not music")
    result = write_genre(str(path), "jazz")
    assert result.action == Action.FAILED
    assert result.message
    assert path.read_bytes() == b"not music"
    assert write_genre(str(tmp_path / "gone.mp3"), "jazz").action == Action.FAILED
