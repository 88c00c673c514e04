"""Rows of the tag table: their columns, and how a file becomes a row."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from genre.audio import tags as written_tags
from genre.corpora import MISSING, group_of
from genre.errors import AudioError, Reason
from genre.storage import Location
from genre.storage.faults import STORAGE_SECONDS, retry
from genre.tagging.audio_files import FILES, FileRow
from genre.tagging.known_contents import KnownContents

if TYPE_CHECKING:
    from genre.tagging.tagger import Tagger, Tags

_PROBABILITIES = pa.list_(pa.float32())  # calibrated, in the order of the classes
_MOMENT = pa.struct([("start", pa.float32()), ("end", pa.float32()), ("probabilities", _PROBABILITIES)])
SCHEMA = pa.schema(
    [
        *FILES,
        ("content", pa.string()),  # SHA-256; null when the file could not be opened
        ("seconds", pa.float64()),
        ("probabilities", _PROBABILITIES),
        ("timeline", pa.list_(_MOMENT)),
        ("embedding", pa.list_(pa.float16())),  # null: of several models, or of an exported file
        ("is_embedded", pa.bool_()),
        ("clip_embeddings", pa.list_(pa.list_(pa.float16()))),  # of the clips of the timeline; null: not asked for
        ("has_clips", pa.bool_()),  # whether they are there
        ("artist", pa.string()),  # in the file's own tags; null: not there, or mutagen is not installed
        ("title", pa.string()),
        ("own_genre", pa.string()),  # as the tags write it, several divided by "; "
        ("group", pa.string()),  # the artist in the form in which names are compared
        ("reason", pa.string()),  # null: the file has tags
        ("message", pa.string()),
    ]
)

_LONGEST_OWN = 200  # characters of a file's own genre; what is longer is a sentence


@dataclass(frozen=True)
class DecodedFile:
    """A row of the tag table without tags, and the decoded track that they are computed from.

    There is no track where the content is known, or the file could not be read.
    """

    row: dict[str, Any]
    track: Any = None


def decode_files(decode: Callable[[str], Any], files: pa.Table, known: KnownContents) -> list[DecodedFile]:
    """Decode `files`. One whose content is `known` is only read. Raises `StorageError`."""
    return [_decoded(decode, row, known) for row in files.select(FILES.names).to_pylist()]


def name_files(tagger: Tagger, files: list[DecodedFile]) -> pa.Table:
    """Return rows of the tag table for decoded files. One whose content is known has neither tags nor a reason."""
    readable = [file for file in files if file.track is not None]
    tags = tagger.name_all([file.row["path"] for file in readable], [file.track for file in readable])
    for file, named in zip(readable, tags, strict=True):
        file.row.update(tag_columns(named, tagger.classes))
    return pa.Table.from_pylist([file.row for file in files], SCHEMA)


def tag_files(tagger: Tagger, files: pa.Table, known: KnownContents) -> pa.Table:
    """Decode and name `files` in one process."""
    return name_files(tagger, decode_files(tagger.decode, files, known))


def _decoded(decode: Callable[[str], Any], row: FileRow, known: KnownContents) -> DecodedFile:
    path = row["path"]
    if row["size"] == MISSING:
        message = "there was no file when the folder was listed"
        return DecodedFile(row | {"reason": Reason.UNREADABLE.value, "message": message})
    content = content_of(path) if known.has_size(row["size"]) else None
    if content in known:
        return DecodedFile(row | {"content": content})
    try:
        return DecodedFile(row | names_in(path), decode(path))
    except AudioError as error:
        return DecodedFile(row | {"content": content_of(path), "reason": error.reason.value, "message": str(error)})


def names_in(path: str) -> dict[str, str | None]:
    """Return artist, title, genre and group in the tags of the file at `path`; {} without tags or without mutagen.

    Raises `StorageError` when its storage is unavailable.
    """
    if importlib.util.find_spec("mutagen") is None:
        return {}
    try:
        written = written_tags.read(Location.of(path))
    except (OSError, ValueError):  # a file without readable tags is tagged all the same
        return {}
    names = {
        "artist": written.artist or written.album_artist,
        "title": written.title,
        "own_genre": "; ".join(written.genres)[:_LONGEST_OWN],
        "group": group_of(written),
    }
    return {column: text or None for column, text in names.items()}


def tag_columns(tags: Tags, classes: list[str]) -> dict[str, Any]:
    """Return the columns of the tag table that hold the tags of a file."""
    timeline = [
        {"start": moment.start, "end": moment.end, "probabilities": _in_order(moment.genres, classes)}
        for moment in tags.timeline
    ]
    return {
        "reason": None,
        "content": tags.content,
        "seconds": tags.seconds,
        "probabilities": _in_order(tags.genres, classes),
        "timeline": timeline,
        "embedding": tags.embedding,
        "is_embedded": tags.embedding is not None,
        "clip_embeddings": None if tags.clip_embeddings is None else list(tags.clip_embeddings),
        "has_clips": tags.clip_embeddings is not None,
    }


def _in_order(genres: list[tuple[str, float]], classes: list[str]) -> list[float]:
    by_name = dict(genres)
    return [by_name[name] for name in classes]


def content_of(path: str) -> str | None:
    """Return the SHA-256 of a file; None when it cannot be opened.

    Raises `StorageError` when its storage is unavailable.
    """
    file = Location.of(path)
    try:
        return retry(file.sha256, file, STORAGE_SECONDS)
    except OSError:
        return None
