"""Unpack one folder of a tar or zip file: completely or not at all, and nowhere else.

The files are written into a hidden folder next to their own place, which is renamed when all of them are there. What a
killed run left in it is deleted by the next. Only folders and plain files are unpacked. An archive with a link, a
device, or a name that is absolute or leads out of the folder is refused.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from genre.errors import ArtifactError, one_line
from genre.fetching.download import CHUNK_BYTES, Watch, writing

_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError)


def unpack(archive: Path, folder: str, root: Path, watch: Watch) -> None:
    """Make `root`/`folder` from the folder of this name in `archive`.

    Raises `ArtifactError` for an archive that is damaged or refused, and `GenreError` when the disk is full.
    """
    temporary = root / f".{folder}.unpacking"
    if temporary.exists():
        shutil.rmtree(temporary)
    try:
        with _explained(archive), watch.bar(f"unpacking {archive.name}", 0, archive.stat().st_size) as advance:
            (_unpack_zip if zipfile.is_zipfile(archive) else _unpack_tar)(archive, folder, temporary, advance)
        if not (temporary / folder).is_dir():
            raise ArtifactError(f"{archive}: has no folder {folder}; delete it and run again")
        os.sync()  # a power failure after the renaming must not leave empty files
        with writing(root / folder):
            os.rename(temporary / folder, root / folder)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


def _unpack_tar(archive: Path, folder: str, target: Path, advance: Callable[[int], None]) -> None:
    with archive.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:*") as tar:
        position = 0
        for member in tar:
            if _is_wanted(member.name, folder, is_plain=member.isreg() or member.isdir()):
                with writing(target / member.name):
                    tar.extract(member, target, filter="data")
            advance(stream.tell() - position)
            position = stream.tell()
        while tar.fileobj and tar.fileobj.read(CHUNK_BYTES):  # the checksum of gzip follows the last member
            pass


def _unpack_zip(archive: Path, folder: str, target: Path, advance: Callable[[int], None]) -> None:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where the archive was not made on Unix
            if _is_wanted(member.filename, folder, is_plain=kind in (0, stat.S_IFREG, stat.S_IFDIR)):
                with writing(target / member.filename):
                    opened.extract(member, target)
            advance(member.compress_size)


def _is_wanted(name: str, folder: str, is_plain: bool) -> bool:
    """Return whether a member is in `folder`. Raises `ArtifactError` for one that no published corpus has."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ArtifactError(f"holds {name!r}, which is outside the archive's folder")
    if not is_plain:
        raise ArtifactError(f"holds {name!r}, which is a link or a device")
    return path.parts[:1] == (folder,)


@contextmanager
def _explained(archive: Path) -> Iterator[None]:
    """Raise `ArtifactError` with the name of the archive for one that is damaged or refused."""
    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(f"{archive}: {error}; nothing of it was unpacked, get it from another source") from None
    except (*_DAMAGED, OSError) as error:  # OSError: bzip2 has no error of its own
        raise ArtifactError(
            f"{archive}: damaged ({one_line(error)}); nothing of it was unpacked, delete it and run again"
        ) from None
