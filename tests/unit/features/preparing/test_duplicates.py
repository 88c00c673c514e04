"""Tests of tracks with the same audio or recording."""

from __future__ import annotations

import pyarrow as pa
from outcomes import ids

from genre.features.manifest import DuplicateCounts
from genre.features.preparing import duplicates
from genre.features.schema import TRACK_SCHEMA
from genre.features.splitting import splits


def make_tracks(sounds: str, published: list[str]) -> pa.Table:
    rows = [
        {"track_id": f"t{i}", "path": f"/t{i}", "genre": "ab"[i % 2], "sound": sound, "split": split, "clips": 1}
        for i, (sound, split) in enumerate(zip(sounds, published, strict=True))
    ]
    return pa.Table.from_pylist(rows, TRACK_SCHEMA)


def test_copies_in_the_test_split_of_a_published_split_are_kept() -> None:
    tracks = make_tracks("xxxyyzzw", ["train", "test", "valid", "valid", "train", "train", "train", "test"])
    separated = duplicates.exclude_copies(tracks)
    assert separated["split"].to_pylist() == [
        "excluded", "test", "excluded", "valid", "excluded", "train", "train", "test",
    ]  # fmt: skip
    splits.check(splits.view(separated))
    copies = duplicates.find(separated)
    assert ids(copies) == "t0t1t2t3t4t5t6"
    assert duplicates.count(copies) == DuplicateCounts(sets=3, copies=4, of_several_genres=3, excluded=3)
    assert duplicates.describe(copies)[0] == "t0 (a, excluded) = t1 (b, test) = t2 (a, excluded)"


def test_tracks_without_copies_are_not_changed() -> None:
    tracks = make_tracks("abc", ["train", "train", "test"])
    assert duplicates.exclude_copies(tracks).equals(tracks)
    assert duplicates.count(duplicates.find(tracks)) == DuplicateCounts()
    assert duplicates.describe(duplicates.find(tracks)) == []
