"""Genres, artist, album and title in a music file's own tags, read with mutagen.

ID3 (MP3, AIFF, WAV), Vorbis comments (FLAC, Ogg, Opus), MP4, ASF and APE, and the INFO list of a WAV file, which
mutagen does not read. Only the parts of a file that hold tags are read, mostly its head.
"""

from __future__ import annotations

import errno
import io
import os
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from genre.errors import ConfigError, install, one_line
from genre.storage import Location
from genre.storage.faults import STORAGE_SECONDS, retry

_BUFFER = 1 << 16  # bytes of a request to an object store
# the keys of ID3; of Vorbis comments and APE, which ignore case; of MP4; of ASF
_KEYS = {
    "genres": ("TCON", "genre", "\xa9gen", "WM/Genre"),
    "album_artist": ("TPE2", "albumartist", "album artist", "aART", "WM/AlbumArtist"),
    "artist": ("TPE1", "artist", "\xa9ART", "Author"),
    "album": ("TALB", "album", "\xa9alb", "WM/AlbumTitle"),
    "title": ("TIT2", "title", "\xa9nam", "Title"),
}
_INFO = {b"IGNR": "genres", b"IART": "artist", b"IPRD": "album", b"INAM": "title"}  # of RIFF
_NUMBERED = re.compile(r"\(?(\d{1,3})\)?")  # the number of an ID3v1 genre, which programs copy into other formats


@dataclass(frozen=True)
class FileTags:
    """The tags of a file. Texts are valid Unicode without surrounding whitespace; an absent field is empty."""

    genres: tuple[str, ...] = ()
    album_artist: str = ""
    artist: str = ""
    album: str = ""
    title: str = ""
    is_repaired: bool = False  # written in Windows-1251 but declared as Latin-1, and read as the former


def read(file: Location) -> FileTags:
    """Return the tags of a file; without any they are empty. Needs mutagen, see `require`.

    After a fault of the storage, try again for `STORAGE_SECONDS`. Raises `ValueError` for damaged tags and for a format
    without tags, `OSError` for an unreadable file, and `StorageError` when the storage stays unavailable.
    """
    return retry(lambda: read_once(file), file, STORAGE_SECONDS)


def read_once(file: Location) -> FileTags:
    """Return the tags of a file as `read` does, without another try. Raises `ValueError`, and `OSError` for a fault."""
    with _open(file) as stream:
        source = _Source(stream)
        try:
            return _read(io.BufferedReader(source, _BUFFER), file.name)
        finally:
            if source.error:
                raise source.error from None


def genres_as_read(texts: Sequence[str]) -> set[tuple[str, ...]]:
    """Return the genres that `read` may return for a file whose genre field has these texts. Needs mutagen.

    There may be two answers: in ID3, numbers are names also within a text, such as "(4)Eurodisco".
    """
    from mutagen.id3 import TCON

    frame = TCON(encoding=3, text=list(texts))  # type: ignore[no-untyped-call]
    return {_genres(texts), _genres(frame.genres)}


def _open(file: Location) -> io.FileIO | pa.NativeFile:
    return io.FileIO(file.path) if file.is_local else file.filesystem.open_input_file(file.path)


class _Source(io.RawIOBase):
    """A file that keeps the error of a read. mutagen raises other errors in its place, or takes it for missing tags.

    A place past the end has no bytes, in an object store as well, which would refuse to seek there.
    """

    def __init__(self, stream: io.FileIO | pa.NativeFile) -> None:
        self._stream = stream
        self._size = int(stream.seek(0, os.SEEK_END))
        self._place = 0
        self.error: OSError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        if place < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._place = place
        return place

    def readinto(self, buffer: Any) -> int:
        if self._place >= self._size:
            return 0
        try:
            self._stream.seek(self._place)
            count = int(self._stream.readinto(buffer))
        except OSError as error:
            self.error = error
            raise
        self._place += count
        return count


def require(setting: str) -> None:
    """Raise `ConfigError` unless mutagen, which `setting` needs, is installed."""
    try:
        import mutagen  # noqa: F401
    except ImportError:
        raise ConfigError(f"{setting} needs mutagen, which is not installed; {install('tags')}") from None


def _read(stream: io.BufferedReader, name: str) -> FileTags:
    import mutagen

    try:
        opened = mutagen.File(fileobj=stream, filename=name)
        if opened is None:
            raise ValueError("mutagen knows no tags for this format")
        values = _values(opened.tags) or _values(_ape(stream)) or _info(stream)
    except Exception as error:  # mutagen raises many kinds of exceptions for damaged files
        raise ValueError(one_line(error)) from None
    return _tags(values)


def _values(tags: Any) -> dict[str, list[str]]:
    """Return the texts of each field of `FileTags`, from the tags of any format."""
    values: dict[str, list[str]] = {}
    if tags is None:
        return values
    for field, keys in _KEYS.items():
        for key in keys:
            if texts := list(_texts(tags, key)):
                values.setdefault(field, []).extend(texts)
    return values


def _texts(tags: Any, key: str) -> Iterable[str]:
    if hasattr(tags, "getall"):  # ID3
        for frame in tags.getall(key) if len(key) == 4 and key.isupper() else ():
            yield from (str(text) for text in (frame.genres if key == "TCON" else frame.text))
        return
    try:
        value = tags[key]
    except (KeyError, ValueError):  # ValueError: not a valid key of this format
        return
    yield from (str(text) for text in (value if hasattr(value, "__iter__") else [value]))


def _ape(stream: io.BufferedReader) -> Any:
    """Return the APE tags at the end of an MP3 file, of which mutagen reads ID3 only; None without."""
    from mutagen.apev2 import APENoHeaderError, APEv2

    stream.seek(0)
    try:
        return APEv2(stream)  # type: ignore[no-untyped-call]
    except APENoHeaderError:
        return None


def _info(stream: io.BufferedReader) -> dict[str, list[str]]:
    """Return the texts in the INFO list of a RIFF file; {} for another file or without a list."""
    values: dict[str, list[str]] = {}
    stream.seek(0)
    head = stream.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return values
    while len(head := stream.read(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        start = stream.tell()
        if name == b"LIST" and size < 1 << 20 and stream.read(4) == b"INFO":
            values |= _info_list(stream.read(size - 4))
        stream.seek(start + size + size % 2)
    return values


def _info_list(content: bytes) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    position = 0
    while position + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        text = content[position + 8 : position + 8 + size].partition(b"\0")[0]
        if name in _INFO and text:
            try:
                values[_INFO[name]] = [text.decode()]
            except UnicodeDecodeError:
                values[_INFO[name]] = [text.decode("latin-1")]
        position += 8 + size + size % 2
    return values


def _tags(values: dict[str, list[str]]) -> FileTags:
    """Return `FileTags` with the first text of each field, and all genres."""
    written = {field: [text for value in texts for text in _cleaned(value)] for field, texts in values.items()}
    repaired = {field: [_repaired(text) for text in texts] for field, texts in written.items()}
    return FileTags(
        genres=_genres(values.get("genres", ())),
        **{field: repaired[field][0] for field in ("album_artist", "artist", "album", "title") if repaired.get(field)},
        is_repaired=repaired != written,
    )


def _genres(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_named(_repaired(value)) for text in texts for value in _cleaned(text)))


def _cleaned(text: str) -> Iterable[str]:
    """Yield the values in a text as valid Unicode; old programs separate several by NUL."""
    for part in text.split("\0"):
        if value := " ".join(part.encode(errors="replace").decode().split()):
            yield value


def _repaired(text: str) -> str:
    """Return what was meant by a text in Windows-1251 that was declared as Latin-1, and other texts unchanged.

    Such a text has hardly a letter of ASCII; a text in a Western language has few others.
    """
    letters = [letter for letter in text if letter.isalpha()]
    foreign = sum("\xc0" <= letter <= "\xff" for letter in letters)
    if len(letters) < 3 or foreign < 0.7 * len(letters):
        return text
    try:
        return text.encode("latin-1").decode("cp1251")
    except UnicodeError:
        return text


def _named(genre: str) -> str:
    """Return the name of a genre that is written as its number in ID3v1, and other genres unchanged."""
    from mutagen.id3 import TCON

    match = _NUMBERED.fullmatch(genre)
    names = TCON.GENRES
    return names[int(match[1])] if match and int(match[1]) < len(names) else genre
