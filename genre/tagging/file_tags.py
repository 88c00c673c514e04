"""The genre that a music file states itself (ID3, Vorbis comments, MP4, ASF), read and written with mutagen.

A file is never changed in place: a copy beside it is written, and takes its place when it is complete.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from genre.errors import ConfigError


class Action(StrEnum):
    """What happened to a file."""

    WRITTEN = "written"
    WOULD_WRITE = "would write"
    KEPT = "kept"  # it has a genre already
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    action: Action
    before: str | None = None  # the genre that the file had
    message: str | None = None


def require() -> None:
    """Raise `ConfigError` unless mutagen is installed."""
    try:
        import mutagen  # noqa: F401
    except ImportError:
        raise ConfigError("tag.write_genres needs mutagen, which is not installed; pip install 'genre[tags]'") from None


def write_genre(path: str, genre: str, replace: bool = False, preview: bool = False) -> Outcome:
    """State `genre` in the local file at `path`, unless it states one and `replace` is off.

    Says what it did instead of raising: one file that cannot be written is no reason to stop.
    """
    path = os.path.realpath(path)  # what a link inside the collection points to, never the link itself
    try:
        before = read_genre(path)
        if before and (not replace or before == genre):
            return Outcome(Action.KEPT, before)
        if preview:
            return Outcome(Action.WOULD_WRITE, before)
        _write_whole(path, genre)
    except Exception as error:  # mutagen raises what it likes for a damaged file
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Outcome(Action.FAILED, message=" ".join(text.split()))
    return Outcome(Action.WRITTEN, before)


def read_genre(path: str) -> str | None:
    """The genre that a file states, or None."""
    tags = _open(path).tags
    if tags is None:
        return None
    found = tags.getall("TCON") if _has_frames(tags) else tags.get("genre")
    texts = [text for frame in found for text in frame.genres] if _has_frames(tags) else found
    return str(texts[0]).strip() or None if texts else None


def _write_whole(path: str, genre: str) -> None:
    folder, name = os.path.split(path)
    if not os.access(path, os.W_OK):
        raise PermissionError(None, "the file is write-protected")
    # the suffix stays: mutagen chooses some formats by it; the dot in front hides the copy from other programs
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
    """Whether these are bare ID3 frames, as in WAV and AIFF, which mutagen's easy interface leaves out."""
    return hasattr(tags, "getall")
