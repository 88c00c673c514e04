"""The training of a saved model, repeated: the same weights on the same tracks, and no look at those held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from grouped import save_trained, write_grouped
from making import statistics

from genre.errors import ArtifactError
from genre.features import Features
from genre.features.cache import ClipCache
from genre.features.splitting.folds import Fold
from genre.model.card import read_card
from genre.settings import CacheSettings
from genre.storage import Location
from genre.training import experiment
from genre.training.experiment import Data
from genre.training.repetition import Repetition

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Features:
    return write_grouped(tmp_path_factory.mktemp("grouped") / "features")


@pytest.fixture(scope="module")
def model(features: Features) -> Location:
    folder = features.folder / "../model"
    save_trained(folder, opened(features))
    return folder


def opened(features: Features) -> Data:
    return Data.open(ClipCache.of(features, CacheSettings()))


def test_a_repetition_on_the_same_tracks_predicts_like_the_saved_model(features: Features, tmp_path: Path) -> None:
    folder, data = Location.of(tmp_path), opened(features)
    trainer = save_trained(folder, data)
    repetition = Repetition.of(read_card(folder)[0], folder)
    assert repetition.epochs == trainer.history[-1].best_epoch
    np.testing.assert_array_equal(repetition.predictions(data, CPU), trainer.best_predictions())


def test_a_repetition_of_a_model_of_an_earlier_version_normalises_no_window(model: Location) -> None:
    """Its card has no word on it, and the default of the setting changed since."""
    card, _ = read_card(model)
    train = {key: value for key, value in card.facts["settings"]["train"].items() if key != "window_norm"}
    for norm in (False, True):
        facts = card.facts | {"settings": {"train": train}}
        repeated = Repetition.of(replace(card, window_norm=norm, facts=facts), model)
        assert repeated.experiment.train.window_norm is norm


def test_networks_learn_from_no_track_group_or_audio_that_they_predict(features: Features) -> None:
    predicted: list[str] = []
    for number in range(1, 4):
        data = opened(features.of_fold(Fold(number, 3, 0)))
        trained, judged = data.train.track_ids.to_pylist(), data.valid.track_ids.to_pylist()
        assert sorted(trained + judged) == features.labelled()["track_id"].to_pylist()
        assert not set(data.train.groups.to_pylist()) & set(data.valid.groups.to_pylist())
        assert len({"track000", "track006"} & set(trained)) != 1  # they sound the same
        mean, std = statistics(data.train)
        np.testing.assert_array_equal(data.mean, mean)
        np.testing.assert_array_equal(data.std, std)
        predicted += judged
    assert sorted(predicted) == features.labelled()["track_id"].to_pylist()


def test_predictions_do_not_depend_on_the_labels_of_the_tracks_that_are_judged(
    features: Features, model: Location
) -> None:
    repetition = Repetition.of(read_card(model)[0], model)
    data = opened(features.of_fold(Fold(1, 3, 0)))
    expected = repetition.predictions(data, CPU)
    relabelled = replace(data, valid=replace(data.valid, labels=(data.valid.labels + 1) % 3))
    np.testing.assert_array_equal(repetition.predictions(relabelled, CPU), expected)
    assert expected.shape == (len(data.valid.track_ids), 3)


def test_a_planted_leak_is_refused(features: Features) -> None:
    view = features.of_fold(Fold(1, 3, 0))
    split = view.tracks()["split"].to_pylist()
    row = split.index("valid")
    split[row] = "train"
    tracks = view.tracks().drop_columns("split").append_column("split", [split])
    with pytest.raises(ArtifactError, match="leakage"):
        experiment.check_leakage(Features(features.folder, features.manifest, tracks))


def test_a_card_without_its_training_is_refused(model: Location) -> None:
    card, _ = read_card(model)
    with pytest.raises(ArtifactError, match="does not say how the model was trained"):
        Repetition.of(replace(card, facts={}), model)
