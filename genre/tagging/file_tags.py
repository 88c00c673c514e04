"""The genre in a music file's own tags (ID3, Vorbis comments, MP4, ASF), read and written with mutagen.

A file is never changed in place: a copy next to it is written, and replaces it when the copy is complete.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from genre.audio import tags
from genre.storage import Location


class Action(StrEnum):
    """What was done with a file."""

    WRITTEN = "written"
    WOULD_WRITE = "would write"
    KEPT = "kept"  # it already has a genre
    FAILED = "failed"


@dataclass(frozen=True)
class Result:
    """What was done with a file, and why if it failed."""

    action: Action
    before: str | None = None  # the genre that the file had
    message: str | None = None


def require() -> None:
    """Raise `ConfigError` unless mutagen is installed."""
    tags.require("tag.write_genres")


def write_genre(path: str, genre: str, replace: bool = False, preview: bool = False) -> Result:
    """Write `genre` into the local file at `path`, unless the file has a genre and `replace` is off.

    Return what was done. A failure is returned, not raised, so that a job continues with the next file.
    """
    path = os.path.realpath(path)  # the target of a link inside the collection, never the link itself
    try:
        before = read_genre(path)
        if before and (not replace or before == genre):
            return Result(Action.KEPT, before)
        if preview:
            return Result(Action.WOULD_WRITE, before)
        _replace(path, genre)
    except Exception as error:  # mutagen raises many kinds of exceptions for damaged files
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Result(Action.FAILED, message=" ".join(text.split()))
    return Result(Action.WRITTEN, before)


def read_genre(path: str) -> str | None:
    """Return the first genre in a file's tags, or None."""
    return next(iter(tags.read(Location.of(path)).genres), None)


def _replace(path: str, genre: str) -> None:
    """Replace a file by a copy with `genre` in its tags."""
    folder, name = os.path.split(path)
    if not os.access(path, os.W_OK):
        raise PermissionError(None, "the file is write-protected")
    # mutagen recognises some formats by the suffix; the leading dot hides the copy from other programs
    descriptor, copy = tempfile.mkstemp(prefix=".", suffix=f"-{name}"[-80:], dir=folder)
    os.close(descriptor)
    try:
        shutil.copy2(path, copy)
        file = _open(copy)
        if file.tags is None:
            file.add_tags()
        if _has_frames(file.tags):
            from mutagen.id3 import TCON

            file.tags.setall("TCON", [TCON(encoding=3, text=[genre])])  # type: ignore[no-untyped-call]
        else:
            file.tags["genre"] = [genre]
        file.save()
        with open(copy, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(copy, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(copy)


def _open(path: str) -> Any:
    import mutagen

    file = mutagen.File(path, easy=True)
    if file is None:
        raise ValueError("mutagen knows no tags for this format")
    return file


def _has_frames(tags: Any) -> bool:
    """Return whether these are bare ID3 frames, as in WAV and AIFF, which mutagen's easy interface does not cover."""
    return hasattr(tags, "getall")
