"""From a features folder to a saved body: check settings and data, build the pretrainer, save the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from genre import devices, memory
from genre.credentials import for_environment
from genre.errors import ConfigError
from genre.features import Features, pairs, windows
from genre.features.cache import CachedClips
from genre.features.columns import combined
from genre.features.splitting.sampling import Music
from genre.features.windows import Worker
from genre.model import checkpoint, provenance
from genre.model.card import ModelCard
from genre.settings import Config, PretrainSettings
from genre.storage import Location
from genre.training import experiment
from genre.training.contrastive import Pretrainer
from genre.training.experiment import EXECUTION_SETTINGS, Experiment
from genre.wording import plural


@dataclass(frozen=True)
class Pretraining:
    """Everything that determines a body, except the music."""

    experiment: Experiment  # with the epochs and the batch of pretraining
    settings: PretrainSettings

    @classmethod
    def of(cls, config: Config) -> Pretraining:
        """Return the pretraining of `config`. Raises `ConfigError` for settings that it cannot have."""
        if config.train.freeze:
            raise ConfigError(
                "train.freeze=true: pretrain trains the body, and a frozen one learns nothing; leave it out"
            )
        planned, settings = Experiment.of(config), config.pretrain
        # mixup blends labels; MixStyle gives a window the sound of another track, by which pairs are distinguished
        without = {"mixup": 0.0, "mixstyle": 0.0, "patience": 0, "label_smoothing": 0.0, "class_weights": False}
        changed = {"epochs": settings.epochs, "batch_size": settings.batch_size} | without
        return cls(replace(planned, train=planned.train.model_copy(update=changed)), settings)

    def deciding(self, card: ModelCard, features: Features, saved: Location) -> dict[str, Any]:
        """Return everything that decides what a run computes; `saved` is as in `experiment.start_of`."""
        train = self.experiment.train.model_dump(mode="json", exclude=EXECUTION_SETTINGS)
        return experiment.deciding(self.experiment, card, features, saved) | {
            "train": {key: value for key, value in train.items() if key not in ("epochs", "batch_size")},
            "pretrain": self.settings.model_dump(mode="json"),
        }


def check(planned: Pretraining, music: Features, workers: int) -> ModelCard:
    """Return the card of the body that `planned` would train on `music`. No clips are read.

    Raises `ConfigError` for settings or music that do not suffice, and `ArtifactError` for initial weights that do not
    fit.
    """
    tracks, train = music.tracks("train"), planned.experiment.train
    names = combined(tracks["track_id"])
    if planned.settings.pairs == "group":
        names = combined(tracks["group"]).fill_null(names)
    count = len(names.unique())
    if count < 2:
        raise ConfigError(
            f"{music.folder}: {plural(len(tracks), 'track')} to learn from, of {plural(count, planned.settings.pairs)}"
            "; the loss compares windows of different ones, so at least 2 are needed"
        )
    if planned.settings.pairs == "group" and count == len(tracks):
        raise ConfigError(
            f"pretrain.pairs=group, but no two tracks to learn from in {music.folder} have the same group (artist); "
            "use pretrain.pairs=track"
        )
    pairs.plan(music.clip_count("train"), windows.per_epoch(train, music.shape), train.batch_size, workers)
    zeros = np.zeros(music.shape.bins, np.float32)
    return experiment.initial(train, _card(planned, music), zeros, zeros + 1)[0]


def pretrainer_for(
    planned: Pretraining,
    music: Features,
    cached: CachedClips,
    device: torch.device,
    worker: Worker = Worker(),
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
) -> tuple[ModelCard, Pretrainer]:
    """Return the card of the body to train, and its pretrainer on `device`, as `experiment.trainer_for` does."""
    memory.reset_peak()
    train, seed = planned.experiment.train, planned.experiment.seed
    torch.manual_seed(seed)
    card, classifier = experiment.initial(train, _card(planned, music), *cached.statistics.mean_and_std())
    if train.init_from:  # now, since it may be gone or replaced when the body is saved
        card = replace(card, facts={"learned_from": provenance.names_known_to(Location.of(train.init_from))})
    classifier = classifier.to(device)
    return card, Pretrainer(classifier, cached.clips["train"], train, planned.settings, seed, worker, wrap)


def save_body(folder: Location, card: ModelCard, music: Features, pretrainer: Pretrainer) -> None:
    """Save the weights and the facts of the pretraining; the first worker saves. `card` is that of `pretrainer_for`."""
    if pretrainer.worker.rank:
        return
    history = [asdict(epoch) for epoch in pretrainer.history]
    facts = {
        "seed": pretrainer.seed,
        "trained_on": Music().splits,
        "learned_from": provenance.sample_of(
            music.tracks("train")["track_id"].to_pylist(), card.facts.get("learned_from", [])
        ),
        "train_seconds": sum(epoch["seconds"] for epoch in history),
        "memory_mb": memory.peak_mb(),
        "hardware": devices.hardware(),
        "settings": {
            "train": pretrainer.settings.model_dump(mode="json")
            | {"init_from": for_environment(pretrainer.settings.init_from)},
            "pretrain": pretrainer.pretraining.model_dump(mode="json"),
            "params": card.params,
        },
        "history": history,
    }
    checkpoint.save(folder, replace(card, facts=facts), pretrainer.body())


def _card(planned: Pretraining, music: Features) -> ModelCard:
    return experiment.card_of(planned.experiment, replace(music.manifest, classes=[]))
