"""Which tracks a saved model learned from, and who is refused for it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from grouped import TRAIN, save_trained, write_grouped

from genre.errors import ConfigError
from genre.features import Features
from genre.features.cache import ClipCache
from genre.model import calibration, provenance
from genre.model.card import read_card, write_card
from genre.settings import CacheSettings
from genre.storage import Location
from genre.training import experiment
from genre.training.experiment import Data


@pytest.fixture
def features(tmp_path: Path) -> Features:
    return write_grouped(tmp_path / "features")


@pytest.fixture
def model(tmp_path: Path, features: Features) -> Location:
    """Return a saved model that also learned from the validation tracks, as its card says."""
    folder = Location.of(tmp_path / "model")
    save_trained(folder, Data.open(ClipCache.of(features, CacheSettings())))
    card, weights = read_card(folder)
    write_card(folder, replace(card, facts=card.facts | {"trained_on": ["train", "valid"]}), weights)
    return folder


def moved(features: Features, target: Path) -> Features:
    """Return a copy of the features with another genre of the first track, and without the last two tracks."""
    shutil.copytree(str(features.folder), target)
    tracks = pq.read_table(target / "tracks.parquet")
    genres = pa.array(["b", *tracks["genre"].to_pylist()[1:]])
    pq.write_table(tracks.set_column(1, "genre", genres).slice(0, len(tracks) - 2), target / "tracks.parquet")
    return Features.open(Location.of(target))


def renamed(features: Features, target: Path) -> Features:
    """Return a copy of the features with other tracks, of which two have the same names."""
    shutil.copytree(str(features.folder), target)
    tracks = pq.read_table(target / "tracks.parquet")
    names = [name if row < 2 else f"other {name}" for row, name in enumerate(tracks["track_id"].to_pylist())]
    tracks = tracks.set_column(0, "track_id", pa.array(names)).append_column("clips", pa.array([2] * len(tracks)))
    pq.write_table(tracks, target / "tracks.parquet")
    return Features.open(Location.of(target))


def test_the_features_of_a_model_are_known_by_their_tracks(features: Features, model: Location, tmp_path: Path) -> None:
    for known in (features, moved(features, tmp_path / "moved")):
        assert provenance.has_learned(model, known, ["valid"])
        assert not provenance.has_learned(model, known, ["test"])
    assert not provenance.has_learned(model, renamed(features, tmp_path / "other"), ["train", "valid"])


def test_a_model_whose_tracks_were_divided_again_may_know_what_judges(
    features: Features, model: Location, tmp_path: Path
) -> None:
    card, weights = read_card(model)
    write_card(model, replace(card, facts=card.facts | {"trained_on": ["train"]}), weights)
    assert not provenance.has_learned(model, features, ["valid", "test"])
    shutil.copytree(str(features.folder), tmp_path / "again")
    tracks = pq.read_table(tmp_path / "again/tracks.parquet")
    turned = {"train": "valid", "valid": "test", "test": "train", "excluded": "excluded"}
    column = tracks.schema.get_field_index("split")
    tracks = tracks.set_column(column, "split", pa.array([turned[split] for split in tracks["split"].to_pylist()]))
    pq.write_table(tracks, tmp_path / "again/tracks.parquet")
    assert provenance.has_learned(model, Features.open(Location.of(tmp_path / "again")), ["valid", "test"])


def test_a_part_of_its_music_is_known_to_a_model_that_held_out_all_of_it_in_folds(
    features: Features, model: Location, tmp_path: Path
) -> None:
    tracks = features.tracks().filter(pc.is_in(features.tracks()["split"], pa.array(["train", "valid"])))
    labels, probabilities = features.labels(tracks).to_numpy(), np.full((len(tracks), 3), 1 / 3, np.float32)
    calibration.save(model, tracks["track_id"].to_pylist(), labels, probabilities, folds=3)
    shutil.copytree(str(features.folder), tmp_path / "part")
    rows = pq.read_table(tmp_path / "part" / "tracks.parquet")
    part = rows.filter(pc.is_in(rows["track_id"], tracks["track_id"][:4].combine_chunks()))
    pq.write_table(part, tmp_path / "part" / "tracks.parquet")
    assert provenance.has_learned(model, Features.open(Location.of(tmp_path / "part")), ["valid"])


def test_a_model_without_held_out_tracks_is_not_known(features: Features, model: Location) -> None:
    (model / "validation.parquet").delete()
    assert provenance.has_learned(model, features, ["valid"]) is None


def test_no_training_starts_from_a_model_that_knows_what_it_is_judged_by(
    features: Features, model: Location, tmp_path: Path
) -> None:
    started = TRAIN.model_copy(update={"init_from": str(model)})
    with pytest.raises(
        ConfigError, match="learned from tracks that would judge the new model, those of valid in "
    ) as error:
        experiment.check_start(started, features, ["valid"])
    assert "\n" not in str(error.value)
    experiment.check_start(started, renamed(features, tmp_path / "other"), ["valid"])
    experiment.check_start(TRAIN, features, ["valid"])
    card, weights = read_card(model)
    write_card(model, replace(card, facts=card.facts | {"trained_on": ["train"]}), weights)
    experiment.check_start(started, features, ["valid"])
    with pytest.raises(ConfigError, match="those of train and valid in "):
        experiment.check_start(started, features, ["train", "valid"])
    (model / "validation.parquet").delete()
    with pytest.raises(ConfigError, match="may have learned from tracks that would judge the new model") as error:
        experiment.check_start(started, features, ["train", "valid"])
    assert "\n" not in str(error.value)
    experiment.check_start(started, features, ["valid"])
