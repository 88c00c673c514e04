"""Tags of music files, read from every container."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from faulty_storage import Fault, Handler, behind, refusing
from library import CONTAINERS, tone, write_ape_tags, write_cyrillic_tags, write_tags
from mutagen import id3

from genre.audio import tags
from genre.audio.tags import FileTags
from genre.errors import StorageError
from genre.storage import Location

EXPIRED = refusing(400, "ExpiredToken", lambda request: request.command == "GET")


def read(path: Path) -> FileTags:
    return tags.read(Location.of(path))


def add_frame(path: Path, name: str, *texts: str) -> None:
    """Write an ID3 frame that mutagen's simple interface would change."""
    written: Any = id3.ID3()  # type: ignore[no-untyped-call]
    written.add(getattr(id3, name)(encoding=3, text=list(texts)))
    written.save(path)


@pytest.mark.parametrize("container", [*CONTAINERS, "wma", "wv"])
def test_all_fields_are_read_from_every_container(tmp_path: Path, container: str) -> None:
    path = tone(tmp_path / f"a.{container}")
    assert read(path) == FileTags()
    write_tags(path, genre=["Rock", " Post  Rock"], artist="X", albumartist="Y", album="Z", title="Ü")
    assert read(path) == FileTags(("Rock", "Post Rock"), "Y", "X", "Z", "Ü")


def expired_at(failing: int) -> Fault:
    """Return a fault: of the requests of a kind, that with this number is answered with an expired token."""

    def fault(request: Handler, number: int) -> bool:
        return number == failing and EXPIRED(request, number)

    return fault


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_fault_of_the_storage_is_not_a_file_without_tags(
    bucket_server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, container: str
) -> None:
    path = write_tags(tone(tmp_path / f"a.{container}", seconds=10), artist="X")
    address = f"s3://bucket/tags/{path.name}"
    Location.of(address).write_bytes(path.read_bytes())
    for failing in range(4):
        with behind(bucket_server, expired_at(failing), monkeypatch):
            assert tags.read(Location.of(address)).artist == "X"
    monkeypatch.setattr(tags, "STORAGE_SECONDS", 0.0)
    with behind(bucket_server, EXPIRED, monkeypatch), pytest.raises(StorageError, match="run the same command again"):
        tags.read(Location.of(address))


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_cut_file_in_a_bucket_is_read_like_a_local_one(
    bucket_server: dict[str, str], tmp_path: Path, container: str
) -> None:
    path = write_tags(tone(tmp_path / f"a.{container}", seconds=3), artist="X")
    content = path.read_bytes()
    remote = Location.of(f"s3://bucket/cut/{path.name}")
    for length in (50, len(content) // 2, len(content) - 1000):
        for place in (Location.of(path), remote):
            place.write_bytes(content[:length])
        assert outcome(remote) == outcome(Location.of(path))


def outcome(file: Location) -> FileTags | str:
    try:
        return tags.read(file)
    except ValueError as error:
        return str(error)


def test_numbers_of_id3v1_become_names(tmp_path: Path) -> None:
    path = tone(tmp_path / "a.mp3")
    add_frame(path, "TCON", "(17)(4)Eurodisco", "9")
    assert read(path).genres == ("Rock", "Disco", "Eurodisco", "Metal")
    assert read(write_tags(tone(tmp_path / "b.flac"), genre="(17)")).genres == ("Rock",)
    assert read(write_tags(tone(tmp_path / "c.flac"), genre="1999")).genres == ("1999",)


def test_id3v1_alone_is_read(tmp_path: Path) -> None:
    path = tone(tmp_path / "a.mp3")
    path.write_bytes(
        path.read_bytes() + b"TAG" + b"Song".ljust(30, b"\0") + b"Band".ljust(30, b"\0") + bytes(64) + b"\x11"
    )
    assert (read(path).genres, read(path).artist) == (("Rock",), "Band")


def test_ape_tags_of_an_mp3_are_read_where_there_is_no_id3(tmp_path: Path) -> None:
    path = write_ape_tags(tone(tmp_path / "a.mp3"), Genre="Jazz", Artist="X")
    assert read(path) == FileTags(("Jazz",), artist="X")
    assert read(write_tags(path, genre="Rock")).genres == ("Rock",)


def test_the_info_list_of_a_wav_file_is_read_where_there_is_no_id3(tmp_path: Path) -> None:
    path = tone(tmp_path / "a.wav")
    parts = {b"IGNR": b"Blues\0", b"IART": b"B\xe9b\xe9\0", b"ICMT": b"odd"}
    fields = b"".join(
        struct.pack("<4sI", name, len(text)) + text + bytes(len(text) % 2) for name, text in parts.items()
    )
    content = path.read_bytes() + struct.pack("<4sI4s", b"LIST", len(fields) + 4, b"INFO") + fields
    path.write_bytes(content[:4] + struct.pack("<I", len(content) - 8) + content[8:])
    assert read(path) == FileTags(("Blues",), artist="Bébé")
    assert read(write_tags(path, genre="Rock")).genres == ("Rock",)


def test_windows_1251_declared_as_latin_1_is_repaired(tmp_path: Path) -> None:
    path = tone(tmp_path / "a.mp3")
    write_cyrillic_tags(path, genre="Рок", title="plain")
    assert read(path) == FileTags(("Рок",), title="plain", is_repaired=True)
    for text in ("Björk", "Größenwahn", "Éé", "Рок"):
        assert read(write_tags(tone(tmp_path / "b.mp3"), artist=text)) == FileTags(artist=text)


def test_damaged_tags_are_an_error_of_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    for content in (b"", b"no music\n at all", b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f", b"fLaC\x00\x00\x00\x22" + bytes(9)):
        path.write_bytes(content)
        with pytest.raises((ValueError, OSError)) as error:
            read(path)
        assert "\n" not in str(error.value)


def test_values_separated_by_nul_are_several(tmp_path: Path) -> None:
    path = tone(tmp_path / "a.mp3")
    add_frame(path, "TPE1", "A\0B")
    assert read(path).artist == "A"


@pytest.mark.parametrize("container", [*CONTAINERS, "wma", "wv"])
def test_files_in_a_bucket_have_the_same_tags(tmp_path: Path, bucket_server: dict[str, str], container: str) -> None:
    path = write_tags(tone(tmp_path / f"a.{container}", seconds=5), genre="Rock", artist="X", title="ü")
    remote = Location.of("s3://bucket") / f"a.{container}"
    remote.write_bytes(path.read_bytes())
    assert tags.read(remote) == read(path)
