"""The same audio under several names: found by what was heard (`sound`), reported, and kept to one split.

Two files are duplicates when they decode to the same spectrograms bit for bit: copies, and lossless
conversions of each other. An MP3 of a CD track is not found; put both into one group for that.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from genre.features import splits

COLUMNS = ("sound", "track_id", "path", "genre", "group", "split")
SHOWN = 3


def find(tracks: pa.Table) -> pa.Table:
    """The tracks that share their audio with another, one below the other."""
    number, count = _sounds(tracks)
    copies = tracks.filter(pa.array(count[number] > 1)).select(COLUMNS)
    return copies.sort_by([("sound", "ascending"), ("track_id", "ascending")])


def part_splits(tracks: pa.Table) -> pa.Table:
    """`tracks` with `excluded` in place of the splits that would part the same audio.

    Only a published split can do so. The copies in the test split stay there, so that scores remain
    comparable with those published; where there are none, those for validation do; training gives way.
    """
    number, count = _sounds(tracks)
    rank = pc.fill_null(
        pc.index_in(tracks["split"], pa.array(splits.SPLITS)), -1
    ).to_numpy()  # excluded -1, train 0, ...
    best = np.full(len(count), -1, dtype=rank.dtype)
    np.maximum.at(best, number, rank)
    yields = (rank >= 0) & (rank < best[number])
    column = pc.if_else(pa.array(yields), splits.EXCLUDED, tracks["split"])
    return tracks.set_column(tracks.schema.get_field_index("split"), tracks.schema.field("split"), column)


def _sounds(tracks: pa.Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(tracks,) a number for the audio of each, and (numbers,) how many tracks have it."""
    encoded = tracks["sound"].combine_chunks().dictionary_encode()
    number = encoded.indices.to_numpy().astype(np.int64)
    return number, np.bincount(number, minlength=len(encoded.dictionary))


def counts(copies: pa.Table) -> dict[str, int]:
    """Of the result of `find`: sets of equal audio, tracks beyond the first of each, sets of several genres."""
    genres = copies.group_by("sound").aggregate([("genre", "count_distinct")])
    several = pc.sum(pc.greater(genres["genre_count_distinct"], 1)).as_py()
    excluded = pc.sum(pc.equal(copies["split"], splits.EXCLUDED)).as_py()
    return {
        "sets": len(genres),
        "copies": len(copies) - len(genres),
        "of_several_genres": several or 0,
        "excluded": excluded or 0,
    }


def lines(copies: pa.Table) -> list[str]:
    """The first sets of equal audio in words, one a line."""
    told = []
    for sound in pc.unique(copies["sound"]).slice(0, SHOWN):
        rows = copies.filter(pc.equal(copies["sound"], sound)).to_pylist()
        names = [f"{row['track_id']} ({row['genre']}, {row['split']})" for row in rows[:SHOWN]]
        more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
        told.append(" = ".join(names) + more)
    return told
