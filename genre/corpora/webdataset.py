"""WebDataset: tar files with the audio and its labels side by side. `corpus.root` is a file, or a folder of files.

    shard-0000.tar   0001.mp3  0001.json    {"genre": "rock", "artist": "..."}
                     0002.flac 0002.cls     rock, or the number of a genre in `params.classes`

Members whose names are equal up to the first dot belong together. Of recordings with the same name the last counts, as
for tar. Members that are no regular files, such as links, are skipped; names are only names, since nothing is unpacked.
Splits are in the names of the shards, as in `parquet`.
`track_id` is the path of the shard below the root and the name of the audio in it.

Only headers and labels are read here, by several threads. They are kept in OUTPUT/scan: a later scan, also after an
interruption, reads new and changed shards only. A worker reads the bytes of a recording from its offset.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from genre.audio.members import range_address
from genre.corpora import UNLABELLED, Track, is_audio
from genre.corpora._artists import artist_key
from genre.corpora._findings import Findings
from genre.corpora._shards import ShardFile, find_shards
from genre.errors import ConfigError, one_line
from genre.settings import CorpusSettings, Settings
from genre.storage import Location
from genre.storage.faults import STORAGE_SECONDS, is_fault, retry
from genre.wording import plural

_THREADS = 16
_BUFFER = 1 << 14  # bytes of a request: a header and the labels next to it
_LARGEST_LABEL = 1 << 20  # bytes
_FOLDER = "webdataset-3"  # of the findings; a new number when other things are read


class Params(Settings):
    """Where the labels are."""

    genre_key: str = Field("genre", description="key of the genre in the .json members")
    group_key: str = Field("artist", description="key of the artist in the .json members")
    classes: list[str] = Field([], description="names of the genres that .cls members number from 0")


@dataclass
class _Contents:
    """What a shard holds."""

    shard: ShardFile
    audio: dict[str, tuple[int, int]] = field(default_factory=dict)  # offset and size by name
    labels: dict[str, dict[str, Any]] = field(default_factory=dict)  # by the name up to the first dot
    problems: list[str] = field(default_factory=list)
    is_tar: bool = True
    skipped: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # names by reason

    def to_json(self) -> str:
        return json.dumps([self.audio, self.labels, self.problems])

    @classmethod
    def from_json(cls, shard: ShardFile, text: str) -> _Contents:
        return cls(shard, *json.loads(text))


def scan(settings: CorpusSettings, params: Params) -> Iterator[Track]:
    """Yield every recording, in the order of the shards' paths and of their members."""
    return scan_with_report(settings, params, lambda line: None, None)


def scan_with_report(
    settings: CorpusSettings, params: Params, report: Callable[[str], None], folder: Location | None
) -> Iterator[Track]:
    """Yield what `scan` does, and report what is odd: truncated shards, members and labels that are not used.

    What was read is kept in `folder`. Raises `ConfigError` when none of the shards is a tar file that can be read, and
    `StorageError` when the storage does not answer.
    """
    shards = find_shards(settings, ".tar")
    findings = Findings(folder and folder / _FOLDER)
    known = findings.known(shards)
    pool = ThreadPoolExecutor(_THREADS)
    unreadable = []
    try:
        with findings.written():
            for contents, text in zip(pool.map(_contents, shards, known), known, strict=True):
                if not contents.is_tar:
                    unreadable.append(contents)
                elif text is None:
                    findings.add(contents.shard, contents.to_json())
                for problem in contents.problems:
                    report(f"odd: {contents.shard.relative}: {problem}")
                yield from _tracks(contents, params)
    finally:
        pool.shutdown(cancel_futures=True)
    findings.finish(shards)
    if len(unreadable) == len(shards):
        raise ConfigError(f"corpus.root: {shards[0].file}: {unreadable[0].problems[0]}")


def _tracks(contents: _Contents, params: Params) -> Iterator[Track]:
    shard = contents.shard
    for name, (offset, size) in contents.audio.items():
        labels = contents.labels.get(_key(name), {})
        genre = _genre(labels, params)
        yield Track(
            track_id=f"{shard.relative}/{name}",
            path=range_address(shard.file, offset, size),
            genre=genre,
            size=shard.size,
            modified=shard.modified,
            group=artist_key(_text(labels.get(params.group_key))),
            split=shard.split if genre else UNLABELLED,
        )


def _genre(labels: dict[str, Any], params: Params) -> str | None:
    label = _text(labels.get("cls")) or ""
    if params.classes and label.isdecimal():
        return params.classes[int(label)] if int(label) < len(params.classes) else None
    return _text(labels.get(params.genre_key)) or label or None


def _text(value: Any) -> str | None:
    """Return a label as text; None for an empty one and for one that is a list or a dictionary."""
    return _safe(str(value)).strip() or None if isinstance(value, str | int) else None


def _contents(shard: ShardFile, known: str | None) -> _Contents:
    """Return what a shard holds, from a finding or from its headers and labels."""
    if known is not None:
        return _Contents.from_json(shard, known)
    return retry(lambda: _read(shard), shard.file, STORAGE_SECONDS)


def _read(shard: ShardFile) -> _Contents:
    """Read the headers and labels of a shard. Raises the `OSError` of a fault of its storage."""
    contents = _Contents(shard, is_tar=shard.size < tarfile.BLOCKSIZE)  # a shorter file counts as a truncated tar file
    try:
        with shard.file.filesystem.open_input_file(shard.file.path) as stream:
            _read_members(contents, io.BufferedReader(stream, _BUFFER))
    except (tarfile.TarError, OSError) as error:
        if isinstance(error, OSError) and is_fault(error, shard.file):
            raise
        if contents.is_tar:
            contents.problems.append(f"truncated after {plural(len(contents.audio), 'recording')}; copy it again")
        else:
            contents.problems.append(f"cannot be read as a tar file ({one_line(error)}); check, unpack or copy it")
    contents.problems += [
        f"{plural(len(names), 'member')} skipped: {reason}; the first is {names[0]}"
        for reason, names in contents.skipped.items()
    ]
    return contents


def _read_members(contents: _Contents, stream: io.BufferedReader) -> None:
    """Add every member of a shard to `contents`. Raises `tarfile.TarError` for a shard that is truncated or damaged."""
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for member in archive:
            contents.is_tar = True
            if reason := _add(contents, archive, member):
                contents.skipped[reason].append(_safe(member.name))
        stream.seek(archive.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end mark")  # a damaged header, or an end in one or between two members


def _add(contents: _Contents, archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    """Note the place of a recording, or the content of a label. Return why one is skipped, "" if none is."""
    name = _safe(member.name)
    base = name.rsplit("/", 1)[-1]
    ending = base.rpartition(".")[2].lower()
    if member.isdir():
        return ""
    if not member.isreg():
        return "links or devices"
    if member.issparse():
        return "sparse files"
    if is_audio(base):
        replaced = name in contents.audio
        contents.audio[name] = member.offset_data, member.size
        return "a later one has the same name" if replaced else ""
    if ending not in ("json", "cls"):
        return ""
    if member.size > _LARGEST_LABEL:
        return "labels of more than 1 MiB"
    extracted = archive.extractfile(member)
    assert extracted is not None
    text = extracted.read().decode(errors="replace")
    return _add_label(contents.labels.setdefault(_key(name), {}), ending, text)


def _add_label(labels: dict[str, Any], ending: str, text: str) -> str:
    """Add the text of a label to the others of its recording. Return why it is skipped, "" if it is not."""
    if ending == "cls":
        labels["cls"] = text.strip()
        return ""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):  # the second: a thousand brackets
        content = None
    if not isinstance(content, dict):
        return "labels that are not a JSON object"
    labels |= content
    return ""


def _safe(name: str) -> str:
    """Return the name of a member, or a label, as text that Parquet can hold."""
    return name.encode(errors="backslashreplace").decode()


def _key(name: str) -> str:
    """Return the name of a member up to the first dot behind its folders."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]
