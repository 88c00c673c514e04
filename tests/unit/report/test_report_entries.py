"""Entries that are computed from others or from the tracks: the ensemble and the majority."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import boards
import numpy as np
import pyarrow as pa
import pytest
from grouped import write_grouped
from saving import save_model

from genre.features import Features, Manifest, Shape
from genre.model.card import read_card, write_card
from genre.model.saved_model import SavedModel
from genre.report import entries
from genre.report.entries import SavedRuns
from genre.storage import Location

FAST = boards.network("cnn", 0.7, parameters=10, flops=100, clips_per_second=300.0, latency_ms=4.0)
SLOW = boards.network("vgg16", 0.5, seeds=(0, 1, 2), parameters=90, flops=900, clips_per_second=100.0, latency_ms=12.0)


def test_the_ensemble_averages_seed_by_seed_and_costs_all_of_its_networks() -> None:
    row = entries.ensemble([FAST, SLOW], {"-12 dB": 0.5})
    assert [run.seed for run in row.runs] == [0, 1]
    for run, fast, slow in zip(row.runs, FAST.runs, SLOW.runs, strict=False):
        np.testing.assert_allclose(run.probabilities, (fast.probabilities + slow.probabilities) / 2, atol=2e-5)
    assert (row.parameters, row.flops, row.latency_ms) == (100, 1000, 16.0)
    assert row.clips_per_second == pytest.approx(75)


@pytest.mark.parametrize(("split", "note"), [("random", "may be in several splits"), ("official", "was not checked")])
def test_a_note_says_that_artists_are_unknown(tmp_path: Path, split: str, note: str) -> None:
    known = write_grouped(tmp_path / "features")
    assert entries.unknown_artists(known) == []
    tracks = known.tracks()
    bare = tracks.set_column(tracks.schema.get_field_index("group"), "group", pa.nulls(len(tracks), pa.string()))
    manifest = dataclasses.replace(known.manifest, split=split)
    (text,) = entries.unknown_artists(Features(known.folder, manifest, bare))
    assert text.startswith("Artists are unknown: ")
    assert note in text


def test_a_cost_unknown_for_one_network_is_unknown_for_the_ensemble() -> None:
    row = entries.ensemble([FAST, dataclasses.replace(SLOW, clips_per_second=None, flops=None)], {})
    assert (row.parameters, row.flops, row.clips_per_second) == (100, None, None)


def test_the_ensemble_has_only_the_seeds_of_all_networks() -> None:
    late = boards.network("vgg16", 0.5, seeds=(1, 2))
    row = entries.ensemble([FAST, late], {})
    assert [run.seed for run in row.runs] == [1]
    expected = (FAST.runs[1].probabilities + late.runs[0].probabilities) / 2
    np.testing.assert_allclose(row.runs[0].probabilities, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("facts", "counts"),
    [
        ({}, [10, 10, 9]),
        ({"trained_on": ["train", "valid"]}, [14, 14, 13]),
        ({"trained_on": ["train", "valid"], "held_out": {"number": 1, "count": 3, "seed": 0}}, [8, 10, 9]),
    ],
)
def test_the_majority_is_that_of_the_tracks_which_the_networks_learned_from(
    tmp_path: Path, facts: dict[str, Any], counts: list[int]
) -> None:
    features = write_grouped(tmp_path / "features", 54, splits=("train", "train", "valid", "test"))
    model = Location.of(save_model(tmp_path / "model"))
    card, weights = read_card(model)
    write_card(model, dataclasses.replace(card, facts=facts), weights)
    row = entries.majority(features, "test", [SavedRuns("cnn", [SavedModel.read(model)])])
    assert len(row.runs[0].probabilities) == len(features.tracks("test"))
    np.testing.assert_allclose(row.runs[0].probabilities[0] * sum(counts), counts, atol=1e-3)


@pytest.mark.parametrize("held_out", [{}, {"held_out": {"number": 1, "count": 3, "seed": 0}}])
def test_the_majority_knows_no_track_that_is_judged(tmp_path: Path, held_out: dict[str, Any]) -> None:
    """The validation split of other features than those of the models."""
    features = write_grouped(tmp_path / "features", splits=("train", "valid"), tracks=35)
    model = Location.of(save_model(tmp_path / "model"))
    card, weights = read_card(model)
    write_card(model, dataclasses.replace(card, facts={"trained_on": ["train", "valid"]} | held_out), weights)
    row = entries.majority(features, "valid", [SavedRuns("cnn", [SavedModel.read(model)])])
    genres = features.tracks("train")["genre"].to_pylist()
    counts = [genres.count(genre) for genre in features.classes]
    np.testing.assert_allclose(row.runs[0].probabilities[0] * len(genres), counts, atol=1e-3)


@pytest.mark.parametrize(
    ("root", "name"),
    [
        ("/home/me/my music/gtzan/", "folder gtzan"),
        ("s3://bucket/fma", "folder fma"),
        ("music/rock", "folder music/rock"),
        ("", "folder"),
    ],
)
def test_the_corpus_is_named_without_private_folders(root: str, name: str, tmp_path: Path) -> None:
    shape = Shape(bins=4, frames=8, range_db=80.0, frame_seconds=0.01)
    corpus = {"kind": "folder", "root": root}
    manifest = Manifest(fingerprint="", corpus=corpus, shape=shape, classes=["a", "b"])
    columns = {key: pa.array([], pa.string()) for key in ("track_id", "genre", "split", "group")}
    features = Features(Location.of(tmp_path), manifest, pa.table(columns | {"clips": pa.array([], pa.int32())}))
    assert entries.corpus_facts(features).name == name
