"""Fetch a published corpus: download its archives, check them, and unpack them into one folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from genre.errors import GenreError
from genre.fetching.download import Watch, obtain, present_bytes, writing
from genre.fetching.published import Archive, Published
from genre.fetching.unpacking import unpack


def fetch(corpus: Published, root: Path, watch: Watch) -> None:
    """Create the folders of `corpus` that are missing or empty in `root`. Other folders are not changed.

    Raises `ArtifactError` for an archive that is damaged or not the published one, and `GenreError` when no
    mirror answers or the disk has no room. What has arrived stays, and the next call resumes.
    """
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
    _require_space(corpus, root)
    for archive in _missing(corpus, root):
        unpack(obtain(archive, root, watch), archive.folder, root, watch)


def is_fetched(corpus: Published, root: Path) -> bool:
    """Return whether all folders of `corpus` are in `root`."""
    return not _missing(corpus, root)


def disk_need(corpus: Published, root: Path) -> int:
    """Return about how many bytes `fetch` adds to `root`: archives that are not complete, and their content."""
    return sum(
        max(0, archive.size - present_bytes(archive, root)) + archive.unpacked for archive in _missing(corpus, root)
    )


def free_space(root: Path) -> int:
    """Return the free bytes of the disk that `root` is on, or will be."""
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    return shutil.disk_usage(existing).free


def _missing(corpus: Published, root: Path) -> list[Archive]:
    return [archive for archive in corpus.archives if not _holds_files(root / archive.folder)]


def _holds_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _require_space(corpus: Published, root: Path) -> None:
    need, free = disk_need(corpus, root), free_space(root)
    if need > free:
        raise GenreError(
            f"{root}: needs about {need / 1e9:,.1f} GB for archives and their content, found {free / 1e9:,.1f} GB; "
            "make room, or set corpus.root to a folder on another disk"
        )
