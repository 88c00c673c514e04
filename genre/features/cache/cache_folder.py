"""The folder of a machine in which jobs keep copies of features: its lock, its size, and what is deleted first."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import pwd
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from genre.errors import ArtifactError, ConfigError, one_line
from genre.settings import CacheSettings

Report = Callable[[str], object]

PREFIX = "features-"  # of the names of copies; nothing else in the folder is deleted
UNFINISHED = ".unfinished"  # suffix of a copy in the making
HEADER = "header.json"  # of a copy; readers hold a shared lock on it
_LOCK = "building.lock"
_SHARE_OF_DISK = 0.9


def of(settings: CacheSettings) -> Path:
    """Return the folder of all copies, which is made.

    Raises `ConfigError` where it cannot be written, or belongs to another user, who could change the copies.
    """
    default = os.environ.get("GENRE_CACHE") or f"/var/tmp/genre-{getpass.getuser()}"
    folder = Path(settings.folder or default).expanduser()
    with using(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / _LOCK).touch()
        owner = folder.stat().st_uid
    if owner != os.getuid():
        raise ConfigError(
            f"cache.folder={folder}: belongs to another user ({_user(owner)}); name a folder of your own, such as "
            f"{folder / f'genre-{getpass.getuser()}'}"
        )
    return folder


@contextlib.contextmanager
def using(folder: Path) -> Iterator[None]:
    """Raise `ConfigError` in place of an `OSError` in the block, which reads and writes the folder of all copies."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"cache.folder={folder}: cannot be read or written ({one_line(error)}); name a folder on each machine's "
            "local disk"
        ) from None


@contextlib.contextmanager
def exclusive(folder: Path, report: Report) -> Iterator[None]:
    """Hold the lock of the folder within the block: one process at a time makes or deletes copies."""
    with (folder / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"waiting for another process that copies features to {folder}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def check_size(folder: Path, size: int, max_gb: float, source: str) -> None:
    """Raise `ArtifactError` where `size` bytes would not fit even if all other copies were deleted."""
    _check_room(folder, size, _limit(folder, max_gb, sum(_sizes(folder).values())), source, max_gb)


def make_room(folder: Path, size: int, max_gb: float, source: str) -> None:
    """Delete unfinished copies, then those that were used least recently, until `size` more bytes fit.

    To be called within `exclusive`. Raises `ArtifactError` where they do not fit next to the copies that are in use.
    """
    for unfinished in folder.glob(f"{PREFIX}*{UNFINISHED}"):
        shutil.rmtree(unfinished)
    sizes = _sizes(folder)
    held = sum(sizes.values())
    limit = _limit(folder, max_gb, held)
    for path in sizes:
        if held + size <= limit:
            return
        if _delete_unused(path):
            held -= sizes[path]
    _check_room(folder, size, limit, source, max_gb, held)


def _sizes(folder: Path) -> dict[Path, int]:
    """Return the bytes of each copy, the least recently used first."""
    sizes: dict[Path, tuple[float, int]] = {}
    for path in folder.glob(f"{PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):  # another process deletes or renames it
            sizes[path] = (path.stat().st_mtime, sum(file.stat().st_size for file in path.iterdir()))
    return {path: size for path, (_, size) in sorted(sizes.items(), key=lambda item: item[1])}


def _limit(folder: Path, max_gb: float, held: int) -> float:
    """Return the bytes that all copies may take, of which `held` are taken: what the disk has, and at most `max_gb`."""
    disk = shutil.disk_usage(folder).free + held
    return min(max_gb * 1e9, disk) if max_gb else _SHARE_OF_DISK * disk


def _check_room(folder: Path, size: int, limit: float, source: str, max_gb: float, held: int = 0) -> None:
    if held + size <= limit:
        return
    remedy = "set cache.folder to a larger disk"
    if not max_gb or limit == max_gb * 1e9:
        remedy += ", or raise cache.max_gb"
    in_use = f", besides {held / 1e9:.1f} GB that other jobs use" if held else ""
    raise ArtifactError(
        f"cache.folder={folder}: the clips of {source} take {size / 1e9:.1f} GB, and {limit / 1e9:.1f} GB are "
        f"available{in_use}, enough for {max(0.0, limit - held) / size:.0%} of them; {remedy}; train.workers on "
        "several machines keep a share each, tune.sample searches on a part"
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _delete_unused(copy: Path) -> bool:
    """Delete a copy unless a process reads it. Return whether it was deleted."""
    with contextlib.suppress(FileNotFoundError), (copy / HEADER).open() as header:
        try:
            fcntl.flock(header, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        shutil.rmtree(copy)
        return True
    shutil.rmtree(copy, ignore_errors=True)
    return True
