"""From a features folder and a configuration to a trained and saved model; the steps that jobs share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from genre import architectures, devices, features, memory
from genre.config import Config, differences
from genre.errors import ArtifactError
from genre.features import Clips, Float32, splits
from genre.features.windows import Shard
from genre.model import calibration, checkpoint, finetuning
from genre.model.classifier import Classifier, predict, statistics
from genre.model.saved_model import ModelCard
from genre.storage import Location
from genre.training.trainer import Trainer


@dataclass(frozen=True)
class Data:
    """What training needs, in arrays that all processes of a machine can share."""

    train: Clips
    valid: Clips
    mean: Float32  # (bins,) dB, of the training split
    std: Float32
    manifest: dict[str, Any]

    @property
    def classes(self) -> list[str]:
        return list(self.manifest["classes"])


def load_data(folder: Location, needed: Sequence[str] = ("train", "valid")) -> Data:
    """Training and validation clips, after the gates: finished, no leakage, every class has training tracks.

    `needed` names the splits that must not be empty; who means to judge on the test split asks for it here.
    """
    manifest = features.read_manifest(folder)
    tracks = features.read_tracks(folder)
    check_tracks(tracks, manifest["classes"], needed)
    loaded = features.load_splits(folder, ["train", "valid"])
    mean, std = statistics(loaded["train"])
    return Data(loaded["train"], loaded["valid"], mean, std, manifest)


def check_tracks(tracks: Any, classes: list[str], needed: Sequence[str] = features.SPLITS) -> None:
    """The leakage gate, and enough tracks to train. Raises `ArtifactError` or `ConfigError`."""
    view = tracks.select(["track_id", "genre", "group", "split"]).append_column("content", tracks["sound"])
    splits.check(view)
    splits.require_trainable(view, classes, needed)


def check_settings(config: Config, manifest: dict[str, Any], folder: Location) -> None:
    """Refuse features made with other settings than the configuration asks for, naming what differs."""
    wanted = {"audio": config.audio.model_dump(mode="json"), "spectrogram": config.spectrogram.model_dump(mode="json")}
    if "audio" not in manifest["settings"]:
        return  # spectrograms that somebody brought: the folder's own description is all there is
    different = differences(wanted, manifest["settings"])
    if different:
        raise ArtifactError(f"{folder} holds features with other settings: {different[0]}; run prepare, or correct it")


def trainer_for(
    config: Config,
    data: Data,
    device: torch.device,
    shard: Shard = Shard(),
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
) -> tuple[ModelCard, Trainer]:
    """A trainer of `config.model`: fresh weights that follow from `config.seed`, or those of `train.init_from`."""
    params = architectures.params(config.model.name, config.models.get(config.model.name, {})).model_dump(mode="json")
    card = ModelCard(
        architecture=config.model.name,
        params=params,
        classes=data.classes,
        features=data.manifest["settings"],
        fingerprint=data.manifest["fingerprint"],
        shape=data.train.shape,
        window_seconds=config.train.window_seconds,
        eval_windows=config.train.eval_windows,
    )
    memory.reset_peak()
    torch.manual_seed(config.seed)
    card, classifier = _start(config, card, data)
    classifier = classifier.to(device)
    trainer = Trainer(classifier, data.train, data.valid, len(data.classes), config.train, config.seed, shard, wrap)
    return card, trainer


def _start(config: Config, card: ModelCard, data: Data) -> tuple[ModelCard, Classifier]:
    """The classifier that training starts from, and the card that describes it."""
    if not config.train.init_from:
        return card, checkpoint.build(card, data.mean, data.std)
    place = Location.of(config.train.init_from)
    source, saved = checkpoint.load(place)
    card = finetuning.card_from(source, card, place)
    classifier = checkpoint.build(card, data.mean, data.std)
    finetuning.start_from(classifier, saved, source.classes == card.classes, config.train.freeze)
    return card, classifier


def save_best(folder: Location, card: ModelCard, trainer: Trainer, config: Config) -> None:
    """Save the weights of the best epoch, with the facts of the run and its answers on the validation tracks."""
    history = [asdict(epoch) for epoch in trainer.history]
    last = history[-1]
    facts = {
        "seed": config.seed,
        "valid_f1": last["best_f1"],
        "best_epoch": last["best_epoch"],
        "train_seconds": sum(epoch["seconds"] for epoch in history),
        "memory_mb": memory.peak_mb(),
        "hardware": devices.hardware(),
        "settings": {"train": config.train.model_dump(mode="json"), "params": card.params},
        "history": history,
    }
    filled = ModelCard(**vars(card) | {"facts": facts})
    best = trainer.use_best()
    checkpoint.save(folder, filled, best)
    probabilities = predict(best, trainer.valid, card.frames(), card.eval_windows)
    calibration.save(folder, trainer.valid.track_ids.tolist(), trainer.valid.labels, probabilities)
