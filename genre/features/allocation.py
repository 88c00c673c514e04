"""Divide units of tracks among train, validation and test so that every genre gets the shares that were asked for.

A *unit* (an artist, an album, a track without either) is in one split. The cost of a division is, summed over genres
and splits, the squared deviation from the wanted number of tracks divided by that number (chi-square, as a share of the
genre's tracks), plus a penalty for a validation or test split that deviates by more than a fifth, and a larger one for
an empty split. Units are placed one by one, the largest first, where they cost least; single tracks fill what remains.
Then each genre that still has a penalty gets the best of all divisions of its smallest units.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

TOLERANCE = 0.2  # of the wanted number of tracks

_DISPERSED = 100.0  # penalty for a split out of tolerance: more than any chi-square term
_EMPTY = np.array([1e8, 1e6, 1e7])  # of train, validation, test: which a genre of too few units does without last
_REARRANGED = 9  # units of a genre: 3**9 divisions are compared
_PASSES = 5


@dataclass(frozen=True)
class Units:
    """Tracks counted by unit and genre: row `i` says that `unit[i]` has `tracks[i]` tracks of `genre[i]`.

    Rows are sorted by unit, then genre. `split` is the index of each unit's split, or -1 for a unit to place.
    """

    unit: Ints
    genre: Ints
    tracks: Ints
    split: Ints

    @classmethod
    def of(cls, units: Ints, genres: Ints, split: Ints) -> Units:
        """Count tracks, given the unit and the genre of each."""
        span = int(genres.max(initial=0)) + 1
        pairs, tracks = np.unique(units * span + genres, return_counts=True)
        unit, genre = np.divmod(pairs, span)
        return cls(unit, genre, tracks.astype(np.int64), split)


def allocate(units: Units, shares: Floats, order: Ints) -> Ints:
    """Return the split of each unit; those that have one keep it.

    `shares` are the wanted shares of tracks of the splits, (3,). Units of equal size are placed in `order`, (units,).
    """
    return _Allocation(units, shares, order).run()


class _Allocation:
    def __init__(self, units: Units, shares: Floats, order: Ints) -> None:
        self._units, self._order = units, order
        self._split = units.split.copy()
        self._free = units.split < 0
        self._rows = np.searchsorted(units.unit, np.arange(len(units.split) + 1))  # of each unit: [i], [i + 1]
        totals = np.bincount(units.genre, units.tracks)
        self._wanted = np.maximum(totals[:, None] * shares, 1e-9)  # (genres, splits)
        self._counts = np.zeros_like(self._wanted)
        placed = self._split[units.unit]
        known = placed >= 0
        np.add.at(self._counts, (units.genre[known], placed[known]), units.tracks[known])

    def run(self) -> Ints:
        size = np.bincount(self._units.unit, self._units.tracks, minlength=len(self._split)).astype(np.int64)
        by_size = self._order[np.argsort(-size[self._order], kind="stable")]
        free = by_size[self._free[by_size]]
        for unit in free[size[free] > 1]:
            self._place(unit)
        self._fill_with_singles(free[size[free] == 1])
        for _ in range(_PASSES):
            if not self._rearrange_penalised(free[::-1]):
                break
        return self._split

    def _place(self, unit: int) -> None:
        """Put a unit where its tracks cost least."""
        rows = slice(self._rows[unit], self._rows[unit + 1])
        genres, tracks = self._units.genre[rows], self._units.tracks[rows, None]
        wanted, counts = self._wanted[genres], self._counts[genres]
        cost = tracks * (2 * (counts - wanted) + tracks) / wanted / wanted.sum(axis=1, keepdims=True)
        split = int(cost.sum(axis=0).argmin())
        self._counts[genres, split] += tracks[:, 0]
        self._split[unit] = split

    def _fill_with_singles(self, singles: Ints) -> None:
        """Divide units of one track among the splits that lack tracks of its genre, in proportion to what they lack."""
        genres = self._units.genre[self._rows[singles]]
        by_genre = singles[np.argsort(genres, kind="stable")]
        present, first = np.unique(np.sort(genres), return_index=True)
        for genre, members in zip(present, np.split(by_genre, first[1:]), strict=False):
            lacking = np.maximum(self._wanted[genre] - self._counts[genre], 0)
            number = _rounded(lacking / lacking.sum() * len(members), len(members))
            self._split[members] = np.repeat([1, 0, 2], number[[1, 0, 2]])
            self._counts[genre] += number

    def _rearrange_penalised(self, smallest_first: Ints) -> bool:
        """Divide the smallest units of each penalised genre in the best way. Return whether any division improved."""
        penalised = np.flatnonzero(_cost(self._counts, self._wanted) >= _DISPERSED)
        if not len(penalised):
            return False
        rank = np.full(len(self._split), len(self._split))
        rank[smallest_first] = np.arange(len(smallest_first))
        rows = np.argsort(rank[self._units.unit], kind="stable")
        rows = rows[self._free[self._units.unit[rows]]]
        improved = False
        for genre in penalised:
            of_genre = rows[self._units.genre[rows] == genre]
            improved |= self._rearrange(self._units.unit[of_genre[:_REARRANGED]])
        return improved

    def _rearrange(self, members: Ints) -> bool:
        """Give `members` the best of all their divisions if it is better than the present one; return whether it is."""
        rows = [slice(self._rows[unit], self._rows[unit + 1]) for unit in members]
        genres = np.unique(np.concatenate([np.zeros(0, np.int64), *(self._units.genre[each] for each in rows)]))
        tracks = np.zeros((len(members), len(genres)))
        for member, each in enumerate(rows):
            tracks[member, np.searchsorted(genres, self._units.genre[each])] = self._units.tracks[each]
        others = self._counts[genres]  # a copy: the tracks of all units but the members
        for member, split in enumerate(self._split[members]):
            others[:, split] -= tracks[member]
        divisions = np.array(list(itertools.product(range(3), repeat=len(members))), dtype=np.int64)
        counts = np.stack([others[:, split] + (divisions == split) @ tracks for split in range(3)], axis=-1)
        cost = _cost(counts, self._wanted[genres]).sum(axis=-1)
        best = int(cost.argmin())
        if cost[best] > _cost(self._counts[genres], self._wanted[genres]).sum() - 1e-9:
            return False
        self._split[members] = divisions[best]
        self._counts[genres] = counts[best]
        return True


def is_dispersed(counts: Floats, wanted: Floats) -> npt.NDArray[np.bool_]:
    """Return which validation and test splits, (..., 2), deviate by more than a fifth and by a track or more.

    Both arguments are numbers of tracks, (..., splits).
    """
    deviation = np.abs(counts - wanted)[..., 1:]
    return np.asarray(deviation > np.maximum(TOLERANCE * wanted[..., 1:], 1) - 1e-9)


def _cost(counts: Floats, wanted: Floats) -> Floats:
    """Return the cost of each genre, (..., genres), from the tracks in each split, (..., genres, splits)."""
    chi_square = ((counts - wanted) ** 2 / wanted).sum(axis=-1) / wanted.sum(axis=-1)
    penalties = _DISPERSED * is_dispersed(counts, wanted).sum(axis=-1) + (counts < 0.5) @ _EMPTY
    return np.asarray(chi_square + penalties)


def _rounded(exact: Floats, total: int) -> Ints:
    """Return integers near `exact` whose sum is `total` (largest remainder)."""
    number = np.floor(exact + 1e-9).astype(np.int64)
    number[np.argsort(number - exact, kind="stable")[: total - number.sum()]] += 1
    return number
