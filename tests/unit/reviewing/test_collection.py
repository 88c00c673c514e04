"""The order, the filters and the pages of a tagged collection."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reviewing import Tagged, write_tags
from saving import CLASSES, save_model

from genre.errors import ArtifactError
from genre.report.label_issues import LabelIssue, csv_text
from genre.reviewing.collection import PAGE_ROWS, Collection, Filter, Suspicion, read_suspicions
from genre.storage import Location
from genre.tagging import tag_owner

FILES = [
    Tagged("/music/a/one.mp3", "rock", 0.95, "Ann", "First", "Pop; Rock"),
    Tagged("/music/a/two.mp3", "rock", 0.4, "Ann", "Second"),
    Tagged("/music/b/three.mp3", "jazz", 0.6, "Ébène", "Été"),
    Tagged("/music/b/four.mp3", "blues", 0.99),
]


@pytest.fixture(scope="module")
def tags(tmp_path_factory: pytest.TempPathFactory) -> Location:
    output = tmp_path_factory.mktemp("review")
    write_tags(output, FILES)
    return Location.of(output) / "tags"


def names(collection: Collection, wanted: Filter) -> list[str]:
    return [track.name for track in collection.page(wanted).tracks]


def test_suspicious_labels_come_first_then_the_least_certain_answers(tags: Location) -> None:
    suspicions = [Suspicion("b/four.mp3", "rock"), Suspicion("a/one.mp3", "jazz"), Suspicion("elsewhere/two.mp3", "x")]
    collection = Collection.open(tags, list(CLASSES), suspicions)
    page = collection.page(Filter())
    assert [(track.row, track.name, track.label) for track in page.tracks] == [
        (0, "b/four.mp3", "rock"),
        (1, "a/one.mp3", "jazz"),
        (2, "a/two.mp3", None),
        (3, "b/three.mp3", None),
    ]
    assert collection.genres == ["rock", "blues", "jazz"]  # the most frequent answer first
    best = page.tracks[0]
    assert best.guesses[0] == ("blues", 0.99)
    assert sorted(genre for genre, _ in best.guesses) == sorted(CLASSES)
    assert page.tracks[2].answer == "unknown"
    assert (page.tracks[1].artist, page.tracks[1].title, page.tracks[1].seconds) == ("Ann", "First", 3.0)
    assert [track.own_genre for track in page.tracks] == ["", "Pop; Rock", "", ""]


def test_files_without_a_genre_of_their_own_are_a_filter(tmp_path: Path) -> None:
    write_tags(tmp_path, [*FILES, Tagged("/music/b/five.mp3", "jazz", 0.3, own_genre=" ")])
    collection = Collection.open(Location.of(tmp_path) / "tags", list(CLASSES))
    untagged = ["b/five.mp3", "a/two.mp3", "b/three.mp3", "b/four.mp3"]
    assert names(collection, Filter("untagged")) == untagged
    assert names(collection, Filter("untagged", below=0.5)) == untagged[:2]
    collection.set_genre(0, "jazz")
    assert names(collection, Filter("untagged")) == untagged  # a genre of the person is not in the file


def test_a_label_that_the_model_answers_too_is_not_marked(tags: Location) -> None:
    """The networks of the leaderboard doubted it, and the model of the tags does not."""
    suspicions = [Suspicion("b/three.mp3", "jazz"), Suspicion("a/two.mp3", "rock"), Suspicion("b/four.mp3", "rock")]
    collection = Collection.open(tags, list(CLASSES), suspicions)
    assert names(collection, Filter("suspicious")) == ["b/four.mp3"]
    assert names(collection, Filter()) == ["b/four.mp3", "a/two.mp3", "b/three.mp3", "a/one.mp3"]


def test_a_suspicious_track_that_could_be_several_files_is_reported_and_marks_none(tmp_path: Path) -> None:
    files = ["/music/a/one.mp3", "/copy/a/one.mp3", "/music/two.mp3", "/copy/b/two.mp3", "/music/b/b/three.mp3"]
    write_tags(tmp_path, [Tagged(path, "rock", 0.5) for path in files])
    suspicions = [Suspicion(name, "jazz") for name in ("two.mp3", "b/three.mp3", "a/one.mp3", "b/two.mp3")]
    collection = Collection.open(Location.of(tmp_path) / "tags", list(CLASSES), suspicions)
    marked = [track.path for track in collection.page(Filter("suspicious")).tracks]
    # the longest end counts, so that two.mp3 can be only one of the two files of this name
    assert marked == ["/music/two.mp3", "/music/b/b/three.mp3", "/copy/b/two.mp3"]
    assert collection.ambiguous == ["a/one.mp3"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(text="ANN"), {"a/one.mp3", "a/two.mp3"}),
        (Filter(text="été"), {"b/three.mp3"}),
        (Filter(text="B/F"), {"b/four.mp3"}),
        (Filter(text="(["), set()),  # no pattern
        (Filter(genre="rock"), {"a/one.mp3", "a/two.mp3"}),
        (Filter(genre="polka"), set()),
        (Filter(below=0.6), {"a/two.mp3"}),
        (Filter(below=0.7, genre="jazz", text="é"), {"b/three.mp3"}),
        (Filter("suspicious"), {"b/four.mp3"}),
        (Filter("reviewed"), set()),
        (Filter("all"), {"a/one.mp3", "a/two.mp3", "b/three.mp3", "b/four.mp3"}),
    ],
)
def test_a_filter_lists_the_tracks_that_meet_all_conditions(tags: Location, wanted: Filter, expected: set[str]) -> None:
    collection = Collection.open(tags, list(CLASSES), [Suspicion("b/four.mp3", "rock")])
    assert set(names(collection, wanted)) == expected
    assert collection.page(wanted).matching == len(expected)


def test_a_decision_moves_a_track_to_its_genre_and_out_of_what_is_to_do(tags: Location) -> None:
    collection = Collection.open(tags, list(CLASSES))
    (row,) = (track.row for track in collection.page(Filter(text="two")).tracks)
    collection.set_genre(row, "polka")
    assert names(collection, Filter("reviewed", genre="polka")) == ["a/two.mp3"]
    assert "a/two.mp3" not in names(collection, Filter())
    assert names(collection, Filter("all", genre="rock")) == ["a/one.mp3"]
    assert collection.page(Filter("reviewed")).tracks[0].genre == "polka"
    collection.set_genre(row, None)
    assert names(collection, Filter("all", genre="rock")) == ["a/two.mp3", "a/one.mp3"]
    assert names(collection, Filter("reviewed")) == []


def large(count: int, seed: int) -> Collection:
    rng = np.random.default_rng(seed)
    texts = pa.nulls(count, pa.string())
    best = [CLASSES[index] for index in rng.integers(0, len(CLASSES), count)]
    return Collection(
        pa.table(
            {
                "path": [f"/music/{number:04d}.mp3" for number in range(count)], "genre": best, "best": best,
                "probability": pa.array(rng.random(count), pa.float32()), "seconds": [1.0] * count, "artist": texts,
                "title": texts, "group": texts, "label": texts, "own_genre": texts,
            }
        ),
        list(CLASSES),
    )  # fmt: skip


@given(
    count=st.integers(1, 3 * PAGE_ROWS),
    seed=st.integers(0, 9),
    below=st.sampled_from([0.2, 0.8, 1.0]),
    decided=st.sets(st.integers(0, 3 * PAGE_ROWS - 1)),
)
def test_the_pages_list_each_matching_track_once_in_both_directions(
    count: int, seed: int, below: float, decided: set[int]
) -> None:
    collection = large(count, seed)
    for row in decided:
        if row < count:
            collection.set_genre(row, "rock")
    wanted = Filter(below=below)
    pages = [collection.page(wanted)]
    while (start := pages[-1].next) is not None:
        pages.append(collection.page(wanted, start))
    rows = [track.row for page in pages for track in page.tracks]
    shares = collection.tags["probability"].to_numpy()
    assert rows == [row for row in range(count) if row not in decided and (below == 1 or shares[row] < below)]
    assert {page.matching for page in pages} == {len(rows)}
    assert [page.first for page in pages] == list(range(0, max(1, len(rows)), PAGE_ROWS))
    for page, after in itertools.pairwise(pages):
        assert after.previous is not None
        assert collection.page(wanted, after.previous) == page


def test_missing_and_foreign_tables_are_refused_in_one_line(tags: Location, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="tag the collection first"):
        Collection.open(Location.of(tmp_path / "none"), list(CLASSES))
    with pytest.raises(ArtifactError, match="tag the collection first"):
        tag_owner.genres_of(Location.of(tmp_path / "none"))
    with pytest.raises(ArtifactError, match="that the model does not know"):
        Collection.open(tags, ["jazz", "rock"])
    other = Location.of(tmp_path / "other")
    (other / "tags.parquet").write_table(pa.table({"path": ["/a.mp3"]}))
    with pytest.raises(ArtifactError, match="has no column best"):
        Collection.open(other, list(CLASSES))
    (other / "tags.parquet").write_table(tags_of(tags).slice(0, 0))
    with pytest.raises(ArtifactError, match="has no tracks"):
        Collection.open(other, list(CLASSES))
    (other / "tags.parquet").write_bytes((tags / "tags.parquet").read_bytes()[:-9])
    with pytest.raises(ArtifactError, match="not the Parquet file"):
        Collection.open(other, list(CLASSES))


def tags_of(tags: Location) -> pa.Table:
    return (tags / "tags.parquet").read_table()


def test_the_genres_are_those_of_the_model_that_made_the_tags(tags: Location, tmp_path: Path) -> None:
    assert tag_owner.genres_of(tags) == list(CLASSES)
    moved = Location.of(save_model(tmp_path / "moved"))
    assert tag_owner.genres_of(tags, [moved]) == list(CLASSES)  # the same weights
    with pytest.raises(ArtifactError, match="tags of other models"):
        tag_owner.genres_of(tags, [Location.of(save_model(tmp_path / "other", seed=1))])
    with pytest.raises(ArtifactError, match=r"no model here.*model="):
        tag_owner.genres_of(tags, [Location.of(tmp_path / "gone")])


def test_label_issues_are_read_as_the_report_writes_them(tmp_path: Path) -> None:
    file = Location.of(tmp_path / "label_issues.csv")
    file.write_text(csv_text([LabelIssue("=a/b.mp3", "rock", "jazz", 0.1, 0.8, 2, 2)]))
    assert read_suspicions(file) == [Suspicion("=a/b.mp3", "rock")]
    for text in ("path,genre\na,b\n", "track_id,genre\na\n", ""):
        file.write_text(text)
        with pytest.raises(ArtifactError, match=r"not a label_issues\.csv"):
            read_suspicions(file)
    with pytest.raises(ArtifactError, match="no such file"):
        read_suspicions(Location.of(tmp_path / "none.csv"))
