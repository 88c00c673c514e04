"""Folds of a cross-validation: each track is in one, so that it is judged once by networks that never saw it.

Folds consist of the same units as splits: all tracks of a group, and all copies of a recording, are in one fold. Each
genre is divided as evenly as its units allow. Folds follow from the tracks and a seed alone, so that every process and
every run makes the same ones. They are numbered from 1; 0 marks a track that is in no fold: excluded, unlabelled or, in
a search, test.
"""

from __future__ import annotations

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
from genre.wording import plural

NOT_TEST = ("train", "valid")  # the splits that a search divides


@dataclass(frozen=True)
class Fold:
    """Fold `number` of `count`, as a view of a features folder: its tracks are held out, those of the others train.

    Number 0 holds out none: all tracks of `splits` train.
    """

    number: int
    count: int
    seed: int
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

    def __str__(self) -> str:
        return f"fold {self.number} of {self.count}"


def of_search(count: int, seed: int) -> list[Fold]:
    """Return the folds of a search over the tracks that are not test."""
    return [Fold(number, count, seed, NOT_TEST) for number in range(1, count + 1)]


def assign(tracks: pa.Table, count: int, seed: int, parts: Sequence[str] = SPLITS) -> Ints:
    """Return the fold of each track, (tracks,), 1 to `count`, or 0 for a track that is in none of the splits `parts`.

    `tracks` has the columns track_id, genre, group, split, sound and recording, as in a features folder.
    """
    active = np.flatnonzero(pc.is_in(tracks["split"], pa.array(parts)).to_numpy())
    table = view(tracks.take(pa.array(active)))
    units, names = splits.units_of(table)
    counted = allocation.Units.of(units, splits.sorted_codes(table["genre"]), np.full(len(names), -1))
    drawn = allocation.allocate(counted, allocation.Aims.of_folds(count), splits.drawn_order(names, seed))
    folds = np.zeros(len(tracks), dtype=np.int64)
    folds[active] = drawn[units] + 1
    return folds


def check(tracks: pa.Table, folds: Ints, count: int, classes: Sequence[str], setting: str = "evaluate.folds") -> None:
    """Check that `count` folds separate no group or audio, and that every genre can be learned for each of them.

    `folds` is (tracks,), as `assign` returns it, and `setting` the key that asks for them. Raises `ArtifactError` for a
    track, a group or audio in two folds, and `ConfigError` for a single or empty fold, or a genre that is in one fold
    only.
    """
    if count < 2:
        raise ConfigError(f"{setting}={count} leaves no tracks to learn from; use 2 or more, or 0 for a split")
    used = tracks.filter(pa.array(folds > 0))
    folds = folds[folds > 0]
    named = view(replaced(used, "split", pa.array([f"fold {fold}" for fold in folds.tolist()], pa.string())))
    if leaks := splits.leaks(named):
        raise ArtifactError(f"leakage: {leaks}; networks would be judged on what they learned, so none is trained")
    if not np.bincount(folds, minlength=count + 1)[1:].all():
        raise ConfigError(
            f"{setting}={count}, but there are only {plural(len(splits.units_of(named)[1]), 'group')} of tracks; "
            "use fewer folds, or add tracks of other groups"
        )
    for genre in classes:
        of_genre = np.unique(folds[pc.equal(used["genre"], genre).to_numpy()])
        if len(of_genre) < 2:
            state = "one group" if len(of_genre) else "no track"
            raise ConfigError(
                f"{setting}: genre {genre!r} has {state}, so that it cannot be learned without what is judged; "
                "give it more groups, or leave it out of the corpus"
            )


def table(tracks: pa.Table, folds: Ints) -> pa.Table:
    """Return the tracks that are in a fold, with the column `fold`: track_id, path where known, genre, group, fold."""
    names = [name for name in ("track_id", "path", "genre", "group") if name in tracks.column_names]
    return tracks.select(names).append_column("fold", pa.array(folds, pa.int32())).filter(pa.array(folds > 0))
