"""Tracks with the same audio: found by their spectrograms (`sound`), reported, and kept in one split.

Two files are duplicates when they decode to the same spectrograms bit for bit: copies, and lossless conversions of
each other. An MP3 of a CD track is not found; to keep both in one split, give them the same group.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre.arrays import Ints
from genre.corpora import EXCLUDED, SPLITS
from genre.features.columns import combined, replaced
from genre.features.manifest import DuplicateCounts
from genre.wording import listed

_COLUMNS = ("sound", "track_id", "path", "genre", "group", "split")
_SHOWN = 3


def find(tracks: pa.Table) -> pa.Table:
    """Return the tracks that share their audio with another, sorted so that equal audio is adjacent."""
    sound, size = _sounds(tracks)
    copies = tracks.filter(pa.array(size[sound] > 1)).select(_COLUMNS)
    return copies.sort_by([("sound", "ascending"), ("track_id", "ascending")])


def exclude_copies(tracks: pa.Table) -> pa.Table:
    """Return the tracks with split `excluded` for copies of audio that is in another split as well.

    Only a published split separates copies. Those in the test split stay, so that scores remain comparable with
    published ones; where there are none, those in the validation split stay.
    """
    sound, size = _sounds(tracks)
    # excluded: -1, train: 0, valid: 1, test: 2
    rank = pc.fill_null(pc.index_in(tracks["split"], pa.array(SPLITS)), -1).to_numpy()
    highest = np.full(len(size), -1, dtype=rank.dtype)
    np.maximum.at(highest, sound, rank)
    is_lower = (rank >= 0) & (rank < highest[sound])
    return replaced(tracks, "split", pc.if_else(pa.array(is_lower), EXCLUDED, tracks["split"]))


def count(copies: pa.Table) -> DuplicateCounts:
    """Return the counts of the copies that `find` returned."""
    genres = copies.group_by("sound").aggregate([("genre", "count_distinct")])
    return DuplicateCounts(
        sets=len(genres),
        copies=len(copies) - len(genres),
        of_several_genres=pc.sum(pc.greater(genres["genre_count_distinct"], 1)).as_py() or 0,
        excluded=pc.sum(pc.equal(copies["split"], EXCLUDED)).as_py() or 0,
    )


def describe(copies: pa.Table) -> list[str]:
    """Return the first sets of equal audio as text, one line each."""
    lines = []
    for sound in pc.unique(copies["sound"]).slice(0, _SHOWN):
        rows = copies.filter(pc.equal(copies["sound"], sound)).to_pylist()
        names = [f"{row['track_id']} ({row['genre'] or 'no genre'}, {row['split']})" for row in rows]
        lines.append(" ".join(listed(names, _SHOWN, " = ").splitlines()))  # a name may hold line breaks
    return lines


def _sounds(tracks: pa.Table) -> tuple[Ints, Ints]:
    """Return (tracks,) a number for the audio of each track, and (numbers,) how many tracks have it."""
    encoded = combined(tracks["sound"]).dictionary_encode()
    codes = encoded.indices.to_numpy().astype(np.int64)
    return codes, np.bincount(codes, minlength=len(encoded.dictionary))
