"""The folder of a machine in which jobs keep copies of features: its lock, its size, and which copies go first."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from genre.errors import ArtifactError, ConfigError
from genre.settings import CacheSettings

Report = Callable[[str], object]

PREFIX = "features-"  # of the names of copies; nothing else in the folder is deleted
UNFINISHED = ".unfinished"  # suffix of a copy in the making
HEADER = "header.json"  # of a copy; readers hold a shared lock on it
_LOCK = "building.lock"
_SHARE_OF_DISK = 0.9


def of(settings: CacheSettings) -> Path:
    """Return the folder of all copies, which is made. Raises `ConfigError` where it cannot be written."""
    default = os.environ.get("GENRE_CACHE") or f"/var/tmp/genre-{getpass.getuser()}"
    folder = Path(settings.folder or default).expanduser()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / _LOCK).touch()
    except OSError as error:
        raise ConfigError(
            f"cache.folder={folder}: cannot be written ({error.strerror}); name a folder on each machine's local disk"
        ) from None
    return folder


@contextlib.contextmanager
def exclusive(folder: Path, report: Report) -> Iterator[None]:
    """Be the only process that makes or deletes copies within the block. A process that ends loses the lock."""
    with (folder / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"waiting for another process that copies features to {folder}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_room(folder: Path, size: int, max_gb: float, source: str) -> None:
    """Delete unfinished copies, then those that were used least recently, until `size` more bytes fit.

    To be called within `exclusive`. Raises `ArtifactError` where they do not fit next to the copies that are in use.
    """
    for unfinished in folder.glob(f"{PREFIX}*{UNFINISHED}"):
        shutil.rmtree(unfinished)
    copies = sorted(folder.glob(f"{PREFIX}*"), key=lambda path: path.stat().st_mtime)
    sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in copies}
    held = sum(sizes.values())
    limit = max_gb * 1e9 or _SHARE_OF_DISK * (shutil.disk_usage(folder).free + held)
    for path in copies:
        if held + size <= limit:
            return
        if _delete_unused(path):
            held -= sizes[path]
    if held + size > limit:
        in_use = f", besides {held / 1e9:.1f} GB that other jobs use" if held else ""
        raise ArtifactError(
            f"cache.folder={folder}: the clips of {source} take {size / 1e9:.1f} GB, and {limit / 1e9:.1f} GB are "
            f"available{in_use}; set cache.folder to a larger disk, or raise cache.max_gb"
        )


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
