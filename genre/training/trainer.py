"""The training loop, for one process or several. It knows neither Ray nor files."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genre import memory
from genre.arrays import Float32
from genre.errors import TrainingError
from genre.evaluation.metrics import Scores
from genre.features import Clips, windows
from genre.features.windows import Worker
from genre.model.classifier import Classifier, predict, to_device
from genre.settings import TrainSettings
from genre.training import optimiser, workers
from genre.training.augmentation import Augmentation, seeded
from genre.training.autocast import autocast_type
from genre.training.optimiser import Updates
from genre.training.validation import Validator, epochs_per_validation

State = dict[str, Any]


@dataclass(frozen=True)
class Epoch:
    """Results of an epoch, with the scores of the evaluated weights on the validation tracks; None: not validated.

    `train_loss`, `seconds`, `windows_per_second` and `data_wait_seconds` cover all epochs since the last result.
    """

    epoch: int  # 1, 2, ...
    train_loss: float
    valid_loss: float | None
    valid_accuracy: float | None
    valid_f1: float | None
    best_f1: float
    best_epoch: int
    learning_rate: float
    seconds: float
    windows_per_second: float
    data_wait_seconds: float  # time that training waited for windows


@dataclass(frozen=True)
class TrainingPass:
    """One epoch of training without validation; loss and windows are those of all workers."""

    loss: float
    windows: int
    data_wait_seconds: float


class Trainer:
    """Trains a classifier and keeps the weights of its best validated epoch; without validation, of the last one.

    With several workers each has all data, or the share of its machine, and trains on its share of every batch; `wrap`
    returns a network that averages its gradients over the workers. `batch_size` and `learning_rate` are those of the
    global batch, so neither depends on the number of workers. Batch norm normalises each worker's share separately, as
    in Goyal et al., "Accurate, large minibatch SGD", arXiv 1706.02677; its running statistics are averaged over the
    workers before each validation, and at the end of `run_to`.

    Raises `ConfigError` when a worker's share of a batch is too small for batch norm.
    """

    def __init__(
        self,
        classifier: Classifier,
        train: Clips,
        valid: Clips,
        classes: int,
        settings: TrainSettings,
        seed: int = 0,
        worker: Worker = Worker(),
        wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
    ) -> None:
        self.classifier = classifier
        self.valid = valid
        self.settings, self.seed, self.worker = settings, seed, worker
        self.history: list[Epoch] = []
        self.best: State = {}  # weights of the best epoch, after `run_to` of the last one
        self._train, self._classes = train, classes
        self._device = classifier.mean.device
        self._autocast = autocast_type(settings.dtype, self._device, classifier)
        self._frames = train.shape.frames_in(settings.window_seconds)
        self._per_clip = windows.per_epoch(settings, train.shape)
        self._plan = windows.plan(train.total, self._per_clip, settings.batch_size, worker.world)
        self._validator = Validator(valid, classes, self._frames, settings.eval_windows, worker, self._autocast)
        self._epochs_per_validation = epochs_per_validation(
            train.total * self._per_clip,
            valid.total * len(windows.eval_starts(self._frames, valid.shape.frames, settings.eval_windows)),
        )
        self._network = wrap(classifier.network)
        self._updates = Updates(classifier, settings, settings.epochs * self._plan.steps)
        self._class_weights = (
            optimiser.class_weights(train, classes).to(self._device) if settings.class_weights else None
        )

    def run(self) -> Iterator[Epoch]:
        """Train from the end of `history`; yield each validated epoch.

        Every epoch is validated, or every few epochs where validation would take more than a fifth of the work. The
        last epoch is always validated. Raises `TrainingError` when a loss is not finite.
        """
        memory.keep_freed()
        while self._epochs_done() < self.settings.epochs and not self._out_of_patience():
            first = self._epochs_done() + 1
            yield self._train_and_validate(
                range(first, min(first + self._epochs_per_validation, self.settings.epochs + 1))
            )

    def run_to(self, last: int, f1: float = 0.0) -> Iterator[Epoch]:
        """Train from the end of `history` to epoch `last` without validation; yield each epoch, keep the last weights.

        The schedule is that of `settings.epochs`. `f1` is the score by which `last` was chosen elsewhere; it is
        recorded as that of the best epoch, 0 where nothing chose it. Raises `TrainingError` when a loss is not finite.
        """
        memory.keep_freed()
        for number in range(self._epochs_done() + 1, last + 1):
            started = time.perf_counter()
            passes = [self.train_epoch(number)]
            if number == last:
                self._finish_batch_statistics()
                self.best = copy.deepcopy(self._updates.evaluated.state_dict())
            yield self._recorded(number, passes, started, time.perf_counter() - started, (f1, last))

    def train_epoch(self, number: int) -> TrainingPass:
        """Train epoch `number` (1, 2, ...) without validation. Raises `TrainingError` when the loss is not finite."""
        # all random numbers follow from the epoch's number, so that a resumed run equals an uninterrupted one
        rng = seeded(self.seed, number, self.worker.rank)
        batch_shape = (self._plan.share, self._train.shape.bins, self._frames)
        augment = Augmentation(self.settings, self.classifier, batch_shape, self._classes, rng)
        self._network.train()
        total = torch.zeros((), device=self._device)
        batches = Timed(self._batches(number))
        for spectrograms, peak_db, labels in batches:
            total += self._step(*augment(spectrograms, peak_db, labels))
        # the only point of an epoch at which the host waits for the device
        mean = float(workers.sum_over_workers(total)) / (self._plan.steps * self.worker.world)
        if not math.isfinite(mean):
            raise TrainingError(f"the loss is {mean} in epoch {number}; lower train.learning_rate")
        return TrainingPass(mean, self._plan.steps * self._plan.share * self.worker.world, batches.wait_seconds)

    def use_best(self) -> Classifier:
        """Load the weights of the best epoch into the classifier and return it."""
        self.classifier.load_state_dict(self.best)
        self.classifier.eval()
        return self.classifier

    def best_predictions(self) -> Float32:
        """Return the probabilities of the best epoch for all validation tracks, (tracks, classes).

        Loads the weights of that epoch into the classifier, so the training cannot continue. All workers have to call
        this when each machine has a share of the tracks.
        """
        best, settings = self.use_best(), self.settings
        if self.worker.peers is None:
            return predict(best, self.valid, self._frames, settings.eval_windows)
        own = predict(best, self.valid, self._frames, settings.eval_windows, worker=self.worker)
        padded = np.zeros((len(own), self._classes), np.float32)
        padded[:, : own.shape[1]] = own
        total: Float32 = workers.sum_over_workers(torch.from_numpy(padded).to(self._device)).cpu().numpy()
        return total

    def state(self) -> State:
        """Return everything needed to resume, as tensors and plain values.

        The tensors are not copies: write them before the next epoch changes them.
        """
        return self._updates.state() | {"best": self.best, "history": [asdict(epoch) for epoch in self.history]}

    def restore(self, state: State) -> None:
        """Continue from the `state` of a training with the same settings."""
        self._updates.restore(state)
        self.best = state["best"]
        self.history = [Epoch(**epoch) for epoch in state["history"]]

    def _train_and_validate(self, epochs: range) -> Epoch:
        """Train `epochs`, then validate; keep the weights if they are the best so far.

        Of epochs with one macro F1, the one with the lowest loss is the best: a few validation tracks are soon all
        correct, by weights that have learned little yet.
        """
        started, number = time.perf_counter(), epochs[-1]
        passes = [self.train_epoch(epoch) for epoch in epochs]
        train_seconds = time.perf_counter() - started
        loss, scores = self._validate()
        if not math.isfinite(loss):
            raise TrainingError(f"the validation loss is {loss} after epoch {number}; lower train.learning_rate")
        if not self.history or (scores.f1, -loss) > self._best_score():
            self.best = copy.deepcopy(self._updates.evaluated.state_dict())
            best = (scores.f1, number)
        else:
            best = (self.history[-1].best_f1, self.history[-1].best_epoch)
        return self._recorded(number, passes, started, train_seconds, best, loss, scores)

    def _best_score(self) -> tuple[float, float]:
        """Return macro F1 and negative loss of the best epoch in `history`."""
        last = self.history[-1]
        losses = [epoch.valid_loss for epoch in self.history if epoch.epoch == last.best_epoch]
        return last.best_f1, -losses[0] if losses[0] is not None else -math.inf

    def _recorded(
        self,
        number: int,
        passes: list[TrainingPass],
        started: float,
        train_seconds: float,
        best: tuple[float, int],
        loss: float | None = None,
        scores: Scores | None = None,
    ) -> Epoch:
        """Append the result of epoch `number` and those before it in `passes` to the history; return it."""
        epoch = Epoch(
            epoch=number,
            train_loss=sum(each.loss for each in passes) / len(passes),
            valid_loss=loss,
            valid_accuracy=scores.accuracy if scores is not None else None,
            valid_f1=scores.f1 if scores is not None else None,
            best_f1=best[0],
            best_epoch=best[1],
            learning_rate=self._updates.learning_rate,
            seconds=time.perf_counter() - started,
            windows_per_second=sum(each.windows for each in passes) / train_seconds,
            data_wait_seconds=sum(each.data_wait_seconds for each in passes),
        )
        self.history.append(epoch)
        return epoch

    def _batches(self, number: int) -> Iterator[list[Tensor]]:
        """Yield spectrograms, peaks and labels of this worker's share of each batch, on the device."""
        for batch in windows.training_windows(
            self._train, self._frames, self._per_clip, self.settings.batch_size, (self.seed, number), self.worker
        ):
            yield to_device(self._device, batch.spectrograms, batch.peak_db, batch.labels)

    def _step(self, x: Tensor, targets: Tensor) -> Tensor:
        """Take an optimiser step on windows (batch, 1, bins, frames); return the loss, still on the device."""
        with torch.autocast(self._device.type, self._autocast, enabled=self._autocast is not None):
            logits = self._network(x)
        return self._updates.step(self._loss(logits.float(), targets))

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross entropy over windows; logits and targets are (batch, classes).

        The sum is divided by the number of windows, not by the sum of their class weights, so that the mean over the
        equal shares of several workers is the mean over the batch.
        """
        return nn.functional.cross_entropy(
            logits, targets, self._class_weights, label_smoothing=self.settings.label_smoothing
        )

    def _validate(self) -> tuple[float, Scores]:
        """Return loss and scores of the evaluated weights."""
        self._finish_batch_statistics()
        return self._validator(self._updates.evaluated)

    def _finish_batch_statistics(self) -> None:
        """Make the running statistics of batch norm equal in all workers."""
        evaluated = self._updates.evaluated
        averaged = [evaluated.network] if evaluated is not self.classifier else []
        workers.average_batch_statistics([self.classifier.network, *averaged], self.worker.world)

    def _epochs_done(self) -> int:
        """Return the number of epochs whose results are in `history`."""
        return self.history[-1].epoch if self.history else 0

    def _out_of_patience(self) -> bool:
        """Whether macro F1 did not improve in the last `patience` epochs."""
        if not self.settings.patience or not self.history:
            return False
        improved = next(epoch.epoch for epoch in self.history if epoch.valid_f1 == self.history[-1].best_f1)
        return self._epochs_done() - improved >= self.settings.patience


class Timed(Iterator[list[Tensor]]):
    """An iterator that measures the time that its consumer waits."""

    def __init__(self, source: Iterator[list[Tensor]]) -> None:
        self.wait_seconds = 0.0
        self._source = source

    def __next__(self) -> list[Tensor]:
        started = time.perf_counter()
        try:
            return next(self._source)
        finally:
            self.wait_seconds += time.perf_counter() - started
