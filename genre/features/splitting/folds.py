"""Folds of a cross-validation: each track is in one, so that it is judged once by networks that never saw it.

Folds consist of the same units as splits: all tracks of a group, and all copies of a recording, are in one fold. Each
genre is divided as evenly as its units allow. Folds follow from the tracks and a seed alone, so that every process and
every run makes the same ones. They are numbered from 1; 0 marks a track that is in no fold: excluded, unlabelled or, in
a search, test.

Where the tracks have published folds, the column `fold`, these are taken and none is drawn: in the order of their
numbers or names, and with None in place of the seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre.arrays import Ints
from genre.corpora import SPLITS
from genre.errors import ArtifactError, ConfigError
from genre.features.columns import replaced
from genre.features.splitting import allocation, splits
from genre.features.splitting.splits import view
from genre.wording import and_more, listed, plural

NOT_TEST = ("train", "valid")  # the splits that a search divides
_TO_DRAW = "prepare without that column (corpus.split=random ignores it) to draw folds"
_SHOWN = 3  # folds without a genre


@dataclass(frozen=True)
class Fold:
    """Fold `number` of `count`, as a view of a features folder: its tracks are held out, those of the others train.

    Number 0 holds out none: all tracks of `splits` train.
    """

    number: int
    count: int
    seed: int | None  # None: a published fold
    splits: tuple[str, ...] = SPLITS  # whose tracks are divided

    @classmethod
    def none_of(cls, splits: tuple[str, ...]) -> Fold:
        """Return the view that holds out no track: all of `splits` train."""
        return cls(0, 1, 0, splits)

    def of(self, tracks: pa.Table) -> pa.Table:
        """Return `tracks` with the split valid for those of this fold, and train for those of the others.

        Tracks that are in none of `splits` are unchanged.
        """
        fold = assign(tracks, self.count, self.seed, self.splits) if self.number else np.ones(len(tracks), np.int64)
        new = pa.array(np.where(fold == self.number, "valid", "train"))
        return replaced(
            tracks, "split", pc.if_else(pc.is_in(tracks["split"], pa.array(self.splits)), new, tracks["split"])
        )

    def is_in(self, tracks: pa.Table) -> bool:
        """Return whether `tracks` have this fold: a published one is not in every corpus."""
        if self.seed is not None or not self.number:
            return True
        used = tracks.filter(pc.is_in(tracks["split"], pa.array(self.splits)))
        return "fold" in tracks.column_names and len(_published(used["fold"])) == self.count

    def __str__(self) -> str:
        return f"fold {self.number} of {self.count}"


def of_tracks(
    tracks: pa.Table, count: int, seed: int, parts: tuple[str, ...] = SPLITS, setting: str = "evaluate.folds"
) -> list[Fold]:
    """Return `count` folds of the tracks of the splits `parts`: the published ones if there are any, else drawn.

    `setting` is the key that asks for them. Raises `ConfigError` for another number of published folds, and for a track
    without one.
    """
    used = tracks.filter(pc.is_in(tracks["split"], pa.array(parts)))
    if "fold" not in tracks.column_names or used["fold"].null_count == len(used):
        return [Fold(number, count, seed, parts) for number in range(1, count + 1)]
    missing = used.filter(pc.is_null(used["fold"]))["track_id"]
    if len(missing):
        raise ConfigError(
            f"{setting}: {len(missing)} of {plural(len(used), 'track')} have no published fold, such as "
            f"{missing[0].as_py()!r}; fill in the column 'fold', give them the split 'excluded', or {_TO_DRAW}"
        )
    names = _published(used["fold"])
    if len(names) != count:
        found = plural(len(names), "published fold")
        remedy = f"use {setting}={len(names)}, or {_TO_DRAW}" if len(names) > 1 else _TO_DRAW
        raise ConfigError(f"{setting}={count}, but the tracks have {found} ({listed(names, 10)}); {remedy}")
    return [Fold(number, count, None, parts) for number in range(1, count + 1)]


def of_search(tracks: pa.Table, count: int, seed: int) -> list[Fold]:
    """Return the folds of a search over the tracks that are not test, like `of_tracks`."""
    return of_tracks(tracks, count, seed, NOT_TEST, "tune.folds")


def assign(tracks: pa.Table, count: int, seed: int | None, parts: Sequence[str] = SPLITS) -> Ints:
    """Return the fold of each track, (tracks,), 1 to `count`, or 0 for a track that is in none of the splits `parts`.

    `tracks` has the columns track_id, genre, group, split, sound and recording, as in a features folder. Without a seed
    the folds are those in its column `fold`. Raises `ArtifactError` where these have gone.
    """
    active = np.flatnonzero(pc.is_in(tracks["split"], pa.array(parts)).to_numpy())
    if seed is None:
        return _assign_published(tracks, count, active)
    table = view(tracks.take(pa.array(active)))
    units, names = splits.units_of(table)
    counted = allocation.Units.of(units, splits.sorted_codes(table["genre"]), np.full(len(names), -1))
    drawn = allocation.allocate(counted, allocation.Aims.of_folds(count), splits.drawn_order(names, seed))
    folds = np.zeros(len(tracks), dtype=np.int64)
    folds[active] = drawn[units] + 1
    return folds


def _published(fold: pa.ChunkedArray) -> list[str]:
    """Return the names in a column of published folds: numbers in their order, then other names in theirs."""

    def order(name: str) -> tuple[float, str]:
        try:
            number = float(name)
        except ValueError:
            number = math.inf
        return (number if math.isfinite(number) else math.inf), name

    return sorted(pc.unique(fold).drop_null().to_pylist(), key=order)


def _assign_published(tracks: pa.Table, count: int, active: Ints) -> Ints:
    """Return what `assign` does, for the rows `active`."""
    used = tracks.take(pa.array(active))
    names = _published(used["fold"]) if "fold" in tracks.column_names else []
    if len(names) != count:
        raise ArtifactError(
            f"the tracks no longer have the {count} published folds of a training; prepare them with the column 'fold' "
            "as it was, or train again"
        )
    folds = np.zeros(len(tracks), dtype=np.int64)
    folds[active] = pc.fill_null(pc.index_in(used["fold"], pa.array(names, pa.string())), -1).to_numpy() + 1
    return folds


def check(
    tracks: pa.Table,
    folds: Ints,
    count: int,
    classes: Sequence[str],
    setting: str = "evaluate.folds",
    *,
    published: bool = False,
) -> None:
    """Check that `count` folds separate no group or audio, and that every genre can be learned for each of them.

    `folds` is (tracks,), as `assign` returns it, `setting` the key that asks for them, and `published` says who made
    them. Raises `ArtifactError` for a track, a group or audio in two folds, and `ConfigError` for a single or empty
    fold, or a genre that is in one fold only.
    """
    if count < 2:
        raise ConfigError(f"{setting}={count} leaves no tracks to learn from; use 2 or more, or 0 for a split")
    used = tracks.filter(pa.array(folds > 0))
    folds = folds[folds > 0]
    names = used["fold"].to_pylist() if published else folds.tolist()
    named = view(replaced(used, "split", pa.array([f"fold {name}" for name in names], pa.string())))
    if leaks := splits.leaks(named):
        remedy = f"; correct the column 'fold', give all but one of them the split 'excluded', or {_TO_DRAW}"
        raise ArtifactError(
            f"leakage: {leaks}; networks would be judged on what they learned, so none is trained{remedy * published}"
        )
    if not np.bincount(folds, minlength=count + 1)[1:].all():
        raise ConfigError(
            f"{setting}={count}, but there are only {plural(len(splits.units_of(named)[1]), 'group')} of tracks; "
            "use fewer folds, or add tracks of other groups"
        )
    _check_genres(named, classes, setting, published)


def _check_genres(named: pa.Table, classes: Sequence[str], setting: str, published: bool) -> None:
    """Raise `ConfigError` for a genre that is not in two folds; the column `split` of `named` has the folds."""
    for genre in classes:
        of_genre = pc.unique(named["split"].filter(pc.equal(named["genre"], genre))).to_pylist()
        if len(of_genre) < 2:
            one = f"all its tracks in published {of_genre[0]}" if published and len(of_genre) else "one group"
            more = f"correct the column 'fold', {_TO_DRAW}" if published else "give it more groups"
            raise ConfigError(
                f"{setting}: genre {genre!r} has {one if len(of_genre) else 'no track'}, so that it cannot be learned "
                f"without what is judged; {more}, or leave it out of the corpus"
            )


def absent_genres(tracks: pa.Table, classes: Sequence[str], column: str = "fold") -> str:
    """Return text on the published folds that lack a genre: "fold 2 has no track of jazz"; empty if none does.

    `column` has their names.
    """
    lacking = []
    for name in _published(tracks[column]):
        known = set(pc.unique(tracks.filter(pc.equal(tracks[column], name))["genre"]).to_pylist())
        if missing := [genre for genre in classes if genre not in known]:
            lacking.append(f"fold {name} has no track of {listed(missing)}")
    return "; ".join(lacking[:_SHOWN]) + and_more(len(lacking), _SHOWN)


def table(tracks: pa.Table, folds: Ints, *, published: bool = False) -> pa.Table:
    """Return the tracks that are in a fold: track_id, path where known, genre, group, and the number of their `fold`.

    Where the folds are published, `published_fold` has their names.
    """
    names = [name for name in ("track_id", "path", "genre", "group") if name in tracks.column_names]
    numbered = tracks.select(names).append_column("fold", pa.array(folds, pa.int32()))
    if published:
        numbered = numbered.append_column("published_fold", tracks["fold"])
    return numbered.filter(pa.array(folds > 0))
