"""Parts of the tracks: a sample that a search trains on, shares of several machines, and music without genres.

All follow from the table of tracks, and the genres that a teacher predicts from a file, so every process and every run
makes the same ones.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genre.arrays import Bools, Ints
from genre.corpora import UNLABELLED
from genre.errors import ArtifactError
from genre.features.columns import combined, replaced
from genre.features.splitting.splits import drawn_order
from genre.storage import Location
from genre.storage.faults import unreachable

_SAMPLED = ("train", "valid")  # splits


@dataclass(frozen=True)
class Sample:
    """A share of the training and the validation tracks: complete groups, about as large a share of each genre."""

    share: float  # 0 < share <= 1
    seed: int

    def of(self, tracks: pa.Table) -> pa.Table:
        """Return the sampled rows, and all rows of the other splits. `tracks` has track_id, genre, group and split.

        Each split keeps at least one group of each of its genres.
        """
        kept = np.ones(len(tracks), dtype=bool)
        for split in _SAMPLED:
            rows = np.flatnonzero(pc.equal(tracks["split"], split).to_numpy())
            kept[rows] = self._kept(tracks.take(pa.array(rows)))
        return tracks.filter(pa.array(kept))

    def _kept(self, tracks: pa.Table) -> Bools:
        """Return which rows of one split are in the sample, (tracks,)."""
        if not len(tracks):
            return np.zeros(0, dtype=bool)
        units = combined(pc.coalesce(tracks["group"], tracks["track_id"])).dictionary_encode()
        unit = units.indices.to_numpy().astype(np.int64)
        drawn = _draw(units.dictionary, self.seed)
        genre = combined(tracks["genre"]).dictionary_encode().indices.to_numpy().astype(np.int64)
        # the pairs of unit and genre: how many tracks each has, in the order of genres and of the draw
        pairs, sizes = np.unique(np.stack([genre, unit]), axis=1, return_counts=True)
        order = np.lexsort((drawn[pairs[1]], pairs[0]))
        (pair_genre, pair_unit), size = pairs[:, order], sizes[order]
        first = np.flatnonzero(np.diff(pair_genre, prepend=-1))  # the first pair of each genre
        before = np.cumsum(size) - size
        before -= np.repeat(before[first], np.diff(first, append=len(size)))  # tracks of the genre before each pair
        total = np.bincount(genre)[pair_genre]
        taken = before + size / 2 <= self.share * total
        taken[first] = True
        chosen = np.zeros(len(drawn), dtype=bool)
        # a unit with several genres counts for the genre that most of its tracks have, or that has no other
        main = np.lexsort((pair_genre, -size, pair_unit))
        is_main = np.zeros(len(size), dtype=bool)
        is_main[main[np.flatnonzero(np.diff(pair_unit[main], prepend=-1))]] = True
        chosen[pair_unit[taken & is_main]] = True
        for genre_code in np.flatnonzero(np.bincount(pair_genre, weights=chosen[pair_unit]) == 0):
            chosen[pair_unit[np.searchsorted(pair_genre, genre_code)]] = True
        kept: Bools = chosen[unit]
        return kept


@dataclass(frozen=True)
class Music:
    """The music that pretraining learns from, as split train and without genres: the training and unlabelled tracks.

    An unlabelled track whose group, audio or recording a validation or test track has is left out: that track judges
    models.
    """

    splits: tuple[str, ...] = ("train", UNLABELLED)

    def of(self, tracks: pa.Table) -> pa.Table:
        """Return `tracks` with these in split train, and no other track in it. Every genre is the empty string."""
        learned = _unrelated(tracks, self.splits)
        split = pc.if_else(
            learned, "train", pc.if_else(pc.equal(tracks["split"], "train"), "excluded", tracks["split"])
        )
        tracks = replaced(tracks, "split", split)
        return replaced(tracks, "genre", pa.repeat("", len(tracks)))


@dataclass(frozen=True)
class Taught:
    """Unlabelled tracks as training tracks, with the genres that a saved model predicts for them.

    As for `Music`, a track whose group, audio or recording a validation or test track has is left out.
    """

    predictions: str  # address of a table of track_id and genre
    digest: str  # of this table

    @classmethod
    def by(cls, predictions: Location) -> Taught:
        """Return the view of the predictions in this file."""
        return cls(str(predictions), hashlib.sha256(predictions.read_bytes()).hexdigest())

    def of(self, tracks: pa.Table) -> pa.Table:
        """Return `tracks` with these in split train.

        Raises `ArtifactError` when the predictions were replaced, and `StorageError` when they cannot be read.
        """
        file = Location.of(self.predictions)
        try:
            content = file.read_bytes()
        except OSError as error:
            raise unreachable(file, error) from None
        if hashlib.sha256(content).hexdigest() != self.digest:
            raise ArtifactError(f"{self.predictions} was replaced while this job ran; run the same command again")
        predicted = pq.read_table(pa.BufferReader(content))
        genre = predicted["genre"].take(pc.index_in(tracks["track_id"], combined(predicted["track_id"])))
        learned = pc.and_(_unrelated(tracks, (UNLABELLED,)), genre.is_valid())
        tracks = replaced(tracks, "split", pc.if_else(learned, "train", tracks["split"]))
        return replaced(tracks, "genre", pc.if_else(learned, genre, tracks["genre"]))


@dataclass(frozen=True)
class Share:
    """The tracks that one machine keeps: those dealt to its workers, `ranks` of the `world` workers of a training."""

    ranks: tuple[int, ...]
    world: int

    def holds(self, tracks: pa.Table) -> Bools:
        """Return which tracks of one split the machine keeps, (tracks,). `tracks` has track_id, genre and clips.

        Tracks are dealt to the workers in turn, sorted by genre and number of clips, so that workers differ by at most
        one track of each genre, and have about the same number of clips.
        """
        drawn = _draw(combined(tracks["track_id"]), 0)
        genre = combined(tracks["genre"]).dictionary_encode()
        rank = pc.sort_indices(pc.sort_indices(genre.dictionary)).to_numpy()[genre.indices.to_numpy()]
        owner = np.empty(len(tracks), dtype=np.int64)
        owner[np.lexsort((drawn, tracks["clips"].to_numpy(), rank))] = np.arange(len(tracks)) % self.world
        return np.isin(owner, self.ranks)


def _unrelated(tracks: pa.Table, splits: tuple[str, ...]) -> pa.ChunkedArray:
    """Return which tracks are in `splits`, and share no group, audio or recording with a validation or test track."""
    judging = tracks.filter(pc.is_in(tracks["split"], pa.array(["valid", "test"])))
    unrelated = pc.is_in(tracks["split"], pa.array(splits))
    for name in ("group", "sound", "recording"):
        known = combined(judging[name]).drop_null()
        unrelated = pc.and_(unrelated, pc.invert(pc.is_in(tracks[name], known)))
    return unrelated


def _draw(names: pa.StringArray, seed: int) -> Ints:
    """Return the place of each name in an order that is drawn from the names and the seed, (names,)."""
    places = np.empty(len(names), dtype=np.int64)
    places[drawn_order(names, seed)] = np.arange(len(names))
    return places
