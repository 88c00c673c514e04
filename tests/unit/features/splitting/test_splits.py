"""Tests of the splits: stable, disjoint, grouped, stratified; and of the leakage check."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genre.corpora import EXCLUDED, SPLITS
from genre.errors import ArtifactError, ConfigError
from genre.features.splitting import splits
from genre.settings import CorpusSettings

SETTINGS = CorpusSettings()  # 15 % valid, 20 % test
SCHEMA = pa.schema([(name, pa.string()) for name in ("track_id", "genre", "group", "split")])


def table(
    track_id: Sequence[str],
    genre: Sequence[str] | str = "rock",
    group: Sequence[str | None] | None = None,
    split: Sequence[str | None] | None = None,
) -> pa.Table:
    n = len(track_id)
    columns = {
        "track_id": list(track_id),
        "genre": [genre] * n if isinstance(genre, str) else list(genre),
        "group": list(group or [None] * n),
        "split": list(split or [None] * n),
    }
    return pa.table(columns, schema=SCHEMA)


def assigned(tracks: pa.Table, settings: CorpusSettings = SETTINGS) -> dict[str, str]:
    done = splits.assign(tracks, settings)
    return dict(zip(done["track_id"].to_pylist(), done["split"].to_pylist(), strict=True))


def words(n: int, seed: int = 0) -> list[str]:
    """Return random names without numbers."""
    letters = np.random.default_rng(seed).integers(97, 123, (n, 12))
    return ["".join(map(chr, row)) for row in letters]


@st.composite
def corpora(draw: st.DrawFn) -> pa.Table:
    """Draw up to 60 tracks without splits; names have numbers or not, groups and content are shared or unknown."""
    names = st.one_of(st.text(max_size=8), st.integers(0, 99).map("song {}.wav".format))
    ids = draw(st.lists(names, max_size=60, unique=True))

    def column(values: st.SearchStrategy[str | None]) -> list[str | None]:
        return draw(st.lists(values, min_size=len(ids), max_size=len(ids)))

    genres = column(st.sampled_from(["rock", "folk", "jazz"]))
    groups = column(st.sampled_from([None, None, "a", "b", "artist 1", "artist 2"]))
    content = column(st.sampled_from([None, None, None, "x", "y", "z"]))
    tracks = pa.table({"track_id": ids, "genre": genres, "group": groups, "split": [None] * len(ids)}, schema=SCHEMA)
    return tracks.append_column("content", pa.array(content, pa.string()))


@settings(max_examples=50)
@given(corpora(), st.integers(0, 2**32))
def test_splits_are_complete_and_separate_no_group_or_audio(tracks: pa.Table, seed: int) -> None:
    assigned_tracks = splits.assign(tracks, CorpusSettings(split_seed=seed))
    assert set(assigned_tracks["split"].to_pylist()) <= set(SPLITS)
    assert assigned_tracks.drop_columns("split").equals(tracks.drop_columns("split"))
    splits.check(assigned_tracks)


@settings(max_examples=50)
@given(corpora(), st.randoms(use_true_random=False))
def test_order_of_rows_has_no_effect_on_any_corpus(tracks: pa.Table, random: Random) -> None:
    rows = list(range(len(tracks)))
    random.shuffle(rows)
    assert assigned(tracks) == assigned(tracks.take(pa.array(rows, pa.int64())))


def history_of(tracks: pa.Table) -> pa.Table:
    return tracks.select(["track_id", "group", "split"])


@settings(max_examples=50)
@given(corpora(), corpora(), st.randoms(use_true_random=False))
def test_assigned_tracks_and_groups_never_move(tracks: pa.Table, added: pa.Table, random: Random) -> None:
    tracks = tracks.drop_columns("content")
    before = splits.assign(tracks, SETTINGS)
    is_new = pc.invert(pc.is_in(added["track_id"], tracks["track_id"]))
    kept = tracks.filter(pa.array([random.random() < 0.7 for _ in range(len(tracks))], pa.bool_()))
    both = pa.concat_tables([kept, added.drop_columns("content").filter(is_new)])
    after = splits.assign(both, SETTINGS, history_of(before))
    splits.check(after)
    was = dict(zip(before["track_id"].to_pylist(), before["split"].to_pylist(), strict=True))
    was_group = dict(zip(before["group"].to_pylist(), before["split"].to_pylist(), strict=True))
    for row in after.to_pylist():
        assert row["split"] == was.get(row["track_id"], row["split"])
        if row["group"] is not None:
            assert row["split"] == was_group.get(row["group"], row["split"])


def test_new_groups_go_where_tracks_are_lacking() -> None:
    old = table(words(60), group=[f"old {n // 6}" for n in range(60)], split=["train"] * 60)
    both = pa.concat_tables(
        [table(old["track_id"].to_pylist(), group=old["group"].to_pylist()), table(words(40, 1), group=["a", "b"] * 20)]
    )
    row = splits.summary(splits.assign(both, SETTINGS, history_of(old)))["rock"]
    assert (row["train"], row["valid"], row["test"]) == (60, 20, 20)


def test_tracks_that_were_trained_on_do_not_become_test_tracks_when_groups_are_joined() -> None:
    ids = words(40)
    history = table(ids[:2], group=["a", "b"], split=["test", "train"])
    tracks = splits.assign(table(ids, group=["c", "c", *ids[2:]]), SETTINGS, history_of(history))
    assert tracks["split"].to_pylist()[:2] == ["train", "train"]


@settings(max_examples=50)
@given(corpora(), st.data())
def test_published_splits_are_kept(tracks: pa.Table, data: st.DataObject) -> None:
    published = data.draw(
        st.lists(st.sampled_from([None, *SPLITS, EXCLUDED]), min_size=len(tracks), max_size=len(tracks))
    )
    tracks = tracks.set_column(3, "split", pa.array(published, pa.string()))
    result = splits.assign(tracks, SETTINGS)["split"].to_pylist()
    assert [after for before, after in zip(published, result, strict=True) if before] == [*filter(None, published)]


@given(st.sets(st.text(max_size=6), min_size=3, max_size=12), st.integers(0, 2**32))
def test_genre_of_three_tracks_or_more_is_in_every_split(names: set[str], seed: int) -> None:
    tracks = splits.assign(table([*names]), CorpusSettings(split_seed=seed))
    assert set(tracks["split"].to_pylist()) == set(SPLITS)


def test_order_of_rows_does_not_matter() -> None:
    ids = [*words(50), *(f"blues/blues.{n:05d}.flac" for n in range(50))]
    assert assigned(table(ids)) == assigned(table(ids[::-1]))


def test_single_tracks_get_the_wanted_shares_exactly() -> None:
    tracks = table([f"blues/blues.{n:05d}.flac" for n in range(100)] + [f"{word}.mp3" for word in words(40)])
    assert splits.summary(splits.assign(tracks, SETTINGS))["rock"] == {
        "train": 91,
        "valid": 21,
        "test": 28,
        "excluded": 0,
    }


def test_few_artists_of_unequal_size_give_balanced_splits() -> None:
    rng = np.random.default_rng(0)
    groups = [f"{genre} {int(artist)}" for genre in range(4) for artist in rng.zipf(1.4, 100) % 12]
    genres = [f"genre {n // 100}" for n in range(400)]
    for seed in range(5):
        done = splits.assign(table([f"{n}.wav" for n in range(400)], genres, groups), CorpusSettings(split_seed=seed))
        splits.check(done)
        for row in splits.summary(done).values():
            assert row["valid"] == pytest.approx(15, rel=0.2)
            assert row["test"] == pytest.approx(20, rel=0.2)


def test_another_seed_draws_another_split() -> None:
    tracks = table(words(200))
    assert assigned(tracks) != assigned(tracks, CorpusSettings(split_seed=1))


def test_group_is_in_one_split_even_across_genres() -> None:
    rng = np.random.default_rng(0)
    groups = [f"artist {n}" for n in rng.integers(0, 40, 600)]
    genres = [f"genre {n}" for n in rng.integers(0, 12, 600)]
    tracks = splits.assign(table([f"{n}.wav" for n in range(600)], genres, groups), SETTINGS)
    per_group = tracks.group_by("group").aggregate([("split", "count_distinct")])
    assert set(per_group["split_count_distinct"].to_pylist()) == {1}
    splits.check(tracks)


@pytest.mark.parametrize("units", [3, 4, 6])
@pytest.mark.parametrize("seed", range(10))
def test_small_genres_have_tracks_in_every_split(units: int, seed: int) -> None:
    names = words(8 * units, seed)
    genres = [f"genre {n // units}" for n in range(8 * units)]
    counts = splits.summary(splits.assign(table(names, genres), SETTINGS))
    assert all(row[split] for row in counts.values() for split in SPLITS)


def test_small_genres_that_share_groups_have_tracks_in_every_split() -> None:
    groups = [f"group {letter}" for letter in "abcdefgh"]
    tracks = table([f"{n}.wav" for n in range(16)], ["rock"] * 8 + ["folk"] * 8, groups * 2)
    for seed in range(20):
        done = splits.assign(tracks, CorpusSettings(split_seed=seed))
        splits.check(done)
        assert all(row[split] for row in splits.summary(done).values() for split in SPLITS)


def test_genre_of_one_or_two_units_has_one_in_train() -> None:
    for seed in range(20):
        one = splits.assign(table(["only.wav"]), CorpusSettings(split_seed=seed))
        two = splits.assign(table(words(2)), CorpusSettings(split_seed=seed))
        assert splits.summary(one)["rock"]["train"] == 1
        assert splits.summary(two)["rock"]["train"] == 1


def test_published_split_is_kept_and_its_group_follows() -> None:
    ids = words(30)
    split = ["test", "excluded", "valid", *[None] * 27]
    done = assigned(table(ids, group=["x", "y", "z", "x", "y", *ids[5:]], split=split))
    assert [done[track] for track in ids[:4]] == ["test", "excluded", "valid", "test"]
    assert done[ids[4]] in SPLITS  # the group of an excluded track does not follow it


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_a_group_keeps_its_published_split_where_a_copy_joins_it_with_another(order: tuple[int, ...]) -> None:
    """Without this, training refused the groups that copies join, whose published splits nobody can correct."""
    tracks = table("abcd", group=["x", "x", "y", "y"], split=["train", None, "test", None])
    tracks = tracks.append_column("content", pa.array(["r", "s", "r", "t"])).take(pa.array(order))
    assert assigned(tracks) == {"a": "train", "b": "train", "c": "test", "d": "test"}


def test_equal_audio_is_in_one_split() -> None:
    ids = words(200)
    content = pa.array([n % 100 if n % 3 else None for n in range(200)])
    tracks = splits.assign(table(ids).append_column("content", content), SETTINGS)
    splits.check(tracks)
    splits_of = dict(zip(ids, tracks["split"].to_pylist(), strict=True))
    assert splits_of[ids[4]] == splits_of[ids[104]]


def test_table_without_tracks_to_assign() -> None:
    assert splits.assign(table([]), SETTINGS).num_rows == 0
    assert splits.assign(table(["a"], split=["excluded"]), SETTINGS)["split"].to_pylist() == ["excluded"]


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="split 'training' is not known; use train"):
        splits.assign(table(["a"], split=["training"]), SETTINGS)


@pytest.mark.slow
def test_a_million_tracks_get_the_wanted_shares() -> None:
    n = 1_000_000
    rng = np.random.default_rng(0)
    tracks = pa.table(
        {
            "track_id": pc.binary_join_element_wise("t", pa.array(np.arange(n)).cast(pa.string()), ""),
            "genre": pa.array(rng.integers(0, 50, n)).cast(pa.string()),
            "group": pc.binary_join_element_wise("a", pa.array(rng.integers(0, 300_000, n)).cast(pa.string()), ""),
            "split": pa.nulls(n, pa.string()),
        }
    )
    done = splits.assign(tracks, SETTINGS)
    splits.check(done)
    for row in splits.summary(done).values():
        assert row["valid"] == pytest.approx(0.15 * 20_000, rel=0.1)
        assert row["test"] == pytest.approx(0.2 * 20_000, rel=0.1)


class TestCheck:
    def test_clips_of_a_track_in_one_split_pass(self) -> None:
        splits.check(table(["a", "a", "b"], group=["x", "x", None], split=["train", "train", "test"]))

    def test_track_in_two_splits(self) -> None:
        with pytest.raises(ArtifactError, match=r"leakage: track 'a' in test \(a\) and train"):
            splits.check(table(["a", "a"], split=["train", "test"]))

    def test_group_in_two_splits_is_named_with_its_tracks(self) -> None:
        with pytest.raises(ArtifactError, match=r"group 'x' in train \(a\) and valid \(b\)"):
            splits.check(table(["a", "b", "c"], group=["x", "x", None], split=["train", "valid", "test"]))

    def test_same_audio_in_two_splits(self) -> None:
        tracks = table(["a", "b"], split=["train", "test"])
        with pytest.raises(ArtifactError, match=r"the same recording in test \(b\) and train \(a\)"):
            splits.check(tracks.append_column("content", pa.array([b"\x00\xff", b"\x00\xff"])))

    def test_unknown_content_and_missing_groups_are_not_leaks(self) -> None:
        tracks = table(["a", "b"], split=["train", "test"])
        splits.check(tracks.append_column("content", pa.nulls(2, pa.binary())))

    def test_excluded_tracks_are_not_leaks(self) -> None:
        splits.check(table(["a", "b"], group=["x", "x"], split=["train", "excluded"]))

    def test_many_leaks_are_counted_not_listed(self) -> None:
        ids = [f"t{n:02d}" for n in range(10)]
        with pytest.raises(ArtifactError, match="and 7 more; correct") as error:
            splits.check(table(ids * 2, split=["train"] * 10 + ["test"] * 10))
        assert "\n" not in str(error.value)

    def test_undecided_split(self) -> None:
        with pytest.raises(ArtifactError, match="1 tracks have no split"):
            splits.check(table(["a"]))


class TestRequireTrainable:
    def test_passes(self) -> None:
        ids = [f"{n}" for n in range(6)]
        tracks = table(ids, ["a", "b"] * 3, split=["train", "train", "valid", "valid", "test", "test"])
        splits.require_trainable(tracks, ["a", "b"])

    @pytest.mark.parametrize(
        ("genres", "split", "classes", "message"),
        [
            ("ab", ["train", "valid"], ["a", "b"], "no track is in the test split"),
            ("aab", ["train", "valid", "test"], ["a", "b"], "no training track of b"),
            ("aaa", ["train", "valid", "test"], ["a", "b", "c"], "no training track of b, c"),
            ("aaa", ["train", "valid", "test"], ["a"], "one genre only"),
            ("abz", ["train", "valid", "test"], ["a", "b"], "genre 'z' is not one of the classes"),
        ],
    )
    def test_refuses(self, genres: str, split: list[str], classes: list[str], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            splits.require_trainable(table([f"{n}" for n in range(len(genres))], list(genres), split=split), classes)
