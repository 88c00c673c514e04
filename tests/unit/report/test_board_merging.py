from __future__ import annotations

import dataclasses
from pathlib import Path

import boards
import numpy as np
import pytest
from boards import TRUTH, board, classical, majority, network

from genre.errors import ArtifactError
from genre.report import Board, Entry, SeedRun, merge, read_board, tabulate, write
from genre.storage import Location


def reversed_board(original: Board) -> Board:
    """The same board with its tracks in the opposite order."""
    entries = [
        dataclasses.replace(
            entry, runs=[dataclasses.replace(run, probabilities=run.probabilities[::-1]) for run in entry.runs]
        )
        for entry in original.entries
    ]
    return dataclasses.replace(
        original, track_ids=original.track_ids[::-1], truth=original.truth[::-1], entries=entries
    )


def shuffled_split(*entries: Entry) -> Board:
    tracks = [f"other/{i}" for i in range(len(TRUTH))]
    facts = dataclasses.replace(board().corpus, split="official")
    return board(*entries, track_ids=tracks, corpus=facts, notes=["Of the other."])


def test_a_single_board_is_unchanged() -> None:
    full = boards.everything()
    assert [entry.name for entry in merge({"a": full}).entries] == [entry.name for entry in full.entries]
    assert merge({"a": full}).notes == full.notes


def test_neighbours_follow_their_tracks_into_another_order() -> None:
    first, entry = board(network("cnn", 0.5)), boards.neighbours()
    nearest = entry.runs[0].neighbours
    assert nearest is not None
    run = dataclasses.replace(entry.runs[0], neighbours=nearest.take(np.arange(len(TRUTH))[::-1]))
    other = reversed_board(board(dataclasses.replace(entry, runs=[run])))
    merged = merge({"a": first, "b": other}).entries[-1].runs[0]
    assert merged.neighbours is not None
    np.testing.assert_array_equal(merged.neighbours.track_ids, nearest.track_ids)
    np.testing.assert_array_equal(merged.probabilities, entry.runs[0].probabilities)
    fewer = dataclasses.replace(run, neighbours=nearest.take(np.arange(3)))
    with pytest.raises(ArtifactError, match="neighbours of 3 tracks, not of 100"):
        board(dataclasses.replace(entry, runs=[fewer]))


def test_neighbours_of_a_network_with_a_new_name_have_one_too() -> None:
    first, entry = board(network("cnn", 0.5)), boards.neighbours()
    merged = merge({"a": first, "b": board(network("cnn", 0.9), entry)})
    assert [row.name for row in merged.entries] == ["cnn", "cnn (b)", f"{entry.name} (b)"]


def test_nothing_to_merge_is_refused() -> None:
    with pytest.raises(ArtifactError, match="nothing to merge"):
        merge({})


def test_rows_of_the_same_tracks_are_ranked_together_and_renamed_where_they_collide() -> None:
    first = board(network("cnn", 0.5), classical(0.3), majority(), search=boards.search(("cnn",)))
    second = board(
        network("cnn", 0.8), network("crnn", 0.7), classical(0.3), majority(), search=boards.search(("cnn", "crnn"))
    )
    merged = merge({"narrow": first, "wide": second})
    assert [entry.name for entry in merged.entries] == ["cnn", "mfcc_svm", "majority", "cnn (wide)", "crnn"]
    assert merged.compared == []
    assert tabulate(merged).rows[0].entry.name == "cnn (wide)"
    assert merged.search is not None
    assert merged.search.architectures == ["cnn", "cnn (wide)", "crnn"]
    assert merged.search.makespan_seconds == 600
    assert merged.search.concurrent == 2
    assert any("narrow, wide on the same tracks" in note for note in merged.notes)


def test_architectures_without_a_model_on_any_board_are_missing() -> None:
    first = board(network("cnn", 0.6), missing={"resnet": "died", "vgg16": "died"})
    second = board(network("resnet", 0.5), missing={"vgg16": "died again"})
    assert merge({"a": first, "b": second}).missing == {"vgg16": "died"}


def test_the_order_of_the_tracks_does_not_matter() -> None:
    first, second = board(network("cnn", 0.5)), board(network("resnet", 0.8))
    straight = merge({"a": first, "b": second})
    turned = merge({"a": first, "b": reversed_board(second)})
    for entry, other in zip(straight.entries, turned.entries, strict=True):
        np.testing.assert_array_equal(entry.runs[0].probabilities, other.runs[0].probabilities)


def test_rows_of_other_tracks_are_compared_without_ranks(tmp_path: Path) -> None:
    merged = merge({"first": boards.full(), "other": shuffled_split(network("resnet", 0.9), majority())})
    assert len(merged.entries) == len(boards.full().entries)
    (other,) = merged.compared
    assert (other.label, other.split, other.test_tracks) == ("other", "official", 100)
    assert [row.name for row in other.rows] == ["resnet", "majority"]
    assert other.rows[0].f1_low < other.rows[0].f1 < other.rows[0].f1_high
    assert "Of the other." not in merged.notes
    folder = Location.of(tmp_path)
    write(merged, folder)
    assert read_board(folder).compared == merged.compared


def test_other_genres_or_other_truth_are_other_tracks() -> None:
    first = board(network("cnn", 0.5))
    relabelled = dataclasses.replace(first, truth=(TRUTH + 1) % 4)
    renamed = dataclasses.replace(first, classes=["a", "b", "c", "d"])
    merged = merge({"a": first, "b": relabelled, "c": renamed})
    assert [other.label for other in merged.compared] == ["b", "c"]


def test_notes_name_differences_between_the_machines() -> None:
    first = board(network("cnn", 0.5))
    second = dataclasses.replace(
        board(network("crnn", 0.5)), hardware="a GPU", commit="fff", versions={"torch": "3"}, created="2030"
    )
    merged = merge({"a": first, "b": second})
    assert merged.hardware == "2 CPU cores; a GPU"
    assert merged.commit == "0123abc; fff"
    assert merged.created == "2030"
    assert sum("different" in note for note in merged.notes) == 2
    assert len(merged.commands) == 1


def test_an_entry_with_more_seeds_is_another_row() -> None:
    entry = network("cnn", 0.5)
    more = dataclasses.replace(entry, runs=[*entry.runs, SeedRun(7, entry.runs[0].probabilities)])
    assert [e.name for e in merge({"a": board(entry), "b": board(more)}).entries] == ["cnn", "cnn (b)"]
