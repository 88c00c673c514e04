"""One trial: a configuration trained in one process or several, reported to Tune epoch by epoch."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import asdict
from typing import Any

import torch

from genre import checkpoint, config, experiment
from genre.checkpoint import ModelCard
from genre.config import Config
from genre.errors import TrainingError
from genre.experiment import Data
from genre.storage import Location
from genre.training import Trainer
from genre.windows import Shard
from ray_jobs import distributed

import ray  # isort: skip
from ray import tune  # isort: skip

Shared = list[ray.ObjectRef[Data]]


def train_trial(trial: dict[str, Any], base: Config, shared: Shared) -> None:
    """Train `base` with the run's `settings`; where it names a folder to `save` in, leave the best epoch there."""
    run = trial["run"]
    settings = apply(base, run["settings"])
    last = tune.get_checkpoint()
    with distributed.together(_follow, settings, shared, last) as shard:
        card, trainer = _trainer(shard, settings, shared, last)
        try:
            for epoch in trainer.run():
                with tempfile.TemporaryDirectory() as path:
                    checkpoint.save_state(Location.of(path) / "state.pt", trainer.state())
                    tune.report(asdict(epoch), checkpoint=tune.Checkpoint.from_directory(path))
        except TrainingError as error:
            # the same settings would lose their loss again: an outcome to record, not a crash to retry
            reached = asdict(trainer.history[-1]) if trainer.history else {"epoch": 0, "best_f1": 0.0, "seconds": 0.0}
            tune.report(reached | {"failure": str(error)})
            return
    if run.get("save"):
        experiment.save_best(Location.of(run["save"]), card, trainer, settings)


def apply(base: Config, settings: dict[str, Any]) -> Config:
    """`base` with dotted keys replaced."""
    tree = base.model_dump()
    for key, value in settings.items():
        branch = tree
        *path, last = key.split(".")
        for name in path:
            branch = branch.setdefault(name, {})
        branch[last] = value
    return config.validate(Config, tree)


def _follow(shard: Shard, settings: Config, shared: Shared, last: tune.Checkpoint | None) -> None:
    """Train the share of another process than the first, which alone reports and saves."""
    _, trainer = _trainer(shard, settings, shared, last)
    with contextlib.suppress(TrainingError):  # a lost loss is lost in all processes, and the first says so
        for _ in trainer.run():
            pass


def _trainer(shard: Shard, settings: Config, shared: Shared, last: tune.Checkpoint | None) -> tuple[ModelCard, Trainer]:
    """The trainer of one process, at the end of the epoch that `last` holds."""
    torch.set_num_threads(max(1, int(settings.tune.cpus_per_trial)))
    # a trial that asked for no GPU must not crowd one
    device = experiment.device_for(settings.train.device if settings.tune.gpus_per_trial else "cpu")
    card, trainer = experiment.trainer_for(settings, ray.get(shared[0]), device, shard, distributed.averaging)
    if last is not None:
        with last.as_directory() as path:
            trainer.restore(checkpoint.load_state(Location.of(path) / "state.pt"))
    return card, trainer
