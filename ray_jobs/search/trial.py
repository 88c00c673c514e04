"""One trial: train one configuration in one process or several, and report each epoch to Tune.

With tune.folds a trial trains a network for each fold, one after another. Only the epochs of the first are compared
with those of other trials; the score of the trial is the mean over its folds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from ray import tune

from genre.errors import GenreError, TrainingError
from genre.features import Features
from genre.features.cache import ClipCache
from genre.features.columns import combined
from genre.features.splitting import folds
from genre.features.splitting.folds import NOT_TEST, Fold
from genre.features.windows import Worker
from genre.model import calibration
from genre.model.card import ModelCard
from genre.settings import Config
from genre.storage import Location
from genre.training import experiment, fold_predictions, sharing
from genre.training.experiment import Data, Experiment
from genre.training.trainer import Epoch, Trainer
from ray_jobs.search import distributed, exits, space
from ray_jobs.search.resources import TrialResources
from ray_jobs.search.trial_folder import FoldResult, Record, TrialFolder, TrialSpec


class DivergenceError(Exception):
    """The loss of a training is not finite: a second try with the same settings would fail in the same way."""


@exits.record_faults
def train_trial(trial: dict[str, Any], base: Config, cache: ClipCache, resources: TrialResources, mailbox: Any) -> None:
    """Train `base` with the settings of a `TrialSpec`, resuming from its folder; save the model at the end.

    `trial` is the `config` of a Tune trial. `mailbox` takes messages about the copy of the clips. A loss that is not
    finite is reported as a result and not raised.
    """
    spec = TrialSpec.of(trial)
    folder = TrialFolder(Location.of(spec.folder))
    record = replace(folder.record() or Record({}), settings=spec.settings).started()
    planned = space.experiment(base, spec.settings)
    work: SplitTraining
    if spec.repeats:
        source = TrialFolder(Location.of(spec.repeats))
        result = source.record()
        assert result is not None
        work = Repeat(planned, cache, folder, resources, mailbox, base.tune.folds, base.seed, source, result)
        record = replace(record, folds=result.folds)
    elif base.tune.folds:
        with _reading(cache.features):
            all_folds = folds.of_search(cache.features.tracks(), base.tune.folds, base.seed)
        work = Folds(planned, cache, folder, resources, mailbox, all_folds[len(record.folds) :])
    else:
        work = SplitTraining(planned, cache, folder, resources, mailbox)
    log = Log(folder, record)
    with distributed.process_group(_follow, work) as worker:
        try:
            work.train(worker, log)
        except DivergenceError as error:
            log.fail(str(error))
            return
    log.finish(planned.train.epochs, 0 if spec.repeats else base.tune.folds)


class Log:
    """The record of a trial: its first process writes it, and reports it to Tune."""

    def __init__(self, folder: TrialFolder, record: Record) -> None:
        self._folder, self.record, self._has_reported = folder, record, False
        self._fold = 0  # that is trained; 0: of a training without folds
        folder.write(record)

    def resume(self, trainer: Trainer, fold: int = 0) -> None:
        """Record the epochs of `fold` (0: of a training without folds) that `trainer` has trained."""
        self._fold = fold
        if fold > 1:
            self.record = self.record.reached_later(trainer.history[-1].epoch if trainer.history else 0)
        else:
            self.record = self.record.reached(trainer.history)

    def reached(self, trainer: Trainer, fold: int = 0) -> None:
        """Keep the state after the last epoch of `fold`, and report it."""
        self._folder.save_state(trainer.state(), fold)
        self.resume(trainer, fold)
        self._folder.write(self.record)
        known = {key: value for key, value in asdict(trainer.history[-1]).items() if value is not None}
        self._report(known | ({"best_f1": self.record.best_f1, "fold": fold} if fold > 1 else {}))

    def finished_fold(self, trainer: Trainer) -> None:
        """Record the result of a fold, whose predictions are saved."""
        last = trainer.history[-1]
        result = FoldResult(last.best_f1, last.best_epoch, last.epoch)
        self.record = replace(self.record, folds=[*self.record.folds, result]).reached_later(0)
        self._folder.write(self.record)

    def fail(self, failure: str) -> None:
        """Record and report that the loss is not finite."""
        self.record = replace(self.record.now(), ended="failed", failure=failure)
        self._folder.write(self.record)
        if self._fold > 1:  # its epochs are compared with nothing
            epoch = self.record.epochs - sum(fold.epochs for fold in self.record.folds)
            self._report(self._summary(epoch) | {"failure": failure, "fold": self._fold})
        else:
            self._report(self._summary(self.record.epochs) | {"failure": failure})

    def finish(self, epochs: int, count: int) -> None:
        """Record that the model is saved; with `count` folds (0: none), report their mean at the last of `epochs`."""
        # before the end is recorded: this report may make Tune stop a trial that train.patience ended
        if count:
            self._report(self._summary(epochs) | {"fold": count})
        elif not self._has_reported:  # only the model was missing; Tune needs a report of each trial
            self._report(self._summary(self.record.epochs))
        self._folder.write(replace(self.record.now(), ended="finished"))

    def _summary(self, epoch: int) -> dict[str, Any]:
        return {"epoch": epoch, "best_f1": self.record.best_f1 or 0.0}

    def _report(self, result: dict[str, Any]) -> None:
        self._has_reported = True
        tune.report(result | {"trial_seconds": self.record.seconds})


@dataclass(frozen=True)
class SplitTraining:
    """The training of a trial on the training split, in each of its processes. Only the first has a `log`."""

    planned: Experiment
    cache: ClipCache
    folder: TrialFolder
    resources: TrialResources
    mailbox: Any  # takes messages

    def train(self, worker: Worker, log: Log | None) -> None:
        """Train and save the model. Raises `DivergenceError`."""
        card, trainer = self._trainer(worker)
        _run(trainer.run(), trainer, log)
        experiment.save_best(self.folder.model, card, trainer)

    def _trainer(self, worker: Worker, fold: Fold | None = None) -> tuple[ModelCard, Trainer]:
        """Return the trainer of this process, with the state in the folder."""
        torch.set_num_threads(self.resources.threads)
        machine = ray.get_runtime_context().get_node_id()
        with _reading(self.cache.features):
            cached, worker = sharing.open_data(cache_of(self.cache, fold), worker, machine, self.mailbox.put.remote)
        data = Data.of(cached.clips, cached.statistics, self.cache.features.manifest)
        number, device = fold.number if fold else 0, self.resources.torch_device()
        wrap = distributed.average_gradients
        return trainer_for(self.planned, data, device, self.folder, number, worker=worker, wrap=wrap)


@dataclass(frozen=True)
class Folds(SplitTraining):
    """The trainings of a trial for the folds that are `missing`, one after another."""

    missing: list[Fold]

    def train(self, worker: Worker, log: Log | None) -> None:
        """Train each fold, save its predictions, and the model of the first. Raises `DivergenceError`."""
        for fold in self.missing:
            self._train_fold(fold, worker, log)

    def _train_fold(self, fold: Fold, worker: Worker, log: Log | None) -> None:
        card, trainer = self._trainer(worker, fold)
        _run(trainer.run(), trainer, log, fold.number)
        if fold.number == 1:
            probabilities = experiment.save_best(self.folder.model, card, trainer, **facts_of(fold))
        else:
            probabilities = experiment.best_predictions(trainer)
        if log is not None and probabilities is not None:
            fold_predictions.write(self.folder.predictions(fold.number), trainer.valid.track_ids, probabilities)
            log.finished_fold(trainer)


@dataclass(frozen=True)
class Repeat(SplitTraining):
    """The final training with a trial's settings, on all tracks that are not test, to the epoch its folds chose."""

    count: int  # of the folds of the trial
    folds_seed: int
    source: TrialFolder  # of the trial
    result: Record  # of the trial

    def train(self, worker: Worker, log: Log | None) -> None:
        """Train without validation, and save the model with the predictions of the folds. Raises `DivergenceError`."""
        card, trainer = self._trainer(worker, Fold.none_of(NOT_TEST))
        last = self.result.epochs_to_train(self.planned.train.epochs)
        _run(trainer.run_to(last, self.result.best_f1 or 0.0), trainer, log)
        if log is not None:
            finished = len(self.result.folds)
            experiment.save_weights(self.folder.model, card, trainer, folds=finished, trained_on=list(NOT_TEST))
            self._calibrate()

    def _calibrate(self) -> None:
        """Give the model the predictions of the folds, which are of networks that did not learn from their tracks."""
        features, finished = self.cache.features, len(self.result.folds)
        if not finished:
            return
        with _reading(features):
            tracks = features.tracks()
        drawn_with = folds.of_search(tracks, self.count, self.folds_seed)[0].seed
        fold = folds.assign(tracks, self.count, drawn_with, NOT_TEST)
        held_out = tracks.filter(pa.array((fold > 0) & (fold <= finished)))
        ids = combined(held_out["track_id"])
        files = [self.source.predictions(number) for number in range(1, finished + 1)]
        probabilities = fold_predictions.joined(files, ids, len(features.classes))
        labels = np.asarray(features.labels(held_out))
        calibration.save(self.folder.model, ids.to_pylist(), labels, probabilities, self.count)


def trainer_for(
    planned: Experiment, data: Data, device: torch.device, folder: TrialFolder, fold: int = 0, **distribution: Any
) -> tuple[ModelCard, Trainer]:
    """Like `experiment.trainer_for`, which takes `distribution`, from the state of `fold` in `folder`, if any."""
    card, trainer = experiment.trainer_for(planned, data, device, **distribution)
    if (state := folder.load_state(fold)) is not None:
        trainer.restore(state)
    return card, trainer


def facts_of(fold: Fold | None) -> dict[str, Any]:
    """Return for the card of a model what it learned from, if that is not the training split."""
    if fold is None:
        return {}
    held_out = {"number": fold.number, "count": fold.count, "seed": fold.seed}
    known = {"trained_on": list(fold.splits), "trained_share": 1 - 1 / fold.count}
    return known | {"fold": str(fold), "held_out": held_out}


@contextlib.contextmanager
def _reading(features: Features) -> Iterator[None]:
    """Raise `StorageError` in place of an error in the block if the features are away; no settings are to blame."""
    try:
        yield
    except (GenreError, OSError) as error:
        features.check_present(error)
        raise


def cache_of(cache: ClipCache, fold: Fold | None) -> ClipCache:
    """Return the clips with `fold` in place of the splits. Raises `ArtifactError` like `check_leakage`."""
    if fold is None:
        return cache
    view = cache.features.of_fold(fold)
    experiment.check_leakage(view)
    return ClipCache.of(view, cache.settings)


def _run(epochs: Iterator[Epoch], trainer: Trainer, log: Log | None, fold: int = 0) -> None:
    """Train the `epochs` of `trainer`, and log each. Raises `DivergenceError`."""
    if log is not None:
        log.resume(trainer, fold)
    try:
        for _ in epochs:
            if log is not None:
                log.reached(trainer, fold)
    except TrainingError as error:
        raise DivergenceError(str(error)) from None


def _follow(worker: Worker, work: SplitTraining) -> None:
    """Train in a process other than the first; only the first one reports and writes."""
    with contextlib.suppress(DivergenceError):  # the loss is the same in all processes, and the first reports it
        work.train(worker, None)
