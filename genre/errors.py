"""The errors that this project raises.

A message is one line: what is wrong, what was found and what to do. A job prints it without a traceback.
"""

from __future__ import annotations

import re
from enum import StrEnum


class GenreError(Exception):
    """Base class of the errors that this project raises."""


class ConfigError(GenreError):
    """The command or the configuration is wrong (exit code 2)."""


class ArtifactError(GenreError):
    """A folder of features, a model or results is missing, unfinished, altered or does not fit."""


class StorageError(GenreError):
    """A storage is unavailable or refuses all requests. This says nothing about the file that was asked for."""


class DeviceError(GenreError):
    """Torch sees no GPU on a machine that should compute on one."""


class TrainingError(GenreError):
    """A training cannot continue, for example because its loss is not finite."""


class MachineError(TrainingError):
    """A machine cannot train: it has no room for the clips, or torch does not see its GPU. Others may."""


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line; of an `OSError` the reason of the system, without number and path."""
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    text = re.split(r"Detail: \[errno \d+\] ", text)[-1]  # Arrow puts a sentence with the path before the reason
    return " ".join(text.split()) or type(error).__name__


def first_line(error: Exception) -> str:
    """Return the first line of the message of a library's error, or the name of its class where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def last_line(error: BaseException) -> str:
    """Return the last line of an error's text: Ray puts a traceback above the message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def install(extra: str) -> str:
    """Return what installs an extra. Not its name alone: the package index may have another project of this name."""
    return f"install it with pip install '.[{extra}]' in the project's folder"


class Reason(StrEnum):
    """Why a track has no features. Stored in `rejects.parquet`, so names are never reused."""

    UNREADABLE = "unreadable"  # could not be opened, or the decoder gave up
    MISSING = "missing"  # was listed by the corpus, and no file is there; each run looks for it again
    DENIED = "denied"  # may not be read: says nothing about the content, so the next run reads it again
    UNSUPPORTED = "unsupported"  # no decoder for this content is installed
    EMPTY = "empty"  # no bytes, or no samples
    TOO_SHORT = "too_short"  # less audio than audio.min_seconds, after trimming
    SILENT = "silent"  # nothing above the silence threshold
    NON_FINITE = "non_finite"  # NaN or infinite samples
    ABSURD_HEADER = "absurd_header"  # needs more than the limits: declared or decoded length, rate, channels, memory
    TRUNCATED = "truncated"  # the file ends before enough of what its header declares
    TIMED_OUT = "timed_out"  # took longer than decoding.file_timeout_s
    CRASHED = "crashed"  # the process that decoded it died


class AudioError(GenreError):
    """A track cannot be decoded or has no usable audio; `reason` says why."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(" ".join(message.split()))  # decoders write several lines
        self.reason = reason

    @property
    def line(self) -> str:
        """The reason and the message, without a full stop."""
        return f"{self.reason.value}: {self}".rstrip(".")

    def __reduce__(self) -> tuple[type[AudioError], tuple[Reason, str]]:
        return type(self), (self.reason, str(self))
