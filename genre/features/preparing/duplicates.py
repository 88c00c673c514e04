"""Tracks that are copies: found by their spectrograms (`sound`, `recording`), reported, and kept in one split.

Two files have the same audio when they decode to the same spectrograms bit for bit, as lossless conversions do. Those
whose recording alone is the same, such as an MP3 of a CD track, are found by `near_copies`.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre.arrays import Ints
from genre.corpora import EXCLUDED, SPLITS
from genre.features.columns import combined, replaced
from genre.features.manifest import DuplicateCounts
from genre.wording import and_more

_COLUMNS = ("recording", "sound", "track_id", "path", "genre", "group", "split")
_SHOWN = 3


def find(tracks: pa.Table) -> pa.Table:
    """Return the tracks that share their recording with another, sorted so that copies and equal audio are adjacent.

    The column `recording` is never null there: it is the `sound` of tracks whose copies all have the same audio.
    """
    recording, size = _recordings(tracks)
    copies = tracks.filter(pa.array(size[recording] > 1)).select(_COLUMNS)
    copies = replaced(copies, "recording", pc.coalesce(copies["recording"], copies["sound"]))
    return copies.sort_by([(name, "ascending") for name in ("recording", "sound", "track_id")])


def exclude_copies(tracks: pa.Table) -> pa.Table:
    """Return the tracks with split `excluded` for copies of a recording that is in another split as well.

    Only a published split separates copies. Those in the test split stay, so that scores remain comparable with
    published ones; where there are none, those in the validation split stay.
    """
    recording, size = _recordings(tracks)
    # excluded: -1, train: 0, valid: 1, test: 2
    rank = pc.fill_null(pc.index_in(tracks["split"], pa.array(SPLITS)), -1).to_numpy()
    highest = np.full(len(size), -1, dtype=rank.dtype)
    np.maximum.at(highest, recording, rank)
    is_lower = (rank >= 0) & (rank < highest[recording])
    return replaced(tracks, "split", pc.if_else(pa.array(is_lower), EXCLUDED, tracks["split"]))


def count(copies: pa.Table) -> DuplicateCounts:
    """Return the counts of the copies that `find` returned."""
    genres = copies.group_by("recording").aggregate([("genre", "count_distinct")])
    sounds = pc.count_distinct(copies["sound"]).as_py()
    return DuplicateCounts(
        sets=len(genres),
        copies=len(copies) - sounds,
        near=sounds - len(genres),
        of_several_genres=pc.sum(pc.greater(genres["genre_count_distinct"], 1)).as_py() or 0,
        excluded=pc.sum(pc.equal(copies["split"], EXCLUDED)).as_py() or 0,
    )


def describe(copies: pa.Table) -> list[str]:
    """Return the first sets of copies as text, one line each: `=` joins equal audio, `~` near copies."""
    lines = []
    for recording in pc.unique(copies["recording"]).slice(0, _SHOWN):
        rows = copies.filter(pc.equal(copies["recording"], recording)).to_pylist()
        line, before = "", None
        for row in rows[:_SHOWN]:
            line += " = " if row["sound"] == before else " ~ " if before else ""
            line += f"{row['track_id']} ({row['genre'] or 'no genre'}, {row['split']})"
            before = row["sound"]
        lines.append(" ".join(line.splitlines()) + and_more(len(rows), _SHOWN))  # a name may hold line breaks
    return lines


def _recordings(tracks: pa.Table) -> tuple[Ints, Ints]:
    """Return (tracks,) a number for the recording of each track, and (numbers,) how many tracks have it."""
    encoded = combined(pc.coalesce(tracks["recording"], tracks["sound"])).dictionary_encode()
    codes = encoded.indices.to_numpy().astype(np.int64)
    return codes, np.bincount(codes, minlength=len(encoded.dictionary))
