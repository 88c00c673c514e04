"""Published folds: taken as they are, in the order of their numbers, and refused where they leak or are incomplete."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from genre.errors import ArtifactError, ConfigError
from genre.features import manifest
from genre.features.splitting import folds
from genre.features.splitting.folds import NOT_TEST, Fold

NAMES = ("2", "10", "1", "10", "2", "1")  # of the folds of six artists


def table(fold: Sequence[str | None], **columns: Sequence[str | None]) -> pa.Table:
    """Return two tracks of two genres for each of `fold`: those of an artist."""
    n = 2 * len(fold)
    content: dict[str, Sequence[str | None]] = {
        "track_id": [f"t{k}" for k in range(n)],
        "genre": ["rock", "folk"] * len(fold),
        "group": [f"artist {k // 2}" for k in range(n)],
        "split": ["train", "valid", "test"] * (n // 3),
        "sound": [None] * n,
        "recording": [None] * n,
        "fold": [name for name in fold for _ in range(2)],
    }
    return pa.table({name: pa.array(each, pa.string()) for name, each in (content | columns).items()})


def assigned(tracks: pa.Table, count: int) -> list[int]:
    first = folds.of_tracks(tracks, count, 0)[0]
    return [int(number) for number in folds.assign(tracks, count, first.seed)]


def test_published_folds_are_taken_in_the_order_of_their_numbers() -> None:
    tracks = table(NAMES)
    assert folds.of_tracks(tracks, 3, 7) == [Fold(number, 3, None) for number in (1, 2, 3)]
    expected = [{"1": 1, "2": 2, "10": 3}[name] for name in NAMES for _ in range(2)]
    assert assigned(tracks, 3) == expected
    for number in (1, 2, 3):
        view = Fold(number, 3, None).of(tracks)
        assert [split == "valid" for split in view["split"].to_pylist()] == [each == number for each in expected]
        assert view.drop_columns("split").equals(tracks.drop_columns("split"))
    named = folds.table(tracks, np.array(expected), published=True)
    assert (named["fold"].to_pylist(), named["published_fold"]) == (expected, tracks["fold"])


def test_numbers_come_before_names_and_nan_is_a_name() -> None:
    assert assigned(table(["nan", "9", "b", "10", "nan", "b"]), 4)[::2] == [4, 1, 3, 2, 4, 3]


def test_without_published_folds_they_are_drawn() -> None:
    for tracks in (table([None] * 6), table(NAMES).drop_columns("fold")):
        assert folds.of_tracks(tracks, 2, 7) == [Fold(1, 2, 7), Fold(2, 2, 7)]


def test_a_search_needs_no_folds_of_test_tracks() -> None:
    tracks = table(NAMES, split=["test" if name == "10" else "train" for name in NAMES for _ in range(2)])
    assert folds.of_search(tracks, 2, 0) == [Fold(1, 2, None, NOT_TEST), Fold(2, 2, None, NOT_TEST)]
    with pytest.raises(ConfigError, match=r"tune\.folds=3, but the tracks have 2 published folds \(1, 2\)"):
        folds.of_search(tracks, 3, 0)
    unknown = table([None if name == "10" else name for name in NAMES], split=tracks["split"].to_pylist())
    assert folds.assign(unknown, 2, None, NOT_TEST).tolist() == [2, 2, 0, 0, 1, 1, 0, 0, 2, 2, 1, 1]


def test_another_number_of_folds_is_refused_with_the_one_to_use() -> None:
    expected = (
        r"evaluate\.folds=5, but the tracks have 3 published folds \(1, 2, 10\); use evaluate\.folds=3, or prepare "
        r"without that column \(corpus\.split=random ignores it\) to draw folds$"
    )
    with pytest.raises(ConfigError, match=expected):
        folds.of_tracks(table(NAMES), 5, 0)
    with pytest.raises(ConfigError, match=r"have 1 published fold \(1\); prepare without that column"):
        folds.of_tracks(table(["1"] * 6), 5, 0)


def test_tracks_without_a_fold_are_counted_and_one_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"evaluate\.folds: 2 of 12 tracks have no published fold, such as 't4'; fill"
    ):
        folds.of_tracks(table(["1", "2", None, "1", "2", "1"]), 2, 0)
    unused = ["excluded" if name is None else "train" for name in ("1", "2", None, "1", "2", "1") for _ in range(2)]
    assert assigned(table(["1", "2", None, "1", "2", "1"], split=unused), 2)[2:6] == [2, 2, 0, 0]


@pytest.mark.parametrize(
    ("column", "name"), [("group", "group 'shared'"), ("sound", "the same recording"), ("recording", "the same rec")]
)
def test_a_group_or_copy_in_two_published_folds_is_named(column: str, name: str) -> None:
    values = [f"{column} {k // 2}" if column == "group" else None for k in range(12)]
    tracks = table(NAMES, **{column: ["shared", *values[1:6], "shared", *values[7:]]})
    with pytest.raises(
        ArtifactError, match=rf"leakage: {name}.* in fold 10 \(t6\) and fold 2 \(t0\); .*; correct the column 'fold', "
    ):
        folds.check(tracks, np.array(assigned(tracks, 3)), 3, ["folk", "rock"], published=True)


def test_a_genre_in_a_single_fold_is_refused_and_one_that_a_fold_lacks_is_named() -> None:
    genre = ["jazz" if NAMES[k // 2] == "10" else ("rock", "folk")[k % 2] for k in range(12)]
    tracks = table(NAMES, genre=genre)
    fold, classes = np.array(assigned(tracks, 3)), ["folk", "jazz", "rock"]
    with pytest.raises(
        ConfigError, match=r"genre 'jazz' has all its tracks in published fold 10, so .* correct the col"
    ):
        folds.check(tracks, fold, 3, classes, published=True)
    assert folds.absent_genres(tracks, classes) == (
        "fold 1 has no track of jazz; fold 2 has no track of jazz; fold 10 has no track of folk, rock"
    )
    folds.check(table(NAMES), fold, 3, ["folk", "rock"], published=True)
    assert folds.absent_genres(table(NAMES), ["folk", "rock"]) == ""


def test_folds_that_have_gone_are_no_other_folds() -> None:
    for tracks in (table(NAMES).drop_columns("fold"), table(["1", "2"] * 3)):
        with pytest.raises(ArtifactError, match="no longer have the 3 published folds"):
            Fold(1, 3, None).of(tracks)


def test_other_folds_are_other_contents_and_none_are_those_of_earlier_versions() -> None:
    tracks = table(NAMES)
    earlier = manifest.fingerprint_of_tracks(tracks.drop_columns("fold"))
    assert manifest.fingerprint_of_tracks(table([None] * 6)) == earlier
    contents = {manifest.fingerprint_of_tracks(each) for each in (tracks, table(NAMES[::-1]))}
    assert len(contents | {earlier}) == 3
