"""One trial: a configuration trained in one process or several, reported to Tune epoch by epoch."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, replace
from typing import Any

import ray
import torch
from ray import tune

from genre import config, devices
from genre.errors import TrainingError
from genre.features.windows import Shard
from genre.model.card import ModelCard
from genre.settings import Config
from genre.storage import Location
from genre.training import experiment
from genre.training.experiment import Data, Experiment
from genre.training.trainer import Trainer
from ray_jobs.search import distributed, exits
from ray_jobs.search.trial_folder import Record, TrialFolder

Shared = list[ray.ObjectRef[Data]]


@exits.recorded
def train_trial(trial: dict[str, Any], base: Config, shared: Shared) -> None:
    """Train `base` with the run's `settings` in its `folder`, from the last epoch there; save the model at the end."""
    run = trial["run"]
    settings, folder = apply(base, run["settings"]), TrialFolder(Location.of(run["folder"]))
    record = replace(folder.record() or Record({}), settings=run["settings"]).started()
    folder.write(record)
    with distributed.together(_follow, settings, shared, folder) as shard:
        card, trainer = _trainer(shard, settings, shared, folder)
        earlier = len(trainer.history)
        try:
            for epoch in trainer.run():
                folder.save_state(trainer.state())
                record = record.reached(trainer.history)
                folder.write(record)
                tune.report(asdict(epoch) | {"trial_seconds": record.seconds})
        except TrainingError as error:
            # the same settings would lose their loss again: a result to record, not a crash to retry
            record = replace(record.reached(trainer.history), ended="failed", failure=str(error))
            folder.write(record)
            report = {"epoch": record.epochs, "best_f1": record.best_f1 or 0.0, "trial_seconds": record.seconds}
            tune.report(report | {"failure": str(error)})
            return
    if len(trainer.history) == earlier:  # only the model is missing; Tune wants a report of each trial
        # before the end is written: a trial that its patience ended may be stopped by this report
        tune.report(asdict(trainer.history[-1]) | {"trial_seconds": record.seconds})
    experiment.save_best(folder.model, card, trainer)
    folder.write(replace(record.reached(trainer.history), ended="finished"))


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


def trainer_for(
    settings: Config, data: Data, device: torch.device, folder: TrialFolder, **several: Any
) -> tuple[ModelCard, Trainer]:
    """The trainer of a trial, at the end of the epoch whose state is in its folder; `several` are of its processes."""
    card, trainer = experiment.trainer_for(Experiment.of(settings), data, device, **several)
    if (state := folder.load_state()) is not None:
        trainer.restore(state)
    return card, trainer


def _follow(shard: Shard, settings: Config, shared: Shared, folder: TrialFolder) -> None:
    """Train the share of another process than the first, which alone reports and saves."""
    _, trainer = _trainer(shard, settings, shared, folder)
    with contextlib.suppress(TrainingError):  # a lost loss is lost in all processes, and the first says so
        for _ in trainer.run():
            pass


def _trainer(shard: Shard, settings: Config, shared: Shared, folder: TrialFolder) -> tuple[ModelCard, Trainer]:
    """The trainer of one process of a trial."""
    torch.set_num_threads(max(1, int(settings.tune.cpus_per_trial)))
    # a trial that asked for no GPU must not crowd one
    device = devices.device_for(settings.device if settings.tune.gpus_per_trial else "cpu")
    return trainer_for(settings, ray.get(shared[0]), device, folder, shard=shard, wrap=distributed.averaging)
