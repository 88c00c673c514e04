"""Small saved models and short songs for the tests that use models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch
from making import SMALL_MODELS

from genre import architectures
from genre.config import load
from genre.features.recipe import Recipe
from genre.model import calibration, checkpoint
from genre.model.card import ModelCard
from genre.settings import Config
from genre.storage import Location

CLASSES = ("blues", "jazz", "rock")
RATE = 22050
FEATURES = ("audio.clip_seconds=2", "spectrogram.n_mels=32", "train.window_seconds=1")


def save_model(
    folder: Path,
    name: str = "cnn",
    classes: tuple[str, ...] = CLASSES,
    features: tuple[str, ...] = FEATURES,
    seed: int = 0,
    answers: bool = True,
    window_norm: bool = False,
) -> str:
    """Save an untrained model, with the validation predictions of a good one, and return the folder's address."""
    config: Config = load(None, features)
    recipe = Recipe.of(config)
    shape = recipe.shape()
    card = ModelCard(
        architecture=name,
        params=architectures.params(name, SMALL_MODELS.get(name, {})).model_dump(mode="json"),
        classes=list(classes),
        features=recipe.model_dump(mode="json", include={"audio", "spectrogram"}),
        fingerprint=recipe.fingerprint(),
        shape=shape,
        window_seconds=config.train.window_seconds,
        eval_windows=3,
        window_norm=window_norm,  # untrained networks distinguish songs by their levels, which it removes
    )
    torch.manual_seed(seed)
    # a high mean and a small deviation, with which untrained networks distinguish songs
    classifier = checkpoint.build(card, np.full(shape.bins, -30, np.float32), np.full(shape.bins, 10, np.float32))
    _settle(classifier.network)
    location = Location.of(folder)
    checkpoint.save(location, card, classifier)
    if answers:
        save_answers(location, len(classes))
    return str(folder)


def save_answers(folder: Location, classes: int, tracks: int = 60) -> None:
    """Save validation predictions: correct with 0.9 for nine tracks in ten, wrong with 0.5 for the others."""
    labels = np.arange(tracks) % classes
    right = np.arange(tracks) % 10 != 0
    answers = np.where(right, labels, (labels + 1) % classes)
    top = np.where(right, 0.9, 0.5).astype(np.float32)
    probabilities: np.ndarray = np.repeat(((1 - top) / (classes - 1))[:, None], classes, axis=1)
    probabilities[np.arange(tracks), answers] = top
    calibration.save(folder, [f"track-{n}" for n in range(tracks)], labels, probabilities)


def song(path: Path, seconds: float = 3.0, hertz: float = 220.0, rate: int = RATE, seed: int = 0) -> Path:
    """Write a file of tones and noise, in the format of its suffix, and return its path."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(0, 0.02, len(time))
    wave = 0.4 * np.sin(2 * np.pi * hertz * time) * (1 + np.sin(2 * np.pi * 3 * time)) / 2 + noise
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave.astype(np.float32), rate)
    return path


def _settle(network: torch.nn.Module) -> None:
    """Update the statistics of batch norm as training does; without that deep networks give equal outputs for all."""
    network.train()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(8, 1, 32, 43, generator=generator) * 2)
    network.eval()
