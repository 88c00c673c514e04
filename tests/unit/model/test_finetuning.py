"""Training that starts from a saved model on other genres."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from making import SMALL_MODELS, make_clips, statistics

from genre import architectures
from genre.config import load
from genre.errors import ArtifactError
from genre.evaluation import metrics
from genre.features import Clips, Manifest
from genre.model import checkpoint, finetuning
from genre.model.card import ModelCard, read_card
from genre.model.classifier import Classifier, head_of, predict
from genre.settings import TrainSettings
from genre.storage import Location
from genre.training import experiment
from genre.training.experiment import Data, Experiment
from genre.training.trainer import Trainer

MODELS = SMALL_MODELS | {"cnn": {"width": 8, "depth": 3}}
PLAIN = {
    "batch_size": 8,
    "window_seconds": 0.5,
    "eval_windows": 2,
    "mixup": 0,
    "gain_db": 0,
    "time_mask": 0,
    "mel_mask": 0,
    "label_smoothing": 0,
    "dtype": "fp32",
}


def untrained(name: str, clips: Clips, genres: str) -> tuple[ModelCard, Classifier]:
    card = ModelCard(
        architecture=name,
        params=architectures.params(name, MODELS[name]).model_dump(mode="json"),
        classes=list(genres),
        features={"spectrogram": {"n_mels": 16}},
        fingerprint="same",
        shape=clips.shape,
        window_seconds=0.5,
        eval_windows=2,
    )
    torch.manual_seed(0)
    return card, checkpoint.build(card, *statistics(clips))


def train(classifier: Classifier, clips: Clips, classes: int, epochs: int, rate: float = 0.01) -> Classifier:
    settings = TrainSettings(epochs=epochs, learning_rate=rate, **PLAIN)
    trainer = Trainer(classifier, clips, clips, classes, settings)
    for _ in trainer.run():
        pass
    return trainer.use_best()


@pytest.mark.parametrize("name", architectures.names())
def test_only_the_last_layer_is_not_copied(name: str) -> None:
    clips = make_clips()
    _, saved = untrained(name, clips, "abc")
    with torch.no_grad():
        for parameter in saved.parameters():
            parameter.add_(0.5)
    _, classifier = untrained(name, clips, "abcde")
    not_copied = finetuning.start_from(classifier, saved, same_genres=False, freeze=False)
    head = head_of(classifier)
    assert set(not_copied) == {f"{head}.weight", f"{head}.bias"}
    assert classifier.get_submodule(head).out_features == 5
    for key, tensor in classifier.state_dict().items():
        assert key in not_copied or torch.equal(tensor, saved.state_dict()[key])


def test_the_same_genres_copy_the_complete_model() -> None:
    clips = make_clips()
    _, saved = untrained("cnn", clips, "abc")
    _, classifier = untrained("cnn", clips, "abc")
    assert finetuning.start_from(classifier, saved, same_genres=True, freeze=False) == []
    assert all(
        torch.equal(a, b) for a, b in zip(classifier.state_dict().values(), saved.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("name", ["cnn", "crnn_attention"])
def test_with_a_frozen_body_only_the_last_layer_changes(name: str) -> None:
    """The saved model has three genres, the new corpus four others."""
    old, new = make_clips(tracks=24, seed=1), make_clips(tracks=32, classes=4, seed=2)
    saved = train(untrained(name, old, "abc")[1], old, 3, epochs=10)
    _, classifier = untrained(name, new, "wxyz")
    finetuning.start_from(classifier, saved, same_genres=False, freeze=True)
    before = {key: tensor.clone() for key, tensor in classifier.state_dict().items()}
    trained = train(classifier, new, 4, epochs=30, rate=0.05)
    head = head_of(classifier)
    changed = {key for key, tensor in trained.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed == {f"{head}.weight", f"{head}.bias"}
    answers = metrics.decisions(predict(trained, new, 22, 2))
    assert np.mean(answers == new.labels) > 0.5


def test_all_layers_are_trained() -> None:
    old, new = make_clips(tracks=24, seed=1), make_clips(tracks=32, classes=4, seed=2)
    _, saved = untrained("cnn", old, "abc")
    _, classifier = untrained("cnn", new, "wxyz")
    finetuning.start_from(classifier, saved, same_genres=False, freeze=False)
    before = {key: parameter.clone() for key, parameter in classifier.named_parameters()}
    trained = train(classifier, new, 4, epochs=1)
    assert all(not torch.equal(parameter, before[key]) for key, parameter in trained.named_parameters())


def test_a_saved_model_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    card, _ = untrained("cnn", make_clips(), "abc")
    location = Location.of(tmp_path)
    assert finetuning.card_from(replace(card, classes=["x"]), card, location) == card
    with pytest.raises(ArtifactError, match=r"trained on other features: spectrogram\.n_mels is 16, expected 64"):
        finetuning.card_from(
            replace(card, fingerprint="other", features={"spectrogram": {"n_mels": 64}}), card, location
        )
    with pytest.raises(ArtifactError, match=r"is a crnn, architecture is cnn; write architecture=crnn"):
        finetuning.card_from(replace(card, architecture="crnn"), card, location)
    _, wide = untrained("cnn", make_clips(bins=32), "abc")
    _, narrow = untrained("resnet", make_clips(), "abc")
    with pytest.raises(ArtifactError, match="the saved weights do not fit"):
        finetuning.start_from(narrow, wide, same_genres=True, freeze=False)


@pytest.mark.parametrize("norm", [True, False])
def test_training_starts_from_the_folder_of_init_from(norm: bool, tmp_path: Path) -> None:
    """As the train job does: a model of three genres, then one of four others."""
    common = ("train.window_seconds=0.5", "train.batch_size=8", "train.epochs=2", "architectures.cnn.width=8")
    old, new = data_of(make_clips(tracks=24, seed=1), "abc"), data_of(make_clips(tracks=32, classes=4, seed=2), "wxyz")
    first = Experiment.of(load(None, (*common, "architectures.cnn.depth=3", f"train.window_norm={norm}")))
    card, trainer = experiment.trainer_for(first, old, torch.device("cpu"))
    list(trainer.run())
    experiment.save_best(Location.of(tmp_path), card, trainer)
    _, saved = checkpoint.load(Location.of(tmp_path))
    config = load(None, (*common, f"train.init_from={tmp_path}", "train.freeze=true", f"train.window_norm={not norm}"))
    assert config.train.init_from == str(tmp_path)
    started, trainer = experiment.trainer_for(Experiment.of(config), new, torch.device("cpu"))
    assert started.params["depth"] == 3
    assert started.classes == list("wxyz")
    list(trainer.run())
    experiment.save_best(Location.of(tmp_path / "new"), started, trainer)
    recorded = read_card(Location.of(tmp_path / "new"))[0]
    assert recorded.window_norm is recorded.facts["settings"]["train"]["window_norm"] is norm
    head = head_of(trainer.classifier)
    state = trainer.use_best().state_dict()
    for key, tensor in saved.state_dict().items():
        assert key.startswith(f"{head}.") or torch.equal(state[key], tensor)
    assert state[f"{head}.weight"].shape[0] == 4


def data_of(clips: Clips, genres: str) -> Data:
    settings = {"spectrogram": {"n_mels": 16}}
    manifest = Manifest(classes=list(genres), settings=settings, fingerprint="same", shape=clips.shape)
    return Data(clips, clips, *statistics(clips), manifest)
