"""Pretrain a network without labels, by contrastive learning; `train` and `tune` can start from it.

Write OUTPUT/pretrained/<architecture>, for init_from=. It learns from the tracks of split train and those without a
genre, whose genres it does not read: two windows of a track (pretrain.pairs=group: of two tracks of an artist) are
alike, all others of the batch are not. All train.* settings apply except epochs, batch_size, class_weights,
label_smoothing, mixup, mixstyle, patience and eval_windows. After an interruption, the same command resumes after the
last finished epoch, with any number of workers.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from genre import memory
from genre.errors import ConfigError
from genre.features import Features
from genre.features.cache import CachedClips, ClipCache
from genre.features.windows import Worker
from genre.model.card import ModelCard
from genre.settings import Config
from genre.storage import Location, lease
from genre.training import experiment, pretraining
from genre.training.contrastive import Pretrainer
from genre.training.pretraining import Pretraining
from ray_jobs.engine import cli, training
from ray_jobs.engine.training import Training


def run(config: Config) -> None:
    """Pretrain `config.architecture` into OUTPUT/pretrained/<name>.

    Raises `ConfigError` when an interrupted run of that name had other settings, when there is too little music, or
    when the model of train.init_from learned from tracks that judge models.
    """
    memory.return_freed()  # of the tables of tracks: the training is in other processes
    if config.model:
        raise ConfigError(
            f"model={config.model}: pretrain makes a new body; choose its network with architecture=NAME, "
            "or start from a saved one with init_from=FOLDER"
        )
    features = Features.open(Location.of(config.output) / "features")
    experiment.check_leakage(features)
    experiment.check_settings(config.audio, config.spectrogram, features)
    experiment.check_start(config.train, features, ["valid", "test"])
    planned, music = Pretraining.of(config), features.music()
    # before any worker starts, so that settings or weights that do not fit are refused at once
    card = pretraining.check(planned, music, config.train.workers)
    with lease.held(config.output, "pretrain"):
        _pretrain(config, planned, card, music)


def _pretrain(config: Config, planned: Pretraining, card: ModelCard, music: Features) -> None:
    output, tracks = Location.of(config.output), music.tracks("train")
    body = output / "pretrained" / card.name
    training.complete(
        Training(
            job="pretrain",
            begin=functools.partial(_begin, planned, music, body),
            cache=ClipCache.of(music, config.cache, ("train",)),
            model=body,
            run=output / "runs" / f"pretrain-{card.name}",
            deciding=planned.deciding(card, music, body.parent),
            introduction=f"{card.name} on {len(tracks)} tracks, pairs by {planned.settings.pairs}",
            show=functools.partial(_show, epochs=planned.settings.epochs),
        ),
        config,
    )
    cli.say(f"pretrain: {body}; train from it with init_from={body}")


def _begin(
    planned: Pretraining,
    music: Features,
    body: Location,
    cached: CachedClips,
    device: torch.device,
    worker: Worker,
    wrap: Callable[[nn.Module], nn.Module],
) -> tuple[Pretrainer, Callable[[], object]]:
    """Return the pretrainer of a worker, and what saves its weights in `body`."""
    card, pretrainer = pretraining.pretrainer_for(planned, music, cached, device, worker, wrap)
    return pretrainer, functools.partial(pretraining.save_body, body, card, music, pretrainer)


def _show(report: dict[str, Any], epochs: int) -> None:
    """Print the results of an epoch."""
    cli.say(
        f"  epoch {report['epoch']:>3}/{epochs}  loss {report['loss']:.3f}  pairs found {report['matched']:.1%}  "
        f"{report['windows_per_second']:.0f} windows/s"
    )


if __name__ == "__main__":
    sys.exit(cli.main("pretrain"))
