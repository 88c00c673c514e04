"""Tests of the lines about groups and splits."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from genre.features.splitting.balance import describe
from genre.settings import CorpusSettings


def tracks(genre: str, groups: Sequence[str | None], split: list[str]) -> pa.Table:
    return pa.table({"genre": [genre] * len(split), "group": pa.array(groups, pa.string()), "split": split})


def test_groups_and_genres_far_from_their_shares_are_named() -> None:
    jazz = tracks("jazz", ["a"] * 7 + ["b"] * 3, ["train"] * 7 + ["test"] * 3)
    rock = tracks("rock", [None] * 20, ["train"] * 13 + ["valid"] * 3 + ["test"] * 4)
    table = pa.concat_tables([jazz, rock])
    expected = [
        "2 groups (largest: 'a', 7 tracks), 20 tracks without a group",
        "jazz has 10 tracks in 2 groups: train 7, valid 0, test 3, not 6.5, 1.5 and 2; give it more groups",
    ]
    assert describe(table, CorpusSettings(), drawn=True) == expected
    assert describe(table, CorpusSettings(), drawn=False) == expected[:1]


def test_shares_of_a_large_genre_are_numbers_of_tracks() -> None:
    pop = tracks("pop", ["a"] * 1500 + ["b"] * 501, ["train"] * 1500 + ["test"] * 501)
    assert "not 1301, 300 and 400; give" in describe(pop, CorpusSettings(), drawn=True)[1]


def test_folders_of_artists_are_suspected() -> None:
    def lines(kind: str, number: int) -> list[str]:
        each = [tracks(f"artist {n}", ["first", "second"] * 5, ["train", "test"] * 5) for n in range(number)]
        return describe(pa.concat_tables(each), CorpusSettings(kind=kind), drawn=True)

    assert "use corpus.kind=tags" in lines("folder", 20)[-1]
    assert not any("corpus.kind=tags" in line for line in lines("folder", 10) + lines("table", 20))


def test_music_without_genres_has_nothing_to_balance() -> None:
    assert describe(tracks("", ["a", "b"], ["unlabelled"] * 2), CorpusSettings(), drawn=True) == []


def test_unknown_artists_are_named() -> None:
    table = tracks("rock", [None] * 3, ["train", "valid", "test"])
    (line,) = describe(table, CorpusSettings(), drawn=True)
    assert line.startswith("artists are unknown")
    (line,) = describe(table, CorpusSettings(kind="table"), drawn=True)
    assert line.endswith(
        "makes scores too high; name their column in corpus.params.group_column, or add one to the table"
    )
