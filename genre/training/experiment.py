"""The steps from a features folder to a trained and saved model that several jobs share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from genre import architectures, devices, memory
from genre.config import differences
from genre.errors import ArtifactError
from genre.features import SPLITS, Clips, Features, Float32, Manifest, splits
from genre.features.windows import Shard
from genre.model import calibration, checkpoint, finetuning
from genre.model.card import ModelCard
from genre.model.classifier import Classifier, predict, statistics
from genre.settings import AudioSettings, Config, SpectrogramSettings, TrainSettings
from genre.storage import Location
from genre.training.trainer import Trainer

# settings of a training that change where it runs, not what it computes
EXECUTION_SETTINGS = {"resume", "workers"}


@dataclass(frozen=True)
class Experiment:
    """Everything besides the data that decides a training."""

    architecture: str
    params: dict[str, Any]  # all settings of the architecture
    train: TrainSettings
    seed: int = 0  # of the weights, the windows and the augmentation

    @classmethod
    def of(cls, config: Config) -> Experiment:
        """Return the experiment that `config` describes. Raises `ConfigError` for settings the architecture lacks."""
        name = config.architecture
        params = architectures.params(name, config.architectures.get(name, {}))
        return cls(name, params.model_dump(mode="json"), config.train, config.seed)

    @property
    def label(self) -> str:
        """Name of the model's folder and of its row: the architecture, and what it starts from unless from scratch."""
        return architectures.label(self.architecture, self.params)


@dataclass(frozen=True)
class Data:
    """What training needs from a features folder, in arrays that all processes of a machine can share."""

    train: Clips
    valid: Clips
    mean: Float32  # (bins,) dB, of the training split
    std: Float32  # (bins,) dB, of the training split
    manifest: Manifest

    @property
    def classes(self) -> list[str]:
        return self.manifest.classes


def load_data(features: Features, needed: Sequence[str] = ("train", "valid")) -> Data:
    """Load the training and validation clips of a features folder, after checking its tracks.

    `needed` names the splits that must not be empty: a job that scores on the test split names it too.
    Raises `ArtifactError` or `ConfigError` like `check_tracks`, and where the folder is unfinished.
    """
    check_tracks(features, needed)
    clips = features.load(["train", "valid"])
    mean, std = statistics(clips["train"])
    return Data(clips["train"], clips["valid"], mean, std, features.manifest)


def check_tracks(features: Features, needed: Sequence[str] = SPLITS) -> None:
    """Check that no track, group or audio is in two splits and that every class has enough training tracks.

    Raises `ArtifactError` or `ConfigError`.
    """
    check_leakage(features)
    splits.require_trainable(features.tracks(), features.classes, needed)


def check_leakage(features: Features) -> None:
    """Raise `ArtifactError` when a track, group or audio is in two splits."""
    tracks = features.tracks()
    view = tracks.select(["track_id", "genre", "group", "split"]).append_column("content", tracks["sound"])
    splits.check(view)


def check_settings(audio: AudioSettings, spectrogram: SpectrogramSettings, features: Features) -> None:
    """Check that features were made with these settings. Raises `ArtifactError` that names the first difference."""
    settings = features.manifest.settings
    if "audio" not in settings:
        return  # precomputed spectrograms: there is nothing to compare with
    expected = {"audio": audio.model_dump(mode="json"), "spectrogram": spectrogram.model_dump(mode="json")}
    different = differences(expected, settings)
    if different:
        raise ArtifactError(
            f"{features.folder} holds features with other settings: {different[0]}; run prepare, or correct it"
        )


def trainer_for(
    experiment: Experiment,
    data: Data,
    device: torch.device,
    shard: Shard = Shard(),
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
) -> tuple[ModelCard, Trainer]:
    """Return a trainer on `device` and the card of its model.

    The weights follow from the seed, or come from the saved model that `train.init_from` names.
    """
    card = ModelCard(
        architecture=experiment.architecture,
        params=experiment.params,
        classes=data.classes,
        features=data.manifest.settings,
        fingerprint=data.manifest.fingerprint,
        shape=data.train.shape,
        window_seconds=experiment.train.window_seconds,
        eval_windows=experiment.train.eval_windows,
    )
    memory.reset_peak()
    torch.manual_seed(experiment.seed)
    card, classifier = _initial(experiment.train, card, data)
    classifier = classifier.to(device)
    trainer = Trainer(
        classifier, data.train, data.valid, len(data.classes), experiment.train, experiment.seed, shard, wrap
    )
    return card, trainer


def save_best(folder: Location, card: ModelCard, trainer: Trainer) -> None:
    """Save the weights of the best epoch with the facts of the training and the answers on the validation tracks."""
    history = [asdict(epoch) for epoch in trainer.history]
    last = history[-1]
    facts = {
        "seed": trainer.seed,
        "valid_f1": last["best_f1"],
        "best_epoch": last["best_epoch"],
        "train_seconds": sum(epoch["seconds"] for epoch in history),
        "memory_mb": memory.peak_mb(),
        "hardware": devices.hardware(),
        "settings": {"train": trainer.settings.model_dump(mode="json"), "params": card.params},
        "history": history,
    }
    best = trainer.use_best()
    checkpoint.save(folder, replace(card, facts=facts), best)
    probabilities = predict(best, trainer.valid, card.frames(), card.eval_windows)
    calibration.save(folder, trainer.valid.track_ids.tolist(), trainer.valid.labels, probabilities)


def _initial(settings: TrainSettings, card: ModelCard, data: Data) -> tuple[ModelCard, Classifier]:
    """Return the classifier that training starts from, and the card that describes it."""
    if not settings.init_from:
        return card, checkpoint.build(card, data.mean, data.std)
    source_folder = Location.of(settings.init_from)
    source, saved = checkpoint.load(source_folder)
    card = finetuning.card_from(source, card, source_folder)
    classifier = checkpoint.build(card, data.mean, data.std)
    finetuning.start_from(classifier, saved, source.classes == card.classes, settings.freeze)
    return card, classifier
