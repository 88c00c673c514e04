"""The bytes of a file before an edit, as pieces of the file after it: small, since most bytes only moved.

mutagen writes a block of tags in an order and with a padding of its own, so a cover of a megabyte moves by some bytes
when a genre is added. The pieces say where it is now, and hold only what is nowhere in the edited file.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

LARGEST = 1 << 29  # bytes of a file whose delta is made; two of them are in memory
_LONGEST = 1 << 18  # characters of the pieces; more is not worth its place in a table
_SHORTEST = 32  # bytes that are worth a reference
_STEP = 16  # bytes between two searches
_TEXT = 1 << 16  # bytes of a piece that is nowhere in the edited file
_WINDOW = 1 << 24  # bytes around a place in which they may have moved, more than the largest covers
_SEARCHED = 1 << 28  # bytes that are searched for one file, some tenths of a second

Piece = list[int] | str  # [start, bytes] of the edited file; or bytes, compressed and in base64


@dataclass(frozen=True)
class Delta:
    """How to get a file back, from what it was edited to."""

    before: str  # SHA-256 of the file
    after: str  # SHA-256 of the edited file
    pieces: list[Piece]


def make(before: bytes, after: bytes) -> Delta | None:
    """Return how to get `before` from `after`; None when too many of its bytes are new, as in another file."""
    pieces: list[Piece] = []
    size = 0
    for piece in _pieces(before, after):
        pieces.append(piece)
        size += len(str(piece)) + 1
        if size > _LONGEST:
            return None
    return Delta(_digest(before), _digest(after), pieces)


def restore(delta: Delta, after: bytes) -> bytes | None:
    """Return the bytes before the edit; None when `after` is not the file that the edit left."""
    if _digest(after) != delta.after:
        return None
    view = memoryview(after)  # whose slices are no copies
    before = b"".join(
        zlib.decompress(base64.b64decode(piece)) if isinstance(piece, str) else view[piece[0] : sum(piece)]
        for piece in delta.pieces
    )
    return before if _digest(before) == delta.before else None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _pieces(before: bytes, after: bytes) -> Iterator[Piece]:
    """Yield the pieces of `before`, from its start: greedily the place of the next bytes in `after`, if any."""
    old, new = np.frombuffer(before, np.uint8), np.frombuffer(after, np.uint8)
    shifts = [0, len(new) - len(old)]  # from a place in `before` to that in `after`, the latest first
    place = done = searched = 0
    while place < len(old):
        start, length = max(
            ((place + shift, _equal(old, place, new, place + shift)) for shift in shifts), key=itemgetter(1)
        )
        if length < _SHORTEST and searched < _SEARCHED:
            first = max(0, place + shifts[0] - _WINDOW)
            start = after.find(before[place : place + _SHORTEST], first, place + shifts[0] + _WINDOW)
            searched += (min(len(new), first + 2 * _WINDOW) if start < 0 else start) - first
            length = _equal(old, place, new, start) if start >= 0 else 0
        if length < _SHORTEST:
            place += _STEP
            if place - done >= _TEXT:
                yield _text(before[done:place])
                done = place
            continue
        back = _equal(old[done:place][::-1], 0, new[:start][::-1], 0)
        if place - back > done:
            yield _text(before[done : place - back])
        yield [start - back, length + back]
        shifts = [start - place, *(shift for shift in shifts if shift != start - place)][:3]
        place = done = place + length
    if done < len(old):
        yield _text(before[done:])


def _equal(a: np.ndarray, i: int, b: np.ndarray, j: int) -> int:
    """Return the number of bytes that are equal from the places i and j."""
    most = min(len(a) - i, len(b) - j) if j >= 0 else 0
    count, size = 0, 64
    while count < most:
        size = min(2 * size, 1 << 20, most - count)
        differ = a[i + count : i + count + size] != b[j + count : j + count + size]
        if differ.any():
            return count + int(differ.argmax())
        count += size
    return max(count, 0)


def _text(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode()
