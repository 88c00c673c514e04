"""Large files that hold many tracks, and the splits in their names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter

from pyarrow import fs

from genre.corpora._walk import is_system_file, open_root, size_and_time
from genre.errors import ConfigError, one_line
from genre.settings import CorpusSettings
from genre.storage import Location
from genre.storage.faults import STORAGE_SECONDS, retry

SPLIT_OF = {  # by its name in lower case
    "train": "train", "training": "train", "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class ShardFile:
    """A file that holds tracks."""

    file: Location
    relative: str  # to the root
    size: int
    modified: float
    split: str | None  # that its path names; None: not all three are named, or `corpus.split` is random


def find_shards(settings: CorpusSettings, suffix: str) -> list[ShardFile]:
    """Return `corpus.root` if it is a file, or every file below it whose name ends in `suffix`, in order.

    Raises `ConfigError` when there is none or the root cannot be reached, and for `corpus.split=official` unless all
    three splits are named, and `StorageError` when the storage no longer answers.
    """
    root = open_root(settings.root)
    try:
        info = root.filesystem.get_file_info(root.path)  # not repeated, so that a wrong address is refused soon
        infos = retry(lambda: sorted(_below(root, info, suffix), key=itemgetter(1)), root, STORAGE_SECONDS)  # by path
    except OSError as error:
        raise ConfigError(f"corpus.root={root} cannot be read ({one_line(error)}); check address and access") from None
    if not infos:
        raise ConfigError(f"corpus.root={root} holds no {suffix} file; point it at one, or at a folder of them")
    splits = {relative: _split_of(relative) for _, relative, _ in infos}
    is_published = set(splits.values()) >= {"train", "valid", "test"}
    if settings.split == "official" and not is_published:
        raise ConfigError("corpus.split=official: the file names do not name train, validation and test; use random")
    use = is_published and settings.split != "random"
    return [
        ShardFile(file, relative, *size_and_time(info), splits[relative] if use else None)
        for file, relative, info in infos
    ]


def _below(root: Location, info: fs.FileInfo, suffix: str) -> Iterator[tuple[Location, str, fs.FileInfo]]:
    """Yield (file, path below the root, what the storage says of it), in no order. `info` is that of the root."""
    if info.type == fs.FileType.File:
        yield root, root.name, info
        return
    for below in root.filesystem.get_file_info(fs.FileSelector(root.path, recursive=True, allow_not_found=True)):
        parts = below.path[len(root.path) :].strip("/").split("/")
        if below.type == fs.FileType.File and parts[-1].endswith(suffix) and not any(map(is_system_file, parts)):
            yield root.below(parts), "/".join(parts), below


def _split_of(relative: str) -> str | None:
    """Return the split that a path names last, None where it names none."""
    named = [SPLIT_OF[word] for word in _WORD.findall(relative.lower()) if word in SPLIT_OF]
    return named[-1] if named else None
