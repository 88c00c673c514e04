r"""The fields of a music file's tags that a genre can be written to: read, set, and restored as they were.

ID3 frames (MP3, AIFF, WAV), Vorbis comments (FLAC, Ogg, Opus), MP4 atoms, ASF attributes and APE items (WavPack,
Monkey's Audio, Musepack), with mutagen. The other fields, and the version of ID3, stay as they are, but 2.2 becomes
2.4. Padding may change its size, and an MP4 genre that was stored as a number (`gnre`) becomes the text (`\xa9gen`),
since mutagen does not write the former. It removes an ID3v1 block behind APE items, which only `byte_delta` keeps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Literal

Field = Literal["genre", "comment", "grouping", "custom"]
# The entries of a field, as JSON: each has its texts (`text`), and what its format stores with them.
State = list[dict[str, Any]]

CUSTOM = "GENRE_PREDICTED"
_FRAMES = {"genre": "TCON", "comment": "COMM", "grouping": "TIT1", "custom": f"TXXX:{CUSTOM}"}
_COMMENTS = {"genre": "GENRE", "comment": "COMMENT", "grouping": "GROUPING", "custom": CUSTOM}
_ATOMS = {
    "genre": "\xa9gen", "comment": "\xa9cmt", "grouping": "\xa9grp", "custom": f"----:com.apple.iTunes:{CUSTOM}"
}  # fmt: skip
_ATTRIBUTES = {
    "genre": "WM/Genre", "comment": "Description", "grouping": "WM/ContentGroupDescription", "custom": CUSTOM
}  # fmt: skip
_ITEMS = {"genre": "Genre", "comment": "Comment", "grouping": "Grouping", "custom": CUSTOM}


class TagFile:
    """The tags of a local file, in memory until `save`. Raises various exceptions for damaged tags."""

    def __init__(self, path: str) -> None:
        """Read the tags. Raises `ValueError` for a format without tags."""
        import mutagen

        file: Any = mutagen.File(path)
        if file is None:
            raise ValueError("mutagen knows no tags for this format")
        self._options: dict[str, Any] = {}
        version = getattr(file.tags, "version", ())[:2]
        if version in ((2, 3), (2, 4)):
            file = type(file)(path, translate=False)  # else numbers would become names, and 2.3 would become 2.4
        if version == (2, 3):
            self._options = {"v2_version": 3, "v23_sep": None}
        self.is_tagged = file.tags is not None
        if not self.is_tagged:
            file.add_tags()
        self._file, self._format = file, _format_of(file.tags)

    def state(self, field: Field) -> State:
        """Return the entries of a field; none when it is absent."""
        return self._format.read(field)

    def set(self, field: Field, values: Iterable[str]) -> None:
        """Replace the entries of a field by these values."""
        self.restore(field, self._format.entries(field, list(values)))

    def restore(self, field: Field, state: State) -> None:
        """Replace the entries of a field by those that `state` returned."""
        self._format.write(field, state)

    def save(self, keep_empty: bool = True) -> None:
        """Write the tags into the file; if not `keep_empty`, remove the block of tags when it has no field."""
        if len(self._file.tags) or keep_empty:
            self._file.save(**self._options)
        else:
            self._file.delete()


def texts(state: State) -> list[str]:
    """Return the texts of all entries."""
    return [text for entry in state for text in entry["text"]]


def is_same(state: State, other: State) -> bool:
    """Return whether two states differ in nothing but the encoding, which depends on the version of ID3."""
    plain = [[{key: value for key, value in entry.items() if key != "encoding"} for entry in s] for s in (state, other)]
    return plain[0] == plain[1]


class _Format(ABC):
    """The tags of one format."""

    def __init__(self, tags: Any) -> None:
        self._tags = tags

    @abstractmethod
    def read(self, field: Field) -> State: ...

    @abstractmethod
    def entries(self, field: Field, values: list[str]) -> State: ...

    @abstractmethod
    def write(self, field: Field, state: State) -> None: ...


def _format_of(tags: Any) -> _Format:
    from mutagen.apev2 import APEv2
    from mutagen.asf import ASFTags
    from mutagen.mp4 import MP4Tags

    if hasattr(tags, "getall"):
        return _Id3(tags)
    if isinstance(tags, MP4Tags):
        return _Mp4(tags)
    if isinstance(tags, ASFTags):
        return _Asf(tags)
    if isinstance(tags, APEv2):
        return _Ape(tags)
    if hasattr(tags, "vendor"):
        return _Vorbis(tags)
    raise ValueError("genres are written to ID3, Vorbis, MP4, ASF and APE tags only")


class _Id3(_Format):
    def read(self, field: Field) -> State:
        return [
            {"encoding": int(frame.encoding), "text": [str(text) for text in frame.text]}
            | ({"lang": frame.lang} if field == "comment" else {})
            for frame in self._frames(field)
        ]

    def entries(self, field: Field, values: list[str]) -> State:
        return [{"encoding": 3, "text": values} | ({"lang": "eng"} if field == "comment" else {})]

    def write(self, field: Field, state: State) -> None:
        from mutagen import id3

        for frame in self._frames(field):
            del self._tags[frame.HashKey]
        name, _, description = _FRAMES[field].partition(":")
        described = {"desc": description} if field in ("comment", "custom") else {}
        for entry in state:
            frame = getattr(id3, name)(**entry, **described)
            self._tags[frame.HashKey] = frame

    def _frames(self, field: Field) -> list[Any]:
        frames: list[Any] = self._tags.getall(_FRAMES[field])
        # comments with a description are notes of other programs, such as volumes
        return [frame for frame in frames if field != "comment" or not frame.desc]


class _Vorbis(_Format):
    def read(self, field: Field) -> State:
        return [{"key": key, "text": [text]} for key, text in self._tags if key.upper() == _COMMENTS[field]]

    def entries(self, field: Field, values: list[str]) -> State:
        return [{"key": _COMMENTS[field], "text": [value]} for value in values]

    def write(self, field: Field, state: State) -> None:
        others = [(key, text) for key, text in self._tags if key.upper() != _COMMENTS[field]]
        self._tags[:] = others + [(entry["key"], *entry["text"]) for entry in state]


class _Mp4(_Format):
    def read(self, field: Field) -> State:
        values = self._tags.get(_ATOMS[field], [])
        # what other programs store in a field of this name is bytes; UnicodeDecodeError is a ValueError
        return [{"text": [value.decode() if isinstance(value, bytes) else value]} for value in values]

    def entries(self, field: Field, values: list[str]) -> State:
        return [{"text": [value]} for value in values]

    def write(self, field: Field, state: State) -> None:
        from mutagen.mp4 import AtomDataType, MP4FreeForm

        self._tags.pop(_ATOMS[field], None)
        values = texts(state)
        if values and field == "custom":
            self._tags[_ATOMS[field]] = [
                MP4FreeForm(value.encode(), AtomDataType.UTF8)  # type: ignore[no-untyped-call]
                for value in values
            ]
        elif values:
            self._tags[_ATOMS[field]] = values


class _Asf(_Format):
    def read(self, field: Field) -> State:
        return [
            {"text": [str(value)], "language": value.language, "stream": value.stream}
            for key, value in self._tags
            if key == _ATTRIBUTES[field]
        ]

    def entries(self, field: Field, values: list[str]) -> State:
        return [{"text": [value], "language": None, "stream": None} for value in values]

    def write(self, field: Field, state: State) -> None:
        from mutagen.asf._attrs import ASFUnicodeAttribute

        self._tags[:] = [pair for pair in self._tags if pair[0] != _ATTRIBUTES[field]]
        for entry in state:
            (text,) = entry["text"]
            options = {"language": entry["language"], "stream": entry["stream"]}
            value = ASFUnicodeAttribute(text, **options)  # type: ignore[no-untyped-call]
            self._tags.append((_ATTRIBUTES[field], value))


class _Ape(_Format):
    def read(self, field: Field) -> State:
        value = self._tags.get(_ITEMS[field])
        if value is None:
            return []
        if value.kind:
            raise ValueError(f"the item {_ITEMS[field]} holds no text")
        return [{"text": list(value)}]

    def entries(self, field: Field, values: list[str]) -> State:
        return [{"text": values}] if values else []

    def write(self, field: Field, state: State) -> None:
        self._tags.pop(_ITEMS[field], None)
        if values := texts(state):
            self._tags[_ITEMS[field]] = values
