"""A playlist: tracks for some minutes, without near-duplicates, and no two of an artist in succession."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from genre.arrays import Float32


@dataclass(frozen=True, eq=False)
class Song:
    """A track of a playlist."""

    path: str
    artist: str | None  # compared as it is; None is unlike every artist
    name: str  # for people
    seconds: float
    vector: Float32  # (size,) of norm 1


def choose(candidates: Iterable[Song], seconds: float, bound: float) -> list[Song]:
    """Return the first of `candidates` that last `seconds` together, or all when they are shorter.

    A song whose cosine to a chosen one is above `bound` is left out. No two songs of an artist follow each other if an
    order can avoid it: for that, a song may wait for one of another artist that comes later in `candidates`.
    """
    chosen: list[Song] = []
    waiting: list[Song] = []
    rest = iter(candidates)
    total = 0.0
    while total < seconds:
        song = _next(waiting, rest, chosen[-1].artist if chosen else None)
        if song is None:
            break
        if not _is_duplicate(song, chosen, bound):
            chosen.append(song)
            total += song.seconds
    return separate(chosen)


def separate(songs: Sequence[Song]) -> list[Song]:
    """Return songs in their order, changed as little as needed so that no two of an artist follow each other.

    Where one artist has more songs than all others together plus one, as few of them as possible follow each other.
    """
    left = list(songs)
    counts = Counter(_artist(song) for song in left)
    ordered: list[Song] = []
    while left:
        last = _artist(ordered[-1]) if ordered else None
        others = [song for song in left if _artist(song) != last] or left
        # an artist with more than half of the remaining songs has to be next, or two of them follow each other later
        urgent = [song for song in others if 2 * counts[_artist(song)] > len(left)]
        song = (urgent or others)[0]
        left.remove(song)
        counts[_artist(song)] -= 1
        ordered.append(song)
    return ordered


def _next(waiting: list[Song], rest: Iterable[Song], last: str | None) -> Song | None:
    """Take the first song that is not of the artist `last`, else the first one that waits; None when all are taken."""
    for place, song in enumerate(waiting):
        if last is None or song.artist != last:
            return waiting.pop(place)
    for song in rest:
        if last is None or song.artist != last:
            return song
        waiting.append(song)
    return waiting.pop(0) if waiting else None


def _is_duplicate(song: Song, chosen: Sequence[Song], bound: float) -> bool:
    return any(float(np.dot(song.vector, other.vector)) > bound for other in chosen)


def _artist(song: Song) -> object:
    """Return a key that a song shares with the songs of the same artist only."""
    return song.artist or song.path
