"""The same audio under several names: found by what was heard (`sound`), reported, and kept to one split.

Two files are duplicates when they decode to the same spectrograms bit for bit: copies, and lossless
conversions of each other. An MP3 of a CD track is not found; put both into one group for that.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from genre import splits

COLUMNS = ("sound", "track_id", "path", "genre", "group", "split")
SHOWN = 3


def find(tracks: pa.Table) -> pa.Table:
    """The tracks that share their audio with another, one below the other."""
    counts = tracks.group_by("sound").aggregate([([], "count_all")])
    shared = counts.filter(pc.greater(counts["count_all"], 1))["sound"]
    copies = tracks.filter(pc.is_in(tracks["sound"], value_set=shared)).select(COLUMNS)
    return copies.sort_by([("sound", "ascending"), ("track_id", "ascending")])


def part_splits(tracks: pa.Table) -> pa.Table:
    """`tracks` with `excluded` in place of the splits that would part the same audio.

    Only a published split can do so. The copies in the test split stay there, so that scores remain
    comparable with those published; where there are none, those for validation do; training gives way.
    """
    rank = pc.index_in(tracks["split"], pa.array(splits.SPLITS))  # train 0, valid 1, test 2
    ranked = pa.table({"sound": tracks["sound"], "rank": rank})
    best = ranked.group_by("sound").aggregate([("rank", "max"), ("rank", "min")])
    torn = best.filter(pc.less(best["rank_min"], best["rank_max"]))
    place = pc.index_in(tracks["sound"], value_set=torn["sound"])
    yields = pc.fill_null(pc.less(rank, torn["rank_max"].take(place)), False)
    column = pc.if_else(yields, splits.EXCLUDED, tracks["split"])
    return tracks.set_column(tracks.schema.get_field_index("split"), tracks.schema.field("split"), column)


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
