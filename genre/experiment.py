"""From a features folder and a configuration to a trained, saved and scored model; the steps that jobs share."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from genre import checkpoint, features, metrics, models, splits
from genre.checkpoint import ModelCard
from genre.classifier import Classifier, predict, statistics
from genre.config import Config
from genre.errors import ArtifactError
from genre.features import Clips, Float32
from genre.storage import Location
from genre.training import Trainer
from genre.windows import Shard


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


@dataclass(frozen=True)
class Scored:
    """Answers of a saved model on a split, and what they cost on this machine with one process."""

    probabilities: Float32  # (tracks, classes)
    clips_per_second: float
    latency_ms: float  # one clip alone
    parameters: int
    flops: int  # multiplications and additions for one clip


def load_data(folder: Location) -> Data:
    """Training and validation clips, after the gates: finished, no leakage, every class has training tracks."""
    manifest = features.read_manifest(folder)
    tracks = features.read_tracks(folder)
    check_tracks(tracks, manifest["classes"])
    train, valid = features.load(folder, "train"), features.load(folder, "valid")
    mean, std = statistics(train)
    return Data(train, valid, mean, std, manifest)


def check_tracks(tracks: Any, classes: list[str]) -> None:
    """The leakage gate, and enough tracks to train. Raises `ArtifactError` or `ConfigError`."""
    view = tracks.select([name for name in ("track_id", "genre", "group", "split") if name in tracks.column_names])
    if "sound" in tracks.column_names:
        view = view.append_column("content", tracks["sound"])
    splits.check(view)
    splits.require_trainable(view, classes)


def check_settings(config: Config, manifest: dict[str, Any], folder: Location) -> None:
    """Refuse features made with other settings than the configuration asks for, naming what differs."""
    wanted = {"audio": config.audio.model_dump(mode="json"), "spectrogram": config.spectrogram.model_dump(mode="json")}
    if "audio" not in manifest["settings"]:
        return  # spectrograms that somebody brought: the folder's own description is all there is
    different = checkpoint.differences(wanted, manifest["settings"])
    if different:
        raise ArtifactError(f"{folder} holds features with other settings: {different[0]}; run prepare, or correct it")


def trainer_for(
    config: Config,
    data: Data,
    device: torch.device,
    shard: Shard = Shard(),
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
) -> tuple[ModelCard, Trainer]:
    """A trainer of `config.model` with fresh weights that follow from `config.seed`."""
    params = models.params(config.model.name, config.models.get(config.model.name, {})).model_dump(mode="json")
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
    torch.manual_seed(config.seed)
    classifier = checkpoint.build(card, data.mean, data.std).to(device)
    trainer = Trainer(classifier, data.train, data.valid, len(data.classes), config.train, config.seed, shard, wrap)
    return card, trainer


def save_best(folder: Location, card: ModelCard, trainer: Trainer, config: Config) -> None:
    """Save the weights of the best epoch, with the facts of the run."""
    history = [asdict(epoch) for epoch in trainer.history]
    last = history[-1]
    facts = {
        "seed": config.seed,
        "valid_f1": last["best_f1"],
        "best_epoch": last["best_epoch"],
        "train_seconds": sum(epoch["seconds"] for epoch in history),
        "hardware": hardware(),
        "settings": {"train": config.train.model_dump(mode="json"), "params": card.params},
        "history": history,
    }
    filled = ModelCard(**vars(card) | {"facts": facts})
    checkpoint.save(folder, filled, trainer.use_best())


def score(folder: Location, clips: Clips) -> Scored:
    """Answers of the model saved in `folder` on `clips`, with one CPU process."""
    card, classifier = checkpoint.load(folder)
    frames = card.frames()
    started = time.perf_counter()
    probabilities = predict(classifier, clips, frames, card.eval_windows)
    seconds = time.perf_counter() - started
    first = _first_clip(clips)
    predict(classifier, first, frames, card.eval_windows)
    started = time.perf_counter()
    predict(classifier, first, frames, card.eval_windows)
    return Scored(
        probabilities=probabilities,
        clips_per_second=len(clips) / seconds,
        latency_ms=1000 * (time.perf_counter() - started),
        parameters=sum(parameter.numel() for parameter in classifier.parameters()),
        flops=_flops(classifier, card),
    )


def track_scores(clips: Clips, probabilities: Float32) -> metrics.Scores:
    """Scores of one answer per track."""
    counts = metrics.confusion_counts(clips.labels, metrics.decisions(probabilities), probabilities.shape[1])
    return metrics.scores(counts)


def device_for(choice: str) -> torch.device:
    """The device that `train.device` means on this machine."""
    if choice == "cuda" and not torch.cuda.is_available():
        raise ArtifactError("train.device=cuda, but torch finds no GPU here; use train.device=auto or cpu")
    return torch.device("cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu")


def hardware() -> str:
    """This machine in a few words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    return f"{platform.machine()}, {cores} cores{gpu}"


def _first_clip(clips: Clips) -> Clips:
    first = clips.track == clips.track[0]
    keep = np.flatnonzero(first)[:1]
    return Clips(
        clips.spectrograms[keep],
        clips.peak_db[keep],
        np.zeros(1, np.int64),
        clips.track_ids[clips.track[keep]],
        clips.labels[clips.track[keep]],
        clips.groups[clips.track[keep]],
        clips.shape,
    )


def _flops(classifier: Classifier, card: ModelCard) -> int:
    """Floating-point operations for one clip: all of its evaluation windows."""
    window = torch.zeros(1, card.shape.bins, card.frames())
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        classifier(window)
    return int(counter.get_total_flops()) * card.eval_windows
