"""Playlists as M3U8 files: UTF-8, a line with length and name before the address of each song."""

from __future__ import annotations

import os
from collections.abc import Iterable

from genre.retrieval.playlist import Song
from genre.storage import Location


def address(path: str, target: Location) -> str | None:
    """Return the line for the song at `path` in a playlist at `target`; None when no line can hold it.

    It is relative to the folder of a local playlist, so that both can be moved together. A local song in a playlist of
    an object store, and a song of an object store, have their complete address. A player would take a name that begins
    with `#` for a comment. The format has no escape for line breaks, and players read each line as it is.
    """
    if path.splitlines() != [path]:
        return None
    if "://" in path or not target.is_local:
        return path
    relative = os.path.relpath(path, os.path.dirname(target.path))
    return f"./{relative}" if relative.startswith("#") else relative


def content(songs: Iterable[Song], target: Location) -> str:
    """Return the content of a playlist at `target`. Raises `ValueError` for a song that has no `address`."""
    lines = ["#EXTM3U"]
    for song in songs:
        line = address(song.path, target)
        if line is None:
            raise ValueError(f"{song.path!r} has a line break")
        lines += [f"#EXTINF:{round(song.seconds)},{' '.join(song.name.split())}", line]
    return "\n".join(lines) + "\n"
