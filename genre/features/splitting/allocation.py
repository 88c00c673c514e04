"""Divide units of tracks among splits, or folds, so that every genre gets the shares that were asked for.

A *unit* (an artist, an album, a track without either) is in one split. The cost of a division is, summed over genres
and splits, the squared deviation from the wanted number of tracks divided by that number (chi-square, as a share of the
genre's tracks), plus a penalty for a split that deviates by more than a fifth (the training split may), and a larger
one for an empty split. Units are placed one by one, the largest first, where they cost least; single tracks fill what
remains. Then each genre that still has a penalty gets the best of all divisions of its smallest units.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from genre.arrays import Bools, Float64, Ints

TOLERANCE = 0.2  # of the wanted number of tracks

_DISPERSED = 100.0  # penalty for a split out of tolerance: more than any chi-square term
_EMPTY = (1e8, 1e6, 1e7)  # of train, validation, test: too few units leave validation empty first, then test
_EMPTY_FOLD = 1e6
_DIVISIONS = 3**9  # compared at most: of nine units of a genre among three splits, of six among five folds
_TIE = 1e-9  # weight of a fold's share of all tracks: less than any other difference in cost
_PASSES = 5


@dataclass(frozen=True)
class Aims:
    """What is wanted of each split."""

    shares: Float64  # (splits,) of the tracks of each genre
    empty: Float64  # (splits,) penalty where a genre has no track
    checked: slice  # splits that are penalised for a deviation of more than a fifth
    fills_all: bool  # whether the split with the fewest tracks of all genres is preferred where several cost the same

    @classmethod
    def of_splits(cls, shares: tuple[float, float, float]) -> Aims:
        """Return the aims for train, validation and test."""
        return cls(np.array(shares), np.array(_EMPTY), slice(1, None), fills_all=False)

    @classmethod
    def of_folds(cls, count: int) -> Aims:
        """Return the aims for `count` folds of equal size."""
        return cls(np.full(count, 1 / count), np.full(count, _EMPTY_FOLD), slice(None), fills_all=True)


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


def allocate(units: Units, aims: Aims, order: Ints) -> Ints:
    """Return the split of each unit; those that have one keep it.

    Units of equal size are placed in `order`, (units,).
    """
    return _Allocation(units, aims, order).run()


class _Allocation:
    def __init__(self, units: Units, aims: Aims, order: Ints) -> None:
        self._units, self._aims, self._order = units, aims, order
        self._splits = len(aims.shares)
        self._split = units.split.copy()
        self._free = units.split < 0
        self._rows = np.searchsorted(units.unit, np.arange(len(units.split) + 1))  # of each unit: [i], [i + 1]
        totals = np.bincount(units.genre, units.tracks)
        self._wanted = np.maximum(totals[:, None] * aims.shares, 1e-9)  # (genres, splits)
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
        split = int((cost.sum(axis=0) + self._ties()).argmin())
        self._counts[genres, split] += tracks[:, 0]
        self._split[unit] = split

    def _fill_with_singles(self, singles: Ints) -> None:
        """Divide units of one track among the splits that lack tracks of its genre, in proportion to what they lack."""
        genres = self._units.genre[self._rows[singles]]
        by_genre = singles[np.argsort(genres, kind="stable")]
        present, first = np.unique(np.sort(genres), return_index=True)
        for genre, members in zip(present, np.split(by_genre, first[1:]), strict=False):
            lacking = np.maximum(self._wanted[genre] - self._counts[genre], 0)
            exact = lacking / lacking.sum() * len(members)
            number = _rounded(exact, len(members), np.argsort(self._ties(), kind="stable"))
            sequence = [1, 0, *range(2, self._splits)]  # arbitrary, but another order would change all splits
            self._split[members] = np.repeat(sequence, number[sequence])
            self._counts[genre] += number

    def _ties(self) -> Float64:
        """Return a cost of each split, (splits,), that decides between equal ones."""
        filled = self._counts.sum(axis=0) / self._wanted.sum()
        return np.asarray(_TIE * filled if self._aims.fills_all else np.zeros(self._splits))

    def _rearrange_penalised(self, smallest_first: Ints) -> bool:
        """Divide the smallest units of each penalised genre in the best way. Return whether any division improved."""
        penalised = np.flatnonzero(self._cost(self._counts, self._wanted) >= _DISPERSED)
        if not len(penalised):
            return False
        rank = np.full(len(self._split), len(self._split))
        rank[smallest_first] = np.arange(len(smallest_first))
        rows = np.argsort(rank[self._units.unit], kind="stable")
        rows = rows[self._free[self._units.unit[rows]]]
        improved = False
        most = int(np.log(_DIVISIONS) / np.log(self._splits) + 1e-9)
        for genre in penalised:
            of_genre = rows[self._units.genre[rows] == genre]
            improved |= self._rearrange(self._units.unit[of_genre[:most]])
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
        divisions = np.array(list(itertools.product(range(self._splits), repeat=len(members))), dtype=np.int64)
        counts = np.stack([others[:, split] + (divisions == split) @ tracks for split in range(self._splits)], axis=-1)
        cost = self._cost(counts, self._wanted[genres]).sum(axis=-1)
        best = int(cost.argmin())
        if cost[best] > self._cost(self._counts[genres], self._wanted[genres]).sum() - 1e-9:
            return False
        self._split[members] = divisions[best]
        self._counts[genres] = counts[best]
        return True

    def _cost(self, counts: Float64, wanted: Float64) -> Float64:
        """Return the cost of each genre, (..., genres), from the tracks in each split, (..., genres, splits)."""
        chi_square = ((counts - wanted) ** 2 / wanted).sum(axis=-1) / wanted.sum(axis=-1)
        checked = self._aims.checked
        dispersed = is_dispersed(counts[..., checked], wanted[..., checked]).sum(axis=-1)
        return np.asarray(chi_square + _DISPERSED * dispersed + (counts < 0.5) @ self._aims.empty)


def is_dispersed(counts: Float64, wanted: Float64) -> Bools:
    """Return which splits deviate by more than a fifth and by a track or more; arguments are numbers of tracks."""
    return np.asarray(np.abs(counts - wanted) > np.maximum(TOLERANCE * wanted, 1) - 1e-9)


def _rounded(exact: Float64, total: int, first: Ints) -> Ints:
    """Return integers near `exact` whose sum is `total` (largest remainder); ties go up in the order of `first`."""
    number = np.floor(exact + 1e-9).astype(np.int64)
    largest = np.argsort((number - exact)[first], kind="stable")
    number[first[largest[: total - number.sum()]]] += 1
    return number
