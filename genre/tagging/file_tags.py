"""Genres in a music file's own tags: written, and taken back.

A file is never changed in place: a copy next to it is written, and replaces it when the copy is complete.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TypeVar

from genre.audio import tags
from genre.errors import one_line
from genre.storage import Location
from genre.tagging import byte_delta
from genre.tagging.byte_delta import Delta
from genre.tagging.tag_fields import Field, State, TagFile, is_same, texts

_FIELD_ALONE = "the field alone; other bytes of the tags may differ from before"

T = TypeVar("T")


class Action(StrEnum):
    """What was done with a file."""

    WRITTEN = "written"
    WOULD_WRITE = "would write"
    KEPT = "kept"  # the field already has a value
    RESTORED = "restored"  # to what it was before genres were written
    UNCHANGED = "unchanged"  # it is as it was before
    LEFT = "left"  # another program changed the field since
    FAILED = "failed"


@dataclass(frozen=True)
class Change:
    """What is written to a file, with all that is needed to take it back."""

    field: Field
    ours: list[list[str]]  # the values that we wrote into the field, the latest first
    before: State  # the field before the first of these
    is_tagged: bool  # whether the file had a block of tags at all
    labels: list[list[str]] = dataclasses.field(default_factory=list)  # those of `ours` that are labels of a person
    delta: Delta | None = None  # from the file as we left it to all bytes before; None: planned, too large, or unknown

    def to_json(self) -> str:
        """Return the change as ASCII text."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Change:
        """Return the change that `to_json` wrote. Raises `ValueError` for another text."""
        try:
            change = cls(**json.loads(text))
            return replace(change, delta=Delta(**change.delta)) if isinstance(change.delta, dict) else change
        except TypeError:
            raise ValueError(f"not a change: {text[:80]}") from None


@dataclass(frozen=True)
class Result:
    """What was done with a file, and why if it failed."""

    action: Action
    before: str | None = None  # what the field had, several values separated by "; "
    message: str | None = None
    change: Change | None = None


def plan(
    path: str,
    values: list[str],
    field: Field = "genre",
    overwrite: bool = False,
    earlier: Change | None = None,
    is_label: bool = False,
) -> Result:
    """Return what `write` would do with the local file at `path`; nothing is written.

    The file is kept if the field has a value, unless `overwrite` is on or the `earlier` change wrote the value. A label
    of a person that the `earlier` change wrote is kept as well, unless `values` are a label too (`is_label`).
    A failure is returned, not raised, so that a job continues with the next file.
    """
    return _guarded(lambda: _planned(path, values, field, overwrite, earlier, is_label))


def write(path: str, change: Change) -> Result:
    """Write the values of a planned change. The result holds the change with its delta.

    It is a failure when another program changed the field after it was planned.
    """
    return _guarded(lambda: _written(path, change))


def undo(path: str, change: Change) -> Result:
    """Restore the file before the change, unless another program changed the field since.

    All bytes are restored where nothing else changed the file, else what the field had. The result of a file that is as
    it was holds a change without values of ours: if they appear again, they are another program's.
    """
    return _guarded(lambda: _restored(path, change))


def _guarded(action: Callable[[], Result]) -> Result:
    try:
        return action()
    except Exception as error:  # mutagen raises many kinds of exceptions for damaged files
        return Result(Action.FAILED, message=one_line(error))


def _planned(
    path: str, values: list[str], field: Field, overwrite: bool, earlier: Change | None, is_label: bool
) -> Result:
    file = TagFile(path)
    state = file.state(field)
    present = [text for text in texts(state) if text.strip()]  # some programs write an empty text
    if field == "genre" and not present:  # in tags that we do not write: APE of an MP3, RIFF
        present = list(tags.read(Location.of(path)).genres)
    before = "; ".join(present) or None
    is_ours = earlier is not None and texts(state) in earlier.ours
    change = earlier if earlier and is_ours else Change(field, [], state, file.is_tagged)
    is_replaced = overwrite or (is_ours and (is_label or texts(state) not in change.labels))
    if is_label and values not in change.labels:
        change = replace(change, labels=[*change.labels, values])
    if present and (present == values or not is_replaced):
        return Result(Action.KEPT, before, change=change if is_ours else None)
    if not is_label:
        change = replace(change, labels=[each for each in change.labels if each != values])
    change = replace(change, ours=[values, *(each for each in change.ours if each != values)])
    return Result(Action.WOULD_WRITE, before, change=change)


def _written(path: str, change: Change) -> Result:
    state = TagFile(path).state(change.field)
    if not (is_same(state, change.before) or texts(state) in change.ours[1:]):
        raise ValueError("another program changed the field while genres were written; run again")

    def edit(copy: str) -> Delta | None:
        file = TagFile(copy)
        file.set(change.field, change.ours[0])
        file.save()
        return _delta(change, state, path, copy)

    delta = _replace(path, edit)
    return Result(Action.WRITTEN, "; ".join(texts(state)) or None, change=replace(change, delta=delta))


def _delta(change: Change, state: State, path: str, copy: str) -> Delta | None:
    """Return the delta from the edited `copy` to the file at `path`, or to what it was before we first wrote."""
    if max(os.path.getsize(path), os.path.getsize(copy)) > byte_delta.LARGEST:
        return None
    before = _content(path)
    if not is_same(state, change.before):  # it holds an earlier answer of ours
        earlier = byte_delta.restore(change.delta, before) if change.delta else None
        if earlier is None:
            return None
        before = earlier
    return byte_delta.make(before, _content(copy))


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _restored(path: str, change: Change) -> Result:
    state = TagFile(path).state(change.field)
    before = "; ".join(texts(state)) or None
    undone = replace(change, ours=[], labels=[], delta=None)
    if is_same(state, change.before):
        return Result(Action.UNCHANGED, before, change=undone)
    if texts(state) not in change.ours:
        return Result(Action.LEFT, before, "another program changed the field since; it is left as it is", change)

    def edit(copy: str) -> bool:
        content = byte_delta.restore(change.delta, _content(copy)) if change.delta else None
        if content is None:
            file = TagFile(copy)
            file.restore(change.field, change.before)
            file.save(keep_empty=change.is_tagged)
            return False
        with open(copy, "wb") as stream:
            stream.write(content)
        return True

    is_exact = _replace(path, edit)
    return Result(Action.RESTORED, before, None if is_exact else _FIELD_ALONE, undone)


def _replace(path: str, edit: Callable[[str], T]) -> T:
    """Replace a file by a copy that was edited, and return what `edit` does."""
    path = os.path.realpath(path)  # the target of a link inside the collection, never the link itself
    if not os.access(path, os.W_OK):
        raise PermissionError(None, "the file is write-protected")
    # mutagen recognises some formats by the suffix; the leading dot hides the copy from other programs, and the name
    # says whose it is: a process that is killed leaves it
    descriptor, copy = tempfile.mkstemp(prefix=".genre-", suffix=os.path.splitext(path)[1], dir=os.path.dirname(path))
    os.close(descriptor)
    try:
        shutil.copy2(path, copy)
        result = edit(copy)
        with open(copy, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(copy, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(copy)
    return result
