"""Tests of the lines about groups and splits."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from genre.features.splitting.balance import absent_genres, describe, describe_single
from genre.settings import CorpusSettings


def tracks(genre: str, groups: Sequence[str | None], split: list[str]) -> pa.Table:
    return pa.table({"genre": [genre] * len(split), "group": pa.array(groups, pa.string()), "split": split})


def test_groups_and_genres_far_from_their_shares_are_named() -> None:
    jazz = tracks("jazz", ["a"] * 13 + ["b"] + ["c"] * 6, ["train"] * 13 + ["valid"] + ["test"] * 6)
    rock = tracks("rock", [None] * 20, ["train"] * 13 + ["valid"] * 3 + ["test"] * 4)
    table = pa.concat_tables([jazz, rock])
    expected = [
        "3 groups (largest: 'a', 13 tracks), 20 tracks without a group",
        "jazz has 20 tracks in 3 groups: train 13, valid 1, test 6, not 13, 3 and 4; give it more groups",
    ]
    assert describe(table, CorpusSettings(), drawn=True) == expected
    assert describe(table, CorpusSettings(), drawn=False) == expected[:1]


ROCK = tracks("rock", list("aaaabc") * 2, ["train", "train", "train", "train", "valid", "test"] * 2)


def test_a_genre_that_nothing_judges_is_named_however_few_tracks_it_has() -> None:
    disco = tracks("Disco", ["d", "d"], ["train", "train"])
    jazz = tracks("jazz", [None, None], ["train", "test"])
    soul = tracks("soul", ["s"] * 7 + ["t"] * 3, ["train"] * 7 + ["valid"] * 3)
    lines = describe(pa.concat_tables([disco, jazz, soul, ROCK]), CorpusSettings(), drawn=True)[1:]
    assert lines == [
        "Disco has 2 tracks in 1 group: none in valid and test, so that nothing judges it; give it more artists, or "
        "take it out of the corpus",
        "jazz has 2 tracks: none in valid, so that the search and the thresholds do not know it; give it more tracks, "
        "or take it out of the corpus",
        "soul has 10 tracks in 2 groups: none in test, so that nothing judges it; give it more artists, or take it "
        "out of the corpus",
    ]
    many = [tracks(f"genre {n}", ["d", "d"], ["train", "train"]) for n in range(7)]
    lines = describe(pa.concat_tables([*many, ROCK]), CorpusSettings(), drawn=True)[1:]
    assert len(lines) == 6
    assert lines[-1] == "2 more genres without a validation or test track"


def test_a_genre_with_one_track_is_refused_later() -> None:
    rok = tracks("Rok", ["r"], ["train"])
    disco = tracks("Disco", ["d", "d"], ["train", "train"])
    table = pa.concat_tables([disco, rok, ROCK])
    assert describe(table, CorpusSettings(), drawn=True)[1] == (  # before others, of which not all are shown
        "Rok has 1 track in 1 group: none in valid and test, so that nothing judges it, and train and tune will refuse "
        "the corpus; give it more artists, or take it out of the corpus"
    )
    assert describe_single(table) == [
        "only one track of Rok, so that train and tune will refuse the corpus; add tracks of it, or take it out of the "
        "corpus"
    ]
    assert describe_single(pa.concat_tables([disco, ROCK])) == []


def test_a_published_split_without_tracks_of_a_genre_is_named_unless_no_genre_has_any() -> None:
    disco = tracks("Disco", ["d", "d"], ["train", "train"])
    (line,) = describe(pa.concat_tables([disco, ROCK]), CorpusSettings(), drawn=False)[1:]
    assert line.endswith("nothing judges it; correct the splits of its tracks, or take it out of the corpus")
    held_out = tracks("rock", ["a", "b"], ["test", "test"])  # music prepared for `evaluate` alone
    assert len(describe(held_out, CorpusSettings(), drawn=False)) == 1


def test_shares_of_a_large_genre_are_numbers_of_tracks() -> None:
    pop = tracks("pop", ["a"] * 1500 + ["b"] * 500 + ["c"], ["train"] * 1500 + ["test"] * 500 + ["valid"])
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


def test_genres_without_a_track_in_a_split_are_named() -> None:
    table = pa.concat_tables([tracks("jazz", [None, None], ["train", "valid"]), ROCK])
    assert absent_genres(table, ["jazz", "rock"], "valid", judges=False) == ""
    assert absent_genres(table, ["jazz", "rock"], "test", judges=True) == (
        "No test track has one of these genres, so that no score says how they are recognised: jazz."
    )
    many = ["rock", *(f"genre {number}" for number in range(7))]
    assert absent_genres(table, many, "valid", judges=False) == (
        "No validation track has one of these genres, so that nothing is chosen by them: genre 0, genre 1, genre 2, "
        "genre 3, genre 4, 2 more."
    )
    assert absent_genres(table.slice(0, 1), ["jazz", "rock"], "test", judges=True) == ""  # there is no test split
