"""Train one architecture on prepared features, with one process or several.

Write OUTPUT/models/<architecture>; with teacher=FOLDER <architecture>-student, which also learns what the saved model
there predicts for tracks without a genre. After an interruption, the same command resumes after the last finished
epoch, with any number of workers; it refuses other settings. The test split is not used.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow.compute as pc
import torch
from torch import nn

from genre import memory
from genre.credentials import without_credentials
from genre.errors import ConfigError
from genre.features import Features, Manifest
from genre.features.cache import CachedClips, ClipCache
from genre.features.columns import combined
from genre.features.splitting import balance
from genre.features.windows import Worker
from genre.model import checkpoint, provenance
from genre.model.card import ModelCard, seeds_of, weights_of
from genre.report import model_card
from genre.settings import Config
from genre.storage import Location, lease
from genre.training import experiment
from genre.training.experiment import Data, Experiment
from genre.training.trainer import Trainer
from genre.wording import plural
from ray_jobs.engine import cli, training
from ray_jobs.engine.capacity import Capacity
from ray_jobs.engine.training import Training
from ray_jobs.scoring.teacher import Teacher


def run(config: Config) -> None:
    """Train `config.architecture` into OUTPUT/models/<name>; the name is that of the architecture and its weights.

    Raises `ConfigError` when an interrupted run of that name had other settings, or when the model of train.init_from
    learned from the validation tracks.
    """
    memory.return_freed()  # of the tables of tracks: the training is in other processes
    if config.model:
        raise ConfigError(
            f"model={config.model}: train makes a new model; choose its network with architecture=NAME, "
            "or start from a saved model with init_from=FOLDER"
        )
    features = Features.open(Location.of(config.output) / "features")
    experiment.check_tracks(features, ("train", "valid"))
    experiment.check_settings(config.audio, config.spectrogram, features)
    experiment.check_start(config.train, features, ["valid"])
    if note := balance.absent_genres(features.tracks(), features.classes, "valid", judges=False):
        cli.say(f"train: {note}")
    planned = Experiment.of(config)
    teacher = Teacher.read(config.teacher, features) if config.teacher else None
    # before any worker starts, so that settings or weights that do not fit are refused at once
    card = experiment.check(planned, features, config.train.workers)
    with lease.held(config.output, "train"):
        _train(config, planned, replace(card, facts=_facts(teacher)), features, teacher)


def _train(config: Config, planned: Experiment, card: ModelCard, features: Features, teacher: Teacher | None) -> None:
    output = Location.of(config.output)
    model, run = output / "models" / card.name, output / "runs" / card.name
    of_teacher = teacher.deciding(model) if teacher else {}
    if weights_of(model) in {weights_of(seed) for seed in seeds_of(model)}:
        cli.say(
            f"train: replaces the network that tune chose in {model}; OUTPUT/leaderboard still describes that one, and "
            "the same tune command puts it back"
        )
    training.complete(
        Training(
            job="train",
            begin=functools.partial(_begin, planned, features.manifest, model, facts=card.facts),
            cache=ClipCache.of(features, config.cache),
            model=model,
            run=run,
            deciding=experiment.deciding(planned, card, features, model.parent) | of_teacher,
            introduction=_introduction(config, card, features),
            show=functools.partial(_show, epochs=planned.train.epochs),
            extended=functools.partial(_taught, config, features, teacher) if teacher else None,
        ),
        config,
    )
    (model / model_card.FILE).delete()  # of a network that tune chose
    _print_result(model)


def _introduction(config: Config, card: ModelCard, features: Features) -> str:
    train, valid = (len(features.tracks(split)) for split in ("train", "valid"))
    text = f"{card.name} on {train} tracks, validated on {valid}, {len(features.classes)} genres"
    advice = experiment.advice_on_steps(config.train, features)
    return f"{text}; {advice}" if advice else text


def _facts(teacher: Teacher | None) -> dict[str, Any]:
    return {"teacher": without_credentials(teacher.setting)} if teacher else {}


def _taught(config: Config, features: Features, teacher: Teacher, plain: Training, capacity: Capacity) -> Training:
    """Return a training that learns from more tracks, those whose genres the teacher predicts, and records them."""
    taught = teacher.teach(features, plain.run, config.device, capacity)
    experiment.check_leakage(taught)
    tracks = taught.tracks("train")["track_id"]
    added = tracks.filter(pc.invert(pc.is_in(tracks, combined(features.tracks("train")["track_id"]))))
    cli.say(f"train: {plural(len(added), 'more track')}, with the genres that {teacher.setting} predicts")
    known = provenance.names_known_to(Location.of(config.train.init_from)) if config.train.init_from else []
    facts = _facts(teacher) | {"learned_from": provenance.sample_of(added.to_pylist(), known)}
    begin = functools.partial(_begin, Experiment.of(config), features.manifest, plain.model, facts=facts)
    return replace(plain, begin=begin, cache=ClipCache.of(taught, config.cache))


def _begin(
    planned: Experiment,
    manifest: Manifest,
    model: Location,
    cached: CachedClips,
    device: torch.device,
    worker: Worker,
    wrap: Callable[[nn.Module], nn.Module],
    *,
    facts: dict[str, Any],
) -> tuple[Trainer, Callable[[], object]]:
    """Return the trainer of a worker, and what saves its best epoch in `model`."""
    data = Data.of(cached.clips, cached.statistics, manifest)
    card, trainer = experiment.trainer_for(planned, data, device, worker, wrap)
    return trainer, functools.partial(experiment.save_best, model, card, trainer, **facts)


def _print_result(model: Location) -> None:
    card, _ = checkpoint.load(model)
    cli.say(
        f"train: best validation macro F1 {card.facts['valid_f1']:.3f} in epoch {card.facts['best_epoch']} -> {model}"
    )


def _show(report: dict[str, Any], epochs: int) -> None:
    """Print the results of an epoch."""
    cli.say(
        f"  epoch {report['epoch']:>3}/{epochs}  loss {report['train_loss']:.3f}  "
        f"valid loss {report['valid_loss']:.3f}  accuracy {report['valid_accuracy']:.3f}  "
        f"macro F1 {report['valid_f1']:.3f} (best {report['best_f1']:.3f})  "
        f"{report['windows_per_second']:.0f} windows/s"
    )


if __name__ == "__main__":
    sys.exit(cli.main("train"))
