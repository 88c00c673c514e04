"""Unpacking archives, those too that want to write elsewhere."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mirrors import tar_of, zip_of

from genre.errors import ArtifactError
from genre.fetching.unpacking import unpack

FILES = {"music/000/a.mp3": b"a" * 5000, "music/b.mp3": b"b", "music/README.txt": b"read"}
MAKERS: dict[str, Callable[[dict[str, bytes]], bytes]] = {"tar": tar_of, "zip": zip_of}


class Silent:
    def say(self, line: str) -> None:
        """Show nothing."""

    @contextmanager
    def bar(self, action: str, done: int, total: int) -> Iterator[Callable[[int], None]]:
        yield lambda count: None


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def write(root: Path, content: bytes) -> Path:
    (root / "in").mkdir(parents=True)
    (root / "in" / "archive").write_bytes(content)
    return root / "in" / "archive"


def refused(root: Path, content: bytes) -> str:
    """Return the message of the error. Nothing but the archive is on the disk afterwards."""
    archive = write(root, content)
    with pytest.raises(ArtifactError) as error:
        unpack(archive, "music", archive.parent, Silent())
    assert "\n" not in str(error.value)
    assert [path.name for path in root.rglob("*")] == ["in", "archive"]
    return str(error.value)


@pytest.mark.parametrize("kind", MAKERS)
def test_the_folder_is_unpacked_and_others_are_left_out(kind: str, tmp_path: Path) -> None:
    archive = write(tmp_path, MAKERS[kind](FILES | {"._music": b"system", "other/c": b"c"}))
    left = archive.parent / ".music.unpacking"  # by a run that was killed
    left.mkdir()
    (left / "half").write_bytes(b"half")
    unpack(archive, "music", archive.parent, Silent())
    assert files_of(archive.parent) == FILES | {"archive": archive.read_bytes()}


@pytest.mark.parametrize("name", ["/music/x.mp3", "../x.mp3", "music/../../x.mp3", "music\\..\\x.mp3"])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_name_outside_the_folder_refuses_the_archive(kind: str, name: str, tmp_path: Path) -> None:
    message = refused(tmp_path, MAKERS[kind](FILES | {name: b"x"}))
    assert "outside the archive's folder" in message
    assert "nothing of it was unpacked" in message


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_refuse_it(kind: bytes, tmp_path: Path) -> None:
    member = tarfile.TarInfo("music/link")
    member.type, member.linkname = kind, "b.mp3"
    assert "a link or a device" in refused(tmp_path, tar_of(FILES, member))


def test_links_in_a_zip_refuse_it(tmp_path: Path) -> None:
    member = zipfile.ZipInfo("music/link")
    member.create_system, member.external_attr = 3, 0o120777 << 16
    assert "a link or a device" in refused(tmp_path, zip_of(FILES, member))


def damaged(content: bytes) -> list[bytes]:
    middle = len(content) // 2
    flipped = bytes([content[middle] ^ 0xFF])
    return [content[:middle], content[:middle] + flipped + content[middle + 1 :], b"no archive", b""]


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("kind", MAKERS)
def test_a_damaged_archive_is_one_line(kind: str, number: int, tmp_path: Path) -> None:
    content = MAKERS[kind]({"music/a.mp3": os.urandom(100_000)})
    assert "damaged (" in refused(tmp_path, damaged(content)[number])


def test_an_archive_without_the_folder_is_refused(tmp_path: Path) -> None:
    assert "has no folder music" in refused(tmp_path, tar_of({"songs/a.mp3": b"a"}))
