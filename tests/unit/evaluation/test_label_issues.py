"""Labels that are probably wrong are found, and right ones are left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from grouped import TRAIN, write_grouped
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from making import SMALL_MODELS, load, statistics

from genre import architectures
from genre.evaluation.label_issues import find_label_issues
from genre.features.splitting.folds import Fold
from genre.training.experiment import Data, Experiment
from genre.training.repetition import Repetition

CLASSES = 8


def answers(rng: np.random.Generator, truth: np.ndarray, skill: float) -> np.ndarray:
    """Return probabilities of a model that is right in a share `skill`.

    Where it is wrong, it still gives something to the right genre, as networks on real and on composed music do.
    """
    chosen = np.where(rng.random(len(truth)) < skill, truth, rng.integers(0, CLASSES, len(truth)))
    logits = rng.normal(size=(len(truth), CLASSES))
    logits[np.arange(len(truth)), chosen] += 3 + rng.normal(size=len(truth))
    logits[np.arange(len(truth)), truth] += 2
    table = np.exp(logits)
    return np.asarray(table / table.sum(axis=1, keepdims=True))


def with_wrong(
    rng: np.random.Generator, truth: np.ndarray, share: float, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels with a share of them replaced by others, and the tracks whose labels were."""
    flipped = rng.choice(len(truth), round(share * len(truth)), replace=False)
    given_labels = truth.copy()
    given_labels[flipped] = (truth[flipped] + rng.integers(1, classes, len(flipped))) % classes
    return given_labels, flipped


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_flipped_labels_are_found(rng: np.random.Generator, share: float) -> None:
    truth = np.repeat(np.arange(CLASSES), 50)
    precision, suggestions = [], []
    for _ in range(20):
        probabilities = answers(rng, truth, skill=0.9)
        given_labels, flipped = with_wrong(rng, truth, share, CLASSES)
        issues = find_label_issues(given_labels, probabilities)
        first = issues.tracks[: len(flipped)]
        is_wrong = np.isin(first, flipped)
        precision.append(is_wrong.sum() / len(flipped))
        suggestions.append((issues.suggested[: len(flipped)] == truth[first])[is_wrong].mean())
    assert np.mean(precision) >= 0.6
    assert np.mean(suggestions) > 0.9


def test_labels_that_networks_of_other_folds_contradict_are_found(tmp_path: Path, rng: np.random.Generator) -> None:
    features = write_grouped(tmp_path, tracks=73, group_size=1)
    ids = features.labelled()["track_id"].to_pylist()
    truth = features.labels(features.labelled()).to_numpy().astype(np.int64)
    given_labels, flipped = with_wrong(rng, truth, 0.1, 3)
    of_id = dict(zip(ids, given_labels.tolist(), strict=True))
    params = architectures.params("cnn", SMALL_MODELS["cnn"]).model_dump(mode="json")
    settings = TRAIN.model_copy(update={"epochs": 15})
    training = Repetition(Experiment("cnn", params, settings), settings.epochs, seconds_per_epoch=0)
    probabilities = np.zeros((len(ids), 3), np.float32)
    for number in (1, 2):
        clips = load(features.of_fold(Fold(number, 2, 0)), "train", "valid")
        for split, part in clips.items():
            clips[split] = replace(part, labels=np.array([of_id[track] for track in part.track_ids.to_pylist()]))
        data = Data(clips["train"], clips["valid"], *statistics(clips["train"]), features.manifest)
        rows = [ids.index(track) for track in data.valid.track_ids.to_pylist()]
        probabilities[rows] = training.predictions(data, torch.device("cpu"))
    is_wrong = np.isin(find_label_issues(given_labels, probabilities).tracks, flipped)
    assert is_wrong.mean() >= 0.6
    assert is_wrong.sum() >= len(flipped) / 2


def test_a_model_that_is_always_right_has_no_issue() -> None:
    truth = np.repeat(np.arange(CLASSES), 3)
    assert not len(find_label_issues(truth, np.eye(CLASSES)[truth]).tracks)


def test_a_genre_without_tracks_is_never_suggested() -> None:
    probabilities = np.tile([0.2, 0.1, 0.7], (4, 1))
    assert find_label_issues([0, 0, 1, 1], probabilities).suggested.tolist() == [0, 0]


def test_rows_must_be_those_of_the_labels() -> None:
    with pytest.raises(ValueError, match="give a row for each track"):
        find_label_issues([0, 1], np.ones((3, 2)) / 2)
    assert not len(find_label_issues(np.zeros(0, int), np.zeros((0, 3))).tracks)


@given(
    table=arrays.arrays(np.float64, st.tuples(st.integers(1, 30), st.just(4)), elements=st.floats(0.01, 1)),
    data=st.data(),
)
def test_issues_are_ordered_and_invariant_to_the_order_of_tracks(table: np.ndarray, data: st.DataObject) -> None:
    truth = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(table), max_size=len(table))))
    issues = find_label_issues(truth, table)
    assert (np.diff(issues.p_label) >= 0).all()
    assert (issues.p_suggested > issues.p_label).all()
    assert (issues.suggested != truth[issues.tracks]).all()
    np.testing.assert_array_equal(issues.p_label, table[issues.tracks, truth[issues.tracks]])
    np.testing.assert_array_equal(issues.p_suggested, table[issues.tracks, issues.suggested])
    order = np.array(data.draw(st.permutations(range(len(table)))))
    again = find_label_issues(truth[order], table[order])
    np.testing.assert_array_equal(again.p_label, issues.p_label)  # of equal ones, the first tracks are listed
