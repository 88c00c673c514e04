"""One trial: train one configuration in one process or several, and report each validated epoch to Tune."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, replace
from typing import Any

import ray
import torch
from ray import tune

from genre.errors import TrainingError
from genre.features.cache import ClipCache
from genre.features.windows import Shard
from genre.model.card import ModelCard
from genre.settings import Config
from genre.storage import Location
from genre.training import experiment, sharing
from genre.training.experiment import Data, Experiment
from genre.training.trainer import Trainer
from ray_jobs.search import distributed, exits, space
from ray_jobs.search.resources import TrialResources
from ray_jobs.search.trial_folder import Record, TrialFolder
from ray_jobs.search.trial_spec import TrialSpec


@exits.record_faults
def train_trial(trial: dict[str, Any], base: Config, cache: ClipCache, resources: TrialResources) -> None:
    """Train `base` with the settings of a `TrialSpec`, resuming from its folder; save the model at the end.

    `trial` is the `config` of a Tune trial. A loss that is not finite is reported as a result and not raised.
    """
    spec = TrialSpec.of(trial)
    planned, folder = space.experiment(base, spec.settings), TrialFolder(Location.of(spec.folder))
    record = replace(folder.record() or Record({}), settings=spec.settings).started()
    folder.write(record)
    with distributed.process_group(_follow, planned, cache, folder, resources) as shard:
        card, trainer = _trainer(shard, planned, cache, folder, resources)
        earlier = len(trainer.history)
        try:
            for epoch in trainer.run():
                folder.save_state(trainer.state())
                record = record.reached(trainer.history)
                folder.write(record)
                tune.report(asdict(epoch) | {"trial_seconds": record.seconds})
        except TrainingError as error:
            # a result, not a crash: a second try with the same settings would fail in the same way
            record = replace(record.reached(trainer.history), ended="failed", failure=str(error))
            folder.write(record)
            report = {"epoch": record.epochs, "best_f1": record.best_f1 or 0.0, "trial_seconds": record.seconds}
            tune.report(report | {"failure": str(error)})
            return
        experiment.save_best(folder.model, card, trainer)
    if len(trainer.history) == earlier:  # only the model is missing; Tune needs a report of each trial
        # before the end is recorded: this report may make Tune stop a trial that train.patience ended
        tune.report(asdict(trainer.history[-1]) | {"trial_seconds": record.seconds})
    folder.write(replace(record.reached(trainer.history), ended="finished"))


def trainer_for(
    planned: Experiment, data: Data, device: torch.device, folder: TrialFolder, **distribution: Any
) -> tuple[ModelCard, Trainer]:
    """Return a trainer with the state in `folder`, if any; `distribution` is for `experiment.trainer_for`."""
    card, trainer = experiment.trainer_for(planned, data, device, **distribution)
    if (state := folder.load_state()) is not None:
        trainer.restore(state)
    return card, trainer


def _follow(
    shard: Shard, planned: Experiment, cache: ClipCache, folder: TrialFolder, resources: TrialResources
) -> None:
    """Train in a process other than the first; only the first one reports and writes."""
    card, trainer = _trainer(shard, planned, cache, folder, resources)
    with contextlib.suppress(TrainingError):  # the loss is the same in all processes, and the first reports it
        for _ in trainer.run():
            pass
        experiment.save_best(folder.model, card, trainer)


def _trainer(
    shard: Shard, planned: Experiment, cache: ClipCache, folder: TrialFolder, resources: TrialResources
) -> tuple[ModelCard, Trainer]:
    """Return the trainer of one process of a trial."""
    torch.set_num_threads(resources.threads)
    machine = ray.get_runtime_context().get_node_id()
    data, shard = sharing.open_data(cache, shard, machine)
    return trainer_for(planned, data, resources.torch_device(), folder, shard=shard, wrap=distributed.average_gradients)
