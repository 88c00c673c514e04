"""Folds: disjoint in groups and audio, balanced in genres, the same each time; and the check that refuses a leak."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genre.corpora import EXCLUDED, SPLITS, UNLABELLED
from genre.errors import ArtifactError, ConfigError
from genre.features.splitting import folds, splits
from genre.features.splitting.folds import NOT_TEST, Fold

NAMES = ("track_id", "genre", "group", "split", "sound", "recording")


def table(genre: Sequence[str], group: Sequence[str | None], **columns: Sequence[str | None]) -> pa.Table:
    """Return tracks with random splits unless `columns` give others."""
    n = len(genre)
    parts = np.random.default_rng(n).choice(SPLITS, n).tolist()
    defaults = {"track_id": [f"t{k}" for k in range(n)], "split": parts, "sound": [None] * n, "recording": [None] * n}
    content = defaults | {"genre": genre, "group": group} | columns
    return pa.table({name: pa.array(content[name], pa.string()) for name in NAMES})


@st.composite
def corpora(draw: st.DrawFn) -> pa.Table:
    """Draw up to 80 tracks of three genres; groups and copies are shared or unknown, and some tracks unused."""
    n = draw(st.integers(1, 80))

    def column(values: Sequence[str | None]) -> list[str | None]:
        return draw(st.lists(st.sampled_from(values), min_size=n, max_size=n))

    sounds, near = column([None, None, None, "x", "y", "z"]), draw(st.booleans())
    return table(
        draw(st.lists(st.sampled_from(["rock", "folk", "jazz"]), min_size=n, max_size=n)),
        column([None, None, *(f"artist {k}" for k in range(12))]),
        sound=sounds,
        recording=["x" if near and sound in ("x", "y") else None for sound in sounds],
        split=column([*SPLITS, EXCLUDED, UNLABELLED]),
    )


@settings(max_examples=60)
@given(corpora(), st.integers(2, 7), st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_folds_separate_no_group_or_audio_and_follow_from_the_tracks(
    tracks: pa.Table, count: int, seed: int, random: Random
) -> None:
    fold = folds.assign(tracks, count, seed)
    used = np.isin(tracks["split"].to_pylist(), SPLITS)
    assert fold.min() >= 0
    assert fold.max() <= count
    assert ((fold > 0) == used).all()
    for column in ("group", "sound", "recording"):
        of_value: dict[str, set[int]] = {}
        for value, number in zip(tracks[column].to_pylist(), fold.tolist(), strict=True):
            if value is not None and number:
                of_value.setdefault(value, set()).add(number)
        assert all(len(numbers) == 1 for numbers in of_value.values())
    rows = list(range(len(tracks)))
    random.shuffle(rows)
    assert folds.assign(tracks.take(pa.array(rows, pa.int64())), count, seed).tolist() == fold[rows].tolist()


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 6)), min_size=4, max_size=60), st.integers(2, 6))
def test_folds_of_a_genre_differ_by_no_more_than_its_largest_group(units: list[tuple[str, int]], count: int) -> None:
    genre = [name for name, size in units for _ in range(size)]
    group = [f"artist {number}" for number, (_, size) in enumerate(units) for _ in range(size)]
    fold = folds.assign(table(genre, group), count, 0)
    for name in set(genre):
        sizes = np.bincount(fold[np.array(genre) == name], minlength=count + 1)[1:]
        assert sizes.max() - sizes.min() <= max(size for each, size in units if each == name)


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(2, 6))
def test_single_tracks_are_divided_evenly_in_each_genre_and_together(each: int, genres: int, count: int) -> None:
    genre = [f"genre {number}" for number in range(genres) for _ in range(each)]
    fold = folds.assign(table(genre, [None] * len(genre)), count, 0)
    for name in set(genre):
        sizes = np.bincount(fold[np.array(genre) == name], minlength=count + 1)[1:]
        assert sizes.max() - sizes.min() <= 1
    sizes = np.bincount(fold, minlength=count + 1)[1:]
    assert sizes.max() - sizes.min() <= 1


@settings(max_examples=60)
@given(corpora(), st.integers(2, 7), st.integers(0, 2**32))
def test_folds_of_a_search_leave_the_test_tracks_alone(tracks: pa.Table, count: int, seed: int) -> None:
    parts = np.array(tracks["split"].to_pylist())
    fold = folds.assign(tracks, count, seed, NOT_TEST)
    assert ((fold > 0) == np.isin(parts, NOT_TEST)).all()
    views = [np.array(each.of(tracks)["split"].to_pylist()) for each in folds.of_search(tracks, count, seed)]
    for number, view in enumerate(views, 1):
        assert (view[fold == 0] == parts[fold == 0]).all()
        assert ((view == "valid") == (fold == number))[fold > 0].all()
        assert ((view == "test") == (parts == "test")).all()
    everything = np.array(Fold.none_of(NOT_TEST).of(tracks)["split"].to_pylist())
    assert ((everything == "train") == (fold > 0)).all()
    without_test = tracks.filter(pa.array(parts != "test"))
    assert folds.assign(without_test, count, seed).tolist() == fold[parts != "test"].tolist()


def test_a_test_track_of_a_group_that_is_in_a_fold_is_found() -> None:
    tracks = table(["rock", "folk"] * 4, ["x", "y"] * 4, split=["train", "valid"] * 3 + ["valid", "test"])
    for fold in (Fold.none_of(NOT_TEST), *folds.of_search(tracks, 2, 0)):
        assert "group 'y' in test (t7) and " in splits.leaks(fold.of(tracks))


def test_another_seed_gives_other_folds() -> None:
    tracks = table(["rock"] * 40, [f"artist {n // 2}" for n in range(40)])
    assert folds.assign(tracks, 5, 0).tolist() == folds.assign(tracks, 5, 0).tolist()
    assert folds.assign(tracks, 5, 0).tolist() != folds.assign(tracks, 5, 1).tolist()


def test_every_track_is_held_out_once_and_its_group_with_it() -> None:
    tracks = table(
        ["rock", "folk"] * 30, [f"artist {n // 4}" for n in range(60)], split=[*SPLITS * 19, *[EXCLUDED] * 3]
    )
    held_out: Counter[str] = Counter()
    for number in range(1, 5):
        view = Fold(number, 4, 0).of(tracks)
        assert view.drop_columns("split").equals(tracks.drop_columns("split"))
        assert splits.leaks(view) == ""
        parts = view["split"].to_pylist()
        assert parts[-3:] == [EXCLUDED] * 3
        assert "test" not in parts
        held_out.update(
            track for track, part in zip(view["track_id"].to_pylist(), parts, strict=True) if part == "valid"
        )
    assert held_out == Counter(tracks["track_id"].to_pylist()[:-3])


@pytest.mark.parametrize("column", ["group", "sound", "recording"])
def test_a_group_or_audio_in_two_folds_is_refused(column: str) -> None:
    shared = ["shared", "shared", *[None] * 18]
    tracks = table(["rock", "folk"] * 10, **({"group": [None] * 20} | {column: shared}))
    fold = folds.assign(tracks, 2, 0)
    folds.check(tracks, fold, 2, ["folk", "rock"])
    fold[0] = 3 - fold[0]
    with pytest.raises(ArtifactError, match=r"leakage: .*in fold \d \(t\d\) and fold \d \(t\d\)"):
        folds.check(tracks, fold, 2, ["folk", "rock"])


def test_folds_that_nothing_can_be_learned_from_are_refused() -> None:
    tracks = table(["rock", "folk"] * 4, ["x", "y"] * 2 + ["x", "z"] * 2)
    with pytest.raises(ConfigError, match="'rock' has one group"):
        folds.check(tracks, folds.assign(tracks, 2, 0), 2, ["folk", "rock"])
    with pytest.raises(ConfigError, match=r"evaluate\.folds=6, but there are only 3 groups"):
        folds.check(tracks, folds.assign(tracks, 6, 0), 6, ["folk", "rock"])
    with pytest.raises(ConfigError, match="leaves no tracks to learn from"):
        folds.check(tracks, folds.assign(tracks, 1, 0), 1, ["folk", "rock"])
    with pytest.raises(ConfigError, match=r"tune\.folds: genre 'rock' has one group"):
        folds.check(tracks, folds.assign(tracks, 2, 0), 2, ["folk", "rock"], "tune.folds")
