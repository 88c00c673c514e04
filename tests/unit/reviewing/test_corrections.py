"""Corrections on disk: complete or absent, readable as a corpus, and taken back."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from reviewing import Tagged, write_tags
from saving import CLASSES

from genre import corpora
from genre.errors import ArtifactError
from genre.reviewing.collection import Collection, Filter
from genre.reviewing.corrections import NAME, Corrections
from genre.reviewing.review import GenreNameError, NewGenreError, Review
from genre.settings import CorpusSettings
from genre.storage import Location

PATHS = ("/music/a.mp3", "/music/b, c.mp3", '/music/"d".mp3', "/music/e\nf.mp3", "/music/é ü.mp3", "s3://bucket/g.mp3")


def opened(folder: Path) -> Corrections:
    return Corrections(Location.of(folder) / NAME)


def scanned(file: Path) -> dict[str, tuple[str | None, str | None]]:
    tracks = corpora.scan(CorpusSettings(kind="table", root=str(file), params={"size_column": None}))
    return {track.path: (track.genre, track.group) for track in tracks}


def test_a_corpus_is_read_from_the_file(tmp_path: Path) -> None:
    corrections = opened(tmp_path)
    for number, path in enumerate(PATHS[:-1]):
        corrections.put(path, CLASSES[number % 3], "ann" if number % 2 else None)
    assert scanned(tmp_path / NAME) == {
        path: (CLASSES[number % 3], "ann" if number % 2 else None) for number, path in enumerate(PATHS[:-1])
    }


class Decisions(RuleBasedStateMachine):
    """Any sequence of decisions, undos and starts leaves the same genres in memory, on disk and in a plain list."""

    folder: Path  # set by the test

    def __init__(self) -> None:
        super().__init__()
        (self.folder / NAME).unlink(missing_ok=True)
        self.corrections = opened(self.folder)
        self.history: list[tuple[str, str | None, str | None]] = []  # path, earlier line, earlier genre
        self.expected: dict[str, str] = {}

    @rule(path=st.sampled_from(PATHS), genre=st.sampled_from([*CLASSES, 'a "quoted", one']))
    def decide(self, path: str, genre: str) -> None:
        before = self.expected.get(path)
        self.history.append((path, self.corrections.put(path, genre, None), before))
        self.expected[path] = genre

    @rule()
    def undo(self) -> None:
        if self.history:
            path, line, genre = self.history.pop()
            assert self.corrections.restore(path, line) == genre
            self.expected.pop(path)
            self.expected |= {path: genre} if genre else {}

    @rule()
    def start_again(self) -> None:
        self.corrections = opened(self.folder)

    @invariant()
    def all_agree(self) -> None:
        assert self.corrections.genres == self.expected
        assert opened(self.folder).genres == self.expected


def test_decisions_undos_and_starts_in_any_order(tmp_path: Path) -> None:
    Decisions.folder = tmp_path
    run_state_machine_as_test(Decisions, settings=settings(max_examples=15, stateful_step_count=12))


@given(keep=st.integers(0, 400))
def test_a_file_cut_anywhere_loses_at_most_the_row_that_was_cut(
    tmp_path_factory: pytest.TempPathFactory, keep: int
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    corrections = opened(folder)
    for number, path in enumerate(PATHS):
        corrections.put(path, CLASSES[number % 3], None)
    whole = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(whole[:keep])
    header = whole.index(b"\n")
    if keep < header:
        with pytest.raises(ArtifactError, match=r"has no column|not UTF-8"):
            opened(folder)
        return
    try:
        again = opened(folder)
    except ArtifactError as error:  # within a letter of several bytes
        assert "UTF-8" in str(error)  # noqa: PT017
        return
    kept = list(again.genres)
    assert kept == list(PATHS[: len(kept)])
    assert sum(whole[:keep].count(f"{name},\n".encode()) for name in CLASSES) <= len(kept)
    again.put("/music/new.mp3", "jazz", None)
    assert list(opened(folder).genres) == [*kept, "/music/new.mp3"]


def test_a_cut_row_is_reported_and_no_reader_sees_it(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("path,genre,group\n/music/a.mp3,jazz,\n/music/b.mp3,ro")
    corrections = opened(tmp_path)
    assert corrections.incomplete == "/music/b.mp3,ro"
    assert scanned(tmp_path / NAME) == {"/music/a.mp3": ("jazz", None)}
    (tmp_path / NAME).write_text("path,genre,group\n/music/a.mp3,jazz,ann")  # an editor left out the line break
    assert opened(tmp_path).incomplete == ""
    assert opened(tmp_path).genres == {"/music/a.mp3": "jazz"}


def test_columns_and_rows_that_a_person_added_are_kept(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("path,split,genre,group\r\n/music/a.mp3,test,jazz,ann\r\n/other/z.mp3,train,rock,\r\n")
    opened(tmp_path).put("/music/a.mp3", "rock", "bob")
    rows = list(csv.DictReader((tmp_path / NAME).read_text().splitlines()))
    assert rows == [
        {"path": "/other/z.mp3", "split": "train", "genre": "rock", "group": ""},
        {"path": "/music/a.mp3", "split": "test", "genre": "rock", "group": "ann"},
    ]


@pytest.mark.parametrize(
    "content", [b"path,genre\na,b\n", b"path,genre,group\na\n", b"path,genre,group\n,b,\n", b"\xff\n"]
)
def test_other_files_are_refused_and_left_as_they_are(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(ArtifactError):
        opened(tmp_path)
    assert (tmp_path / NAME).read_bytes() == content


@pytest.fixture
def review(tmp_path: Path) -> Review:
    write_tags(tmp_path, [Tagged(path, "rock", 0.9, "Ann") for path in PATHS])
    return reopened(tmp_path)


def reopened(output: Path) -> Review:
    tags = Location.of(output) / "tags"
    return Review(Collection.open(tags, list(CLASSES)), opened(output))


def test_a_second_start_continues_with_all_decisions_and_new_genres(review: Review, tmp_path: Path) -> None:
    review.decide(0, "jazz")
    review.decide(1, "polka", is_new=True)
    review.corrections.put("/elsewhere.mp3", "rock", None)
    again = reopened(tmp_path)
    assert again.reviewed == 2
    assert again.collection.genres == ["rock", "blues", "jazz", "polka"]
    assert again.undo() is None
    assert again.decide(2, "Polka").genre == "polka"
    assert len(opened(tmp_path).genres) == 4
    assert (tmp_path / NAME).read_text().count(",ann\n") == 3


def test_undo_takes_back_decisions_one_by_one(review: Review, tmp_path: Path) -> None:
    review.decide(0, "jazz")
    review.decide(0, "blues")
    first, second, third = review.undo(), review.undo(), review.undo()
    assert first is not None
    assert second is not None
    assert (first.genre, second.genre, third) == ("jazz", None, None)
    assert review.reviewed == 0
    assert opened(tmp_path).genres == {}


def test_a_new_genre_that_no_track_has_any_longer_is_removed(review: Review) -> None:
    genres = list(review.collection.genres)
    review.decide(0, "pokla", is_new=True)
    review.decide(1, "polka", is_new=True)
    review.decide(2, "polka")
    review.undo()
    assert review.collection.genres == [*genres, "pokla", "polka"]  # another track has it
    review.decide(0, "jazz")
    assert review.collection.genres == [*genres, "polka"]
    assert [track.genre for track in review.collection.page(Filter("reviewed")).tracks] == ["jazz", "polka"]
    review.undo()
    assert review.collection.genres == [*genres, "polka", "pokla"]
    review.undo()
    review.undo()
    assert review.collection.genres == genres


@pytest.mark.parametrize("text", ["", "  ", "a" * 61, "=1+1", "@x", "-", "unknown", "Unknown", "a\x00b"])
def test_texts_that_are_no_genre_are_refused(review: Review, text: str) -> None:
    with pytest.raises(GenreNameError):
        review.decide(0, text, is_new=True)
    assert review.reviewed == 0


def test_a_new_genre_must_be_meant(review: Review) -> None:
    with pytest.raises(NewGenreError):
        review.decide(0, "jzaz")
    assert review.decide(0, " JAZZ ").genre == "jazz"
    assert review.decide(0, "free   jazz", is_new=True).genre == "free jazz"


@pytest.mark.parametrize("text", ["hiphop", "Hip hop", "HIP_HOP", "híp-hop"])
def test_case_accents_spaces_and_punctuation_do_not_make_a_new_genre(review: Review, text: str) -> None:
    review.decide(0, "Hip-Hop", is_new=True)
    assert review.decide(1, text).genre == "Hip-Hop"


def test_a_decision_that_cannot_be_saved_changes_nothing(review: Review, tmp_path: Path) -> None:
    review.decide(0, "jazz")
    before = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).unlink()
    (tmp_path / NAME).mkdir()  # nothing can replace it
    with pytest.raises(OSError, match="directory"):
        review.decide(1, "jazz")
    with pytest.raises(OSError, match="directory"):
        review.undo()
    assert review.reviewed == 1
    (tmp_path / NAME).rmdir()
    (tmp_path / NAME).write_bytes(before)
    assert review.undo() is not None
    assert opened(tmp_path).genres == {}
