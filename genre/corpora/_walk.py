"""List the audio files below a folder, one at a time and in the same order on every system.

A file is listed by its extension; its content is checked when it is decoded. All other files (covers, cue sheets, logs)
are skipped silently, as are hidden files and folders (`.git`, macOS `._01 Song.wav`), `Thumbs.db` and `__MACOSX`.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from pyarrow import fs

from genre.errors import ArtifactError, ConfigError, one_line
from genre.storage import Location
from genre.storage.faults import STORAGE_SECONDS, explain, is_fault, retry

AUDIO = frozenset(
    ("wav", "wave", "flac", "ogg", "oga", "opus", "mp3", "au", "aif", "aiff", "aifc", "caf", "m4a", "mp4", "aac", "wma")
) | {"wv", "ape", "mpc"}
MISSING = -1  # size of a listed file that does not exist: a row of a table, a broken link

_LISTING_THREADS = 16  # a network folder answers one thread a few thousand times a second
_LISTED_AHEAD = 32  # folders at each level

_SYSTEM_FILES = frozenset(("Thumbs.db", "__MACOSX"))
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AudioFile:
    """A file that may be a track."""

    path: str  # path or URI, as `Location.of` takes it
    relative: str  # to the root of the walk, with "/" between folders
    size: int  # bytes, or MISSING
    modified: float  # seconds since 1970; 0 where the storage does not say


@dataclass(frozen=True)
class _Entry:
    name: str
    is_folder: bool
    size: int = MISSING
    modified: float = 0.0
    is_refused_link: bool = False


def is_audio(name: str) -> bool:
    """Return whether a file of this name may be a track."""
    return not is_system_file(name) and "." in name and name.rsplit(".", 1)[1].lower() in AUDIO


def is_system_file(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, or created by an operating system."""
    return name.startswith(".") or name in _SYSTEM_FILES


def open_root(address: str, setting: str = "corpus.root") -> Location:
    """Return the location that `setting` names. Raises `ConfigError` when it is empty or not an address."""
    if not address:
        raise ConfigError(f"{setting} is empty; write {setting}=/path/to/music or an address such as s3://bucket/music")
    try:
        return Location.of(address)
    except ArtifactError as error:
        raise ConfigError(f"{setting}={error}") from None


def open_folder(address: str, setting: str = "corpus.root") -> Location:
    """Return the folder that `setting` names. Raises `ConfigError` when it is not an existing folder."""
    root = open_root(address, setting)
    try:
        kind = root.filesystem.get_file_info(root.path).type
    except OSError as error:
        reason = explain(error, root) or f"cannot be reached ({one_line(error)}); check address and access"
        raise ConfigError(f"{setting}={root}: {reason}") from None
    if kind == fs.FileType.NotFound:
        raise ConfigError(f"{setting}={root} does not exist; point it at the folder of the music")
    if kind == fs.FileType.File:
        raise ConfigError(f"{setting}={root} is a file, not a folder; point it at the folder of the music")
    return root


def walk(root: Location, setting: str = "corpus.root") -> Iterator[AudioFile]:
    r"""Yield every audio file at any depth below `root`, with files and folders sorted together by name (code points).

    Local folders are listed by several threads, a few folders ahead. Of an object store all names are requested at
    once, a thousand with each request, and held in memory until they are sorted. On local paths a link to a file inside
    `root` is a file (git-annex). Links to folders and links that leave `root` are not followed, so no link can make a
    loop; one warning counts them. A local name that is not UTF-8 is yielded escaped (`caf\xe9.wav`) and as MISSING:
    Parquet cannot hold the name, but the file must end in the rejects.

    A listing that fails by a fault of the storage is repeated. Raises `StorageError` when it still fails after
    `STORAGE_SECONDS`, and `ConfigError` for a folder that cannot be listed, and when there was no audio file.
    """
    walker = _Walker(root, setting)
    is_empty = True
    with contextlib.closing(walker.files()) as files:
        for audio in files:
            is_empty = False
            yield audio
    if walker.links:
        _log.warning(
            "%s=%s: %d links not followed, the first is %s; link to files inside the root, or mount the others there",
            setting, root, walker.links, walker.first_link,
        )  # fmt: skip
    if is_empty:
        raise ConfigError(f"{setting}={root} holds no audio file (.wav, .flac, .mp3, ...); point it at the music")


def size_and_time(info: fs.FileInfo) -> tuple[int, float]:
    """Return bytes and seconds since 1970 of a listed file; (MISSING, 0) where it does not exist."""
    if info.type != fs.FileType.File:
        return MISSING, 0.0
    return int(info.size or 0), (info.mtime_ns or 0) / 1e9


class _Walker:
    def __init__(self, root: Location, setting: str) -> None:
        self._root, self._setting = root, setting
        self._real_root = os.path.join(os.path.realpath(root.path), "") if root.is_local else ""
        self.links = 0  # not followed
        self.first_link = ""

    def files(self) -> Generator[AudioFile]:
        """Yield the audio files below the root, in order."""
        if self._root.is_local:
            pool = ThreadPoolExecutor(_LISTING_THREADS)
            try:
                yield from self._below(self._root, "", pool.submit(self._listed, self._root), pool)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        else:
            yield from self._remote()

    def _below(
        self, folder: Location, relative: str, listing: Future[list[_Entry]], pool: ThreadPoolExecutor
    ) -> Iterator[AudioFile]:
        """Yield the audio files below `folder`; `relative` is its path below the root, empty or ending in "/"."""
        with self._explained(folder):
            entries = sorted(listing.result(), key=lambda entry: entry.name)
        links = [entry.name for entry in entries if entry.is_refused_link]
        self.links += len(links)
        if links and not self.first_link:
            self.first_link = f"{folder.path}/{links[0]}"
        entries = [entry for entry in entries if not entry.is_refused_link]
        folders = (folder / entry.name for entry in entries if entry.is_folder)
        ahead: deque[Future[list[_Entry]]] = deque()
        for entry in entries:
            location = folder / entry.name
            if not entry.is_folder:
                yield _audio_file(str(location), relative + entry.name, entry)
                continue
            while len(ahead) < _LISTED_AHEAD and (following := next(folders, None)):
                ahead.append(pool.submit(self._listed, following))
            yield from self._below(location, f"{relative}{entry.name}/", ahead.popleft(), pool)

    def _remote(self) -> Iterator[AudioFile]:
        """Yield the audio files of any file system from one listing, in the order of a walk through its folders."""
        selector = fs.FileSelector(self._root.path, recursive=True, allow_not_found=True)
        with self._explained(self._root):
            infos = retry(lambda: self._root.filesystem.get_file_info(selector), self._root, STORAGE_SECONDS)
        start = len(self._root.path.rstrip("/")) + 1
        listed = [
            (names, info)
            for info in infos
            if info.type == fs.FileType.File
            and is_audio((names := str(info.path)[start:].split("/"))[-1])
            and not any(map(is_system_file, names[:-1]))
        ]
        del infos
        listed.sort(key=lambda pair: pair[0])
        for names, info in listed:
            yield AudioFile(str(self._root.below(names)), "/".join(names), *size_and_time(info))

    @contextlib.contextmanager
    def _explained(self, folder: Location) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"{self._setting}: {folder} cannot be listed ({one_line(error)}); give read access or move it away"
            ) from None

    def _listed(self, folder: Location) -> list[_Entry]:
        return retry(lambda: self._local(folder.path), folder, STORAGE_SECONDS)

    def _local(self, folder: str) -> list[_Entry]:
        """Return the folders and audio files in a local folder. Raises the `OSError` of a fault of its storage.

        Uses `os.scandir`, since pyarrow follows links and fails at names that are not UTF-8.
        """
        entries = []
        with os.scandir(folder) as listing:
            for item in listing:
                if is_system_file(item.name):
                    continue
                if item.is_dir(follow_symlinks=False):
                    entries.append(_Entry(item.name, is_folder=True))
                elif item.is_symlink() and not self._is_accepted(item):
                    entries.append(_Entry(item.name, is_folder=False, is_refused_link=True))
                elif is_audio(item.name) and (item.is_symlink() or item.is_file()):
                    entries.append(_Entry(item.name, False, *_stat(item)))
        return entries

    def _is_accepted(self, link: os.DirEntry[str]) -> bool:
        """Return whether a link needs no warning: to a file inside the root, or to one that is no audio file."""
        return not link.is_dir() and (
            not is_audio(link.name) or os.path.realpath(link.path).startswith(self._real_root)
        )


def _stat(item: os.DirEntry[str]) -> tuple[int, float]:
    try:
        status = item.stat()
    except OSError as error:  # a broken link, or a file that was deleted after it was listed
        if is_fault(error, Location.of(item.path)):
            raise
        return MISSING, 0.0
    return status.st_size, status.st_mtime


def _audio_file(path: str, relative: str, entry: _Entry) -> AudioFile:
    try:
        path.encode()
    except UnicodeEncodeError:
        path, relative = (os.fsencode(text).decode(errors="backslashreplace") for text in (path, relative))
        return AudioFile(path, relative, MISSING, 0.0)
    return AudioFile(path, relative, entry.size, entry.modified)
