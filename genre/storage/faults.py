"""Distinguish faults of a storage from properties of a file.

A missing or denied file is a property of the file, and another try gives the same. A failed connection, an answer 503,
an expired token or a folder that is unavailable is a fault of the storage, and temporary.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from pyarrow import fs

from genre.errors import ConfigError, StorageError, one_line
from genre.storage import Location
from genre.storage.location import BUCKETS, DISK_FULL

STORAGE_SECONDS = 60.0  # that a storage may be unavailable while tags are read, files are hashed or shards are listed
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0  # seconds between tries
_MISSING = (errno.ENOENT, errno.ENOTDIR)
_DENIED = (errno.EACCES, errno.EPERM)
_OF_THE_FILE = (errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
# what Arrow says of a page of Parquet that it has read and cannot decode: an OSError without errno, as are those of an
# object store
_DAMAGED = re.compile(r"(?i)corrupt|codec failed|decompress|deserializ|byte_array")
# what stores of S3 say; Arrow has a name for some of the codes and repeats the others
_WITHOUT_CODE = "No response body"
_EXPIRED = re.compile(r"(?i)expired_?token|token_?expired")
_UNKNOWN_KEY = re.compile(
    r"(?i)invalid_?access_?key_?id|signature_?does_?not_?match|invalid_?token|unrecognized_?client"
)

T = TypeVar("T")


def retry(action: Callable[[], T], file: Location, seconds: float = 0.0) -> T:
    """Return `action()`, which reads `file`. After a fault of its storage, try again until `seconds` have passed.

    Raises the `OSError` of the action when the file is the reason, and `StorageError` when the storage is.
    """
    end = time.monotonic() + seconds
    pause = _FIRST_PAUSE
    while True:
        try:
            return action()
        except OSError as error:
            if not is_fault(error, file):
                raise
            if time.monotonic() + pause > end:
                raise unreachable(file, error) from None
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def is_fault(error: OSError, file: Location) -> bool:
    """Return whether an error in reading `file`, which existed, is due to the storage.

    A missing or denied file is a fault only if its folder cannot be listed.
    """
    if isinstance(error, FileNotFoundError) or error.errno in _MISSING or is_denied(error):
        return not _can_list(file.parent)
    if error.errno is None:
        return not file.is_local and not _DAMAGED.search(str(error))
    return error.errno not in _OF_THE_FILE


def check_present(missing: Iterable[Location], unlisted: Iterable[Location], noun: str, done: str) -> None:
    """Raise `StorageError` when files with results of an earlier run are away together with their folder.

    A mount point without its disk is such a folder: it is missing, empty or denied. `missing` are files that are listed
    and do not exist, `unlisted` those that are no longer listed. Of a folder that was deleted, the first one above it
    counts that exists. The message says that `noun`, such as "tracks", were `done`, such as "prepared".
    """
    for file in {str(file.parent): file for file in missing}.values():  # one of each folder
        if is_fault(FileNotFoundError(), file):
            raise StorageError(
                f"{file}, which was {done} earlier, is away, and {file.parent} is missing or empty; mount it and run "
                f"the same command again, or leave out the {noun} below it"
            )
    for folder in sorted({_first_existing(path) for path in {file.parent.path for file in unlisted if file.is_local}}):
        if not _can_list(Location.of(folder)):
            raise StorageError(
                f"{folder} is empty or denied, and {noun} below it were {done} earlier; mount its disk and run the "
                "same command again, or delete the folder if its music is gone"
            )


def _first_existing(folder: str) -> str:
    """Return a local folder, or the first one above it that exists."""
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder


@contextlib.contextmanager
def full_disk_named(output: str) -> Iterator[None]:
    """Raise `StorageError` in place of the error of a full disk in the block, which writes below `output`.

    It names the folder that cannot be written, which may also be one for temporary files.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        file = error.filename if isinstance(error.filename, str) else ""  # else the number of a descriptor
        folder = os.path.dirname(file) or output
        raise StorageError(
            f"{folder}: cannot be written ({os.strerror(error.errno)}); free space and run the same command again"
        ) from None


def unreachable(file: Location, error: OSError) -> StorageError:
    """Return what to raise in place of an error in reading `file` that `is_fault`."""
    return StorageError(
        f"{file} cannot be reached ({one_line(error)}); run the same command again when the storage answers"
    )


def is_denied(error: OSError) -> bool:
    """Return whether a storage or a file system refuses access."""
    return error.errno in _DENIED or "ACCESS_DENIED" in str(error)


def explain(error: OSError, file: Location) -> str:
    """Return what an error in reading `file` means and what to do; "" if it is none of the three below.

    The bucket or the file does not exist, the credentials have expired, or access is denied.
    """
    if isinstance(error, FileNotFoundError) or error.errno in _MISSING:
        return _missing(file)
    if error.errno is not None and not is_denied(error):
        return ""
    text = str(error)
    if not file.is_local and _WITHOUT_CODE in text:  # the answer to a HEAD request has no code, that to a listing has
        try:
            file.children()
        except OSError as listing:
            text += str(listing)
    if _EXPIRED.search(text):
        return "the credentials have expired; renew them"
    if is_denied(error) or _UNKNOWN_KEY.search(text):
        return "access is denied; check your " + ("rights" if file.is_local else "credentials and their rights")
    return ""


def check_place(folder: Location, setting: str) -> None:
    """Raise `ConfigError` unless a folder, the value of `setting`, exists or can be made. Nothing is written.

    In an object store the bucket has to exist and the folder must be listable; of a local folder the first one above it
    that exists is a folder.
    """
    if folder.is_local:
        above = folder.path
        while not os.path.lexists(above):
            above = os.path.dirname(above)
        if not os.path.isdir(above):
            raise ConfigError(f"{setting}={folder}: {above} is not a folder; choose another")
        return
    try:
        found = folder.exists()
    except OSError as error:
        reason = explain(error, folder) or f"cannot be reached ({one_line(error)}); check address and network"
        raise ConfigError(f"{setting}={folder}: {reason}") from None
    if not found and (bucket := _missing_bucket(folder)):
        raise ConfigError(f"{setting}={folder}: the bucket {bucket} does not exist; check the address")


def _missing(file: Location) -> str:
    bucket = _missing_bucket(file)
    return f"{f'the bucket {bucket}' if bucket else 'it'} does not exist; check the address"


def _missing_bucket(file: Location) -> str:
    """Return the name of the bucket of a file that was not found if it is missing as well, else ""."""
    if file.filesystem.type_name not in BUCKETS:
        return ""
    bucket = file.path.partition("/")[0]
    try:
        return bucket if file.filesystem.get_file_info(bucket).type == fs.FileType.NotFound else ""
    except OSError:  # only a part of the bucket may be listed
        return ""


def _can_list(folder: Location) -> bool:
    """Return whether a folder holds anything that we may see. A mount point whose storage is unavailable is empty."""
    try:
        if folder.is_local:
            with os.scandir(folder.path) as entries:
                return any(True for _ in entries)
        return bool(folder.filesystem.get_file_info(folder.path).type == fs.FileType.Directory)
    except OSError:
        return False
