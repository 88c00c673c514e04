"""From a features folder to a saved model: check settings and data, build the trainer, save the best weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from genre import architectures, devices, memory
from genre.arrays import Float32
from genre.config import differences
from genre.credentials import for_environment
from genre.errors import ArtifactError, ConfigError
from genre.features import SPLITS, Clips, Features, Manifest, windows
from genre.features.cache import ClipCache
from genre.features.cache.cache_folder import Report
from genre.features.splitting import splits
from genre.features.statistics import LevelStatistics
from genre.features.windows import Worker
from genre.model import calibration, checkpoint, finetuning, provenance
from genre.model.card import ModelCard, weights_of
from genre.model.classifier import Classifier
from genre.settings import AudioSettings, Config, SpectrogramSettings, TrainSettings
from genre.storage import Location
from genre.training.trainer import Trainer
from genre.wording import plural

# with 50 to 200 training tracks, 1500 steps had a lower loss on other tracks than 180 to 750 (docs/LOG.md, 28 November
# 2026), and 3000 none lower
_FEW_STEPS, _ENOUGH_STEPS = 1000, 1500

# settings of a training that change where it runs, not what it computes
EXECUTION_SETTINGS = {"resume", "workers"}


@dataclass(frozen=True)
class Experiment:
    """Everything that determines the result of a training, except the data."""

    architecture: str
    params: dict[str, Any]  # all settings of the architecture
    train: TrainSettings
    seed: int = 0  # of the weights, the windows and the augmentation

    @classmethod
    def of(cls, config: Config) -> Experiment:
        """Return the experiment of `config`. Raises `ConfigError` for invalid settings of its architecture."""
        name = config.architecture
        params = architectures.params(name, config.architectures.get(name, {}))
        return cls(name, params.model_dump(mode="json"), config.train, config.seed)


@dataclass(frozen=True)
class Data:
    """What training needs from a features folder: clips, in memory or mapped from this machine's copy."""

    train: Clips
    valid: Clips
    mean: Float32  # (bins,) dB, of the training split
    std: Float32  # (bins,) dB, of the training split
    manifest: Manifest

    @property
    def classes(self) -> list[str]:
        return self.manifest.classes

    @classmethod
    def open(cls, cache: ClipCache, report: Report = lambda message: None) -> Data:
        """Open this machine's copy of the training and validation clips. `report` and errors as in `ClipCache.open`."""
        cached = cache.open(report)
        return cls.of(cached.clips, cached.statistics, cache.features.manifest)

    @classmethod
    def of(cls, clips: dict[str, Clips], statistics: LevelStatistics, manifest: Manifest) -> Data:
        """Return the clips of the splits with the statistics of the training split."""
        return cls(clips["train"], clips["valid"], *statistics.mean_and_std(), manifest)


def check_tracks(features: Features, needed: Sequence[str] = SPLITS) -> None:
    """Check that the splits are disjoint, that every class has enough tracks in the splits `needed`, and the clips.

    Raises `ArtifactError` when a track, group or audio is in two splits, or a clip of any split has no peak level, and
    `ConfigError` for too few tracks.
    """
    check_leakage(features)
    splits.require_trainable(features.tracks(), features.classes, needed)
    features.check_clips(features.labelled())


def check_leakage(features: Features) -> None:
    """Raise `ArtifactError` when a track, group or audio is in two splits."""
    splits.check(splits.view(features.tracks()))


def check_settings(audio: AudioSettings, spectrogram: SpectrogramSettings, features: Features) -> None:
    """Check that features were made with these settings. Raises `ArtifactError` that names the first difference."""
    settings = features.manifest.settings
    if "audio" not in settings:
        return  # precomputed spectrograms: there is nothing to compare with
    expected = {"audio": audio.model_dump(mode="json"), "spectrogram": spectrogram.model_dump(mode="json")}
    different = differences(expected, settings)
    if different:
        raise ArtifactError(
            f"{features.folder} holds features with other settings: {different[0]}; give the same --config and "
            "settings as for prepare, or prepare into another output"
        )


def check(experiment: Experiment, features: Features, workers: int = 1) -> ModelCard:
    """Return the card of the model that `experiment` would train on these features. No clips are read.

    Raises `ConfigError` for settings, `ArtifactError` for initial weights that do not fit, and `TrainingError` for a
    network that does not do what an architecture has to.
    """
    check_batches(experiment.train, features, workers)
    zeros = np.zeros(features.shape.bins, np.float32)
    return initial(experiment.train, card_of(experiment, features.manifest), zeros, zeros + 1)[0]


def check_start(settings: TrainSettings, features: Features, judged: Sequence[str]) -> None:
    """Raise `ConfigError` if the initial model has or may have seen tracks of the splits `judged`.

    The epoch would be chosen, and the new model calibrated, by tracks that it knows.
    """
    if not settings.init_from:
        return
    has_learned = provenance.has_learned(Location.of(settings.init_from), features, judged)
    if has_learned is None:
        raise ConfigError(
            f"train.init_from={settings.init_from} may have learned from tracks that would judge the new model: it is "
            "not calibrated, or its card is incomplete, so its training tracks are unknown; start from another "
            "model, or without one"
        )
    if has_learned:
        raise ConfigError(
            f"train.init_from={settings.init_from} learned from tracks that would judge the new model, those of "
            f"{' and '.join(judged)} in {features.folder}; start from a model that did not, or without one"
        )


def deciding(experiment: Experiment, card: ModelCard, features: Features, saved: Location) -> dict[str, Any]:
    """Return everything that decides what a run computes, in plain types; `saved` is as in `start_of`."""
    return {
        "seed": experiment.seed,
        "train": experiment.train.model_dump(mode="json", exclude=EXECUTION_SETTINGS),
        "architectures": {card.architecture: card.params},
        "features": {"fingerprint": features.manifest.fingerprint, "contents": features.manifest.contents},
    } | start_of(experiment.train, saved)


def start_of(settings: TrainSettings, saved: Location) -> dict[str, Any]:
    """Return the hash of the weights to start from, which another training may replace; empty where there are none.

    It is empty as well for a model in the folder `saved`, where the job saves its own: if it replaced the model that
    it started from, the same command would train again.
    """
    start = Location.of(settings.init_from) if settings.init_from else None
    if start is None or start.parent == saved:
        return {}
    return {"weights of train.init_from": weights_of(start)}


def check_batches(settings: TrainSettings, features: Features, workers: int) -> None:
    """Raise `ConfigError` when each worker's share of a batch is too small."""
    windows.plan(
        features.clip_count("train"), windows.per_epoch(settings, features.shape), settings.batch_size, workers
    )


def advice_on_steps(settings: TrainSettings, features: Features) -> str:
    """Return advice where a training takes few optimiser steps, "" where it takes enough."""
    clips, per_clip = features.clip_count("train"), windows.per_epoch(settings, features.shape)
    steps = windows.plan(clips, per_clip, settings.batch_size).steps
    if steps * settings.epochs >= _FEW_STEPS:
        return ""
    epochs = math.ceil(_ENOUGH_STEPS / steps)
    return (
        f"{plural(steps * settings.epochs, 'optimiser step')} in all; with so few, more usually lower the loss: "
        f"train.epochs={epochs} makes {steps * epochs}"
    )


def trainer_for(
    experiment: Experiment,
    data: Data,
    device: torch.device,
    worker: Worker = Worker(),
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
) -> tuple[ModelCard, Trainer]:
    """Return the card of the model to train, and its trainer on `device`.

    The initial weights are random, from the seed, or those of the saved model that `train.init_from` names. `worker`
    and `wrap` are as in `Trainer`.
    """
    memory.reset_peak()
    torch.manual_seed(experiment.seed)
    card, classifier = initial(experiment.train, card_of(experiment, data.manifest), data.mean, data.std)
    classifier = classifier.to(device)
    trainer = Trainer(
        classifier, data.train, data.valid, len(data.classes), experiment.train, experiment.seed, worker, wrap
    )
    return card, trainer


def save_best(folder: Location, card: ModelCard, trainer: Trainer, **facts: Any) -> Float32 | None:
    """Save the weights of the best epoch, the facts of the training, and the predictions for the validation tracks.

    `facts` are as in `save_weights`. The first worker saves. Return the predictions like `best_predictions`; all
    workers have to call this.
    """
    if not trainer.worker.rank:
        save_weights(folder, card, trainer, **facts)
    probabilities = best_predictions(trainer)
    if probabilities is not None:
        calibration.save(folder, trainer.valid.track_ids.to_pylist(), trainer.valid.labels, probabilities)
    return probabilities


def best_predictions(trainer: Trainer) -> Float32 | None:
    """Return the probabilities of the best epoch for all validation tracks, (tracks, classes), in the first worker.

    Return None in the others. All workers have to call this, since each machine may have only a share of the clips.
    """
    if trainer.worker.rank and not trainer.worker.peers:
        return None
    probabilities = trainer.best_predictions()
    return None if trainer.worker.rank else probabilities


def save_weights(folder: Location, card: ModelCard, trainer: Trainer, **facts: Any) -> None:
    """Save the weights of the best epoch, and the facts of the training with `facts` of the caller."""
    history = [asdict(epoch) for epoch in trainer.history]
    last = history[-1]
    known = {
        "seed": trainer.seed,
        "valid_f1": last["best_f1"],
        "best_epoch": last["best_epoch"],
        "train_seconds": sum(epoch["seconds"] for epoch in history),
        "memory_mb": memory.peak_mb(),
        "hardware": devices.hardware(),
        "settings": {
            "train": trainer.settings.model_dump(mode="json")
            | {"window_norm": card.window_norm, "init_from": for_environment(trainer.settings.init_from)},
            "params": card.params,
        },
        "history": history,
    }
    if package := architectures.package(card.architecture):
        known["package"] = package
    checkpoint.save(folder, replace(card, facts=known | facts), trainer.use_best())


def card_of(experiment: Experiment, manifest: Manifest) -> ModelCard:
    """Return the card of the model that `experiment` trains on the features of `manifest`, without facts."""
    return ModelCard(
        architecture=experiment.architecture,
        params=experiment.params,
        classes=manifest.classes,
        features=manifest.settings,
        fingerprint=manifest.fingerprint,
        shape=manifest.shape,
        window_seconds=experiment.train.window_seconds,
        eval_windows=experiment.train.eval_windows,
        window_norm=experiment.train.window_norm,
    )


def initial(settings: TrainSettings, card: ModelCard, mean: Float32, std: Float32) -> tuple[ModelCard, Classifier]:
    """Return the card and the classifier that training starts from.

    `mean` and `std` (bins,) in dB are those of the training clips; a model that `train.init_from` names has its own.
    """
    if not settings.init_from:
        return card, checkpoint.build(card, mean, std)
    source_folder = Location.of(settings.init_from)
    source, saved = checkpoint.load(source_folder, may_be_body=True)
    card = finetuning.card_from(source, card, source_folder)
    classifier = checkpoint.build(card, mean, std)
    finetuning.start_from(classifier, saved, source.classes == card.classes, settings.freeze)
    return card, classifier
