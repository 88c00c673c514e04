"""One trial: a configuration trained in one process, reported to Tune epoch by epoch."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from typing import Any

import torch

from genre import checkpoint, config, experiment
from genre.config import Config
from genre.errors import TrainingError
from genre.experiment import Data
from genre.storage import Location

import ray  # isort: skip
from ray import tune  # isort: skip


def train_trial(trial: dict[str, Any], base: Config, shared: list[ray.ObjectRef[Data]]) -> None:
    """Train `base` with the run's `settings`; where it names a folder to `save` in, leave the best epoch there."""
    run = trial["run"]
    data = ray.get(shared[0])
    settings = apply(base, run["settings"])
    torch.set_num_threads(max(1, int(base.tune.cpus_per_trial)))
    card, trainer = experiment.trainer_for(settings, data, experiment.device_for(settings.train.device))
    last = tune.get_checkpoint()
    if last is not None:
        with last.as_directory() as path:
            trainer.restore(checkpoint.load_state(Location.of(path) / "state.pt"))
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
