"""Samples and shares of tracks: complete groups, every genre in proportion, and the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genre.errors import ArtifactError
from genre.features.splitting.sampling import Music, Sample, Share, Taught
from genre.storage import Location

GENRES = ["blues", "metal", "rare", "techno"]


def make_tracks(count: int = 2000, group_size: int = 3, seed: int = 0) -> pa.Table:
    """Return tracks in groups of up to `group_size` of one genre, with 1 to 9 clips each; one genre is rare."""
    rng = np.random.default_rng(seed)
    group = np.sort(rng.integers(0, max(1, count // group_size), count))
    genres = rng.choice(GENRES, count, p=[0.4, 0.3, 0.02, 0.28])[group]
    splits = rng.choice(["train", "valid", "test"], count, p=[0.6, 0.2, 0.2])[group]
    return pa.table(
        {
            "track_id": pa.array([f"{number:05d}" for number in rng.permutation(count)], pa.string()),
            "genre": pa.array(genres.tolist(), pa.string()),
            "group": [f"artist {number}" if number % 4 else None for number in group.tolist()],
            "split": splits.tolist(),
            "clips": pa.array(rng.integers(1, 10, count)),
        }
    )


def counts_by_genre(tracks: pa.Table, split: str) -> dict[str, int]:
    rows = tracks.filter(pc.equal(tracks["split"], split))["genre"].to_pylist()
    return {genre: rows.count(genre) for genre in GENRES}


class TestSample:
    @pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
    def test_each_genre_keeps_its_share(self, share: float) -> None:
        tracks = make_tracks()
        sample = Sample(share, 0).of(tracks)
        for split in ("train", "valid"):
            expected, found = counts_by_genre(tracks, split), counts_by_genre(sample, split)
            for genre in GENRES:
                # within a group; at least one group
                assert abs(found[genre] - share * expected[genre]) <= 12 or found[genre] == 1
                assert found[genre] > 0

    def test_groups_stay_together_and_the_test_split_is_complete(self) -> None:
        tracks = make_tracks()
        sample = Sample(0.3, 1).of(tracks)
        kept = set(sample["track_id"].to_pylist())
        groups: dict[str, set[bool]] = {}
        for row in tracks.filter(tracks["group"].is_valid()).to_pylist():
            if row["split"] != "test":
                groups.setdefault(row["group"], set()).add(row["track_id"] in kept)
        assert {len(inside) for inside in groups.values()} == {1}
        assert counts_by_genre(sample, "test") == counts_by_genre(tracks, "test")

    def test_it_follows_from_names_and_seed_not_from_the_order(self) -> None:
        tracks = make_tracks()
        shuffled = tracks.take(pa.array(np.random.default_rng(5).permutation(len(tracks))))
        ids = set(Sample(0.2, 0).of(tracks)["track_id"].to_pylist())
        assert set(Sample(0.2, 0).of(shuffled)["track_id"].to_pylist()) == ids
        assert set(Sample(0.2, 1).of(tracks)["track_id"].to_pylist()) != ids

    def test_a_genre_whose_groups_belong_to_others_is_kept(self) -> None:
        tracks = pa.table(
            {
                "track_id": ["a", "b", "c", "d", "e", "f"],
                "genre": ["rock", "rock", "jazz", "rock", "rock", "rock"],
                "group": ["g", "g", "g", "h", "h", "i"],
                "split": ["train"] * 6,
            }
        )
        assert "jazz" in Sample(0.1, 0).of(tracks)["genre"].to_pylist()

    def test_no_tracks(self) -> None:
        assert len(Sample(0.5, 0).of(make_tracks().slice(0, 0))) == 0


class TestShare:
    @given(st.integers(1, 7), st.integers(0, 300), st.integers(0, 5))
    def test_each_track_is_on_one_machine_and_genres_are_balanced(self, world: int, count: int, seed: int) -> None:
        tracks = make_tracks(count, seed=seed)
        held = [Share((rank,), world).holds(tracks) for rank in range(world)]
        assert np.array_equal(sum(part.astype(int) for part in held), np.ones(count, int))
        for genre in GENRES:
            is_genre = pc.equal(tracks["genre"], genre).to_numpy()
            sizes = [int((part & is_genre).sum()) for part in held]
            assert max(sizes) - min(sizes) <= 1

    def test_a_machine_with_two_workers_holds_two_parts_of_equally_many_clips(self) -> None:
        tracks = make_tracks()
        clips = tracks["clips"].to_numpy()
        parts = [Share(ranks, 3).holds(tracks) for ranks in ((0, 2), (1,))]
        assert clips[parts[0]].sum() == pytest.approx(2 * clips[parts[1]].sum(), rel=0.01)

    def test_it_does_not_depend_on_the_order(self) -> None:
        tracks = make_tracks()
        order = np.random.default_rng(5).permutation(len(tracks))
        share = Share((1,), 3)
        assert np.array_equal(share.holds(tracks.take(pa.array(order))), share.holds(tracks)[order])


Row = tuple[str, str | None, str | None, str | None]  # split, group, sound, recording
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["train", "valid", "test", "excluded", "unlabelled"]),
        st.sampled_from(["x", "y", "z", None]),
        st.sampled_from(["1", "2", "3", None]),
        st.sampled_from(["r", "s", None]),
    ),
    max_size=8,
)


def tracks_of(rows: list[Row]) -> pa.Table:
    columns = {
        "track_id": [str(number) for number in range(len(rows))],
        "genre": [None if split == "unlabelled" else "rock" for split, *_ in rows],
        "group": [group for _, group, *_ in rows],
        "split": [split for split, *_ in rows],
        "sound": [sound for _, _, sound, _ in rows],
        "recording": [recording for *_, recording in rows],
    }
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def is_related_to_a_judge(row: Row, rows: list[Row]) -> bool:
    judges = [other for other in rows if other[0] in ("valid", "test")]
    return any(name and name in other[1:] for name in row[1:] for other in judges)


@given(ROWS)
def test_the_music_to_pretrain_on_shares_neither_group_nor_audio_with_what_judges(rows: list[Row]) -> None:
    tracks = tracks_of(rows)
    music = Music().of(tracks)
    for row, new in zip(rows, music["split"].to_pylist(), strict=True):
        assert (new == "train") == (row[0] in ("train", "unlabelled") and not is_related_to_a_judge(row, rows))
        assert new == row[0] or row[0] in ("train", "unlabelled")
    assert music.schema == tracks.schema
    assert set(music["genre"].to_pylist()) <= {""}


@given(ROWS, st.integers(0, 8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_predicted_genres_train_unless_the_track_is_related_to_what_judges(
    tmp_path: Path, rows: list[Row], predicted: int
) -> None:
    file = Location.of(tmp_path / "predicted.parquet")
    names = pa.array([str(number) for number in range(predicted)], pa.string())
    file.write_table(pa.table({"track_id": names, "genre": pa.array(["jazz"] * predicted, pa.string())}))
    tracks = tracks_of(rows)
    taught = Taught.by(file).of(tracks)
    assert taught.schema == tracks.schema
    for number, (row, new) in enumerate(zip(rows, taught.to_pylist(), strict=True)):
        is_taught = row[0] == "unlabelled" and number < predicted and not is_related_to_a_judge(row, rows)
        assert new == tracks.slice(number, 1).to_pylist()[0] | (
            {"split": "train", "genre": "jazz"} if is_taught else {}
        )


def test_predictions_that_were_replaced_are_noticed(tmp_path: Path) -> None:
    file = Location.of(tmp_path / "predicted.parquet")
    file.write_table(pa.table({"track_id": ["0"], "genre": ["jazz"]}))
    view = Taught.by(file)
    file.write_table(pa.table({"track_id": ["0"], "genre": ["rock"]}))
    with pytest.raises(ArtifactError, match="was replaced while this job ran; run the same command again"):
        view.of(tracks_of([("unlabelled", None, None, None)]))
