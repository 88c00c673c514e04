"""Train the body of a classifier without labels: two windows of a pair are alike, all others of the batch are not.

Chen, Kornblith, Norouzi, Hinton, "A simple framework for contrastive learning of visual representations", ICML 2020
(arXiv 2002.05709); on music Spijkervet and Burgoyne, "Contrastive learning of musical representations", ISMIR 2021
(arXiv 2103.09410). With pairs of an artist's tracks the labels are free: Alonso-Jimenez, Serra, Bogdanov, "Music
representation learning based on editorial metadata from Discogs", ISMIR 2022.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genre import memory
from genre.errors import TrainingError
from genre.features import Clips, pairs, windows
from genre.features.windows import Worker
from genre.model.classifier import Classifier, head_of, to_device
from genre.settings import PretrainSettings, TrainSettings
from genre.training import workers
from genre.training.augmentation import Augmentation, seeded
from genre.training.autocast import autocast_type
from genre.training.global_batch import gathered, normalise_over_workers
from genre.training.optimiser import Updates
from genre.training.trainer import Timed

_PROJECTED = 128  # dimensions in which windows are compared, as published


@dataclass(frozen=True)
class PretrainingEpoch:
    """Results of an epoch, over the windows of all workers."""

    epoch: int  # 1, 2, ...
    loss: float
    matched: float  # share of the windows that are nearer to the other window of their pair than to other instances
    learning_rate: float
    seconds: float
    windows_per_second: float
    data_wait_seconds: float  # time that training waited for windows


class Pretrainer:
    """Trains the body of a classifier, whose last layer is replaced by a projection until `body` is called.

    `settings` are those of training; their epochs and batch_size are already those of `pretraining`. With several
    workers each takes its share of the pairs of every batch, and the loss is that of the complete batch; `worker` and
    `wrap` are as in `Trainer`. Raises `ConfigError` where there are too few pairs.
    """

    def __init__(
        self,
        classifier: Classifier,
        clips: Clips,
        settings: TrainSettings,
        pretraining: PretrainSettings,
        seed: int = 0,
        worker: Worker = Worker(),
        wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
    ) -> None:
        self.settings, self.pretraining, self.seed, self.worker = settings, pretraining, seed, worker
        self.history: list[PretrainingEpoch] = []
        self._classifier, self._clips = classifier, clips
        self._device = classifier.mean.device
        self._frames = clips.shape.frames_in(settings.window_seconds)
        self._per_clip = windows.per_epoch(settings, clips.shape)
        self._plan = pairs.plan(clips.total, self._per_clip, settings.batch_size, worker.world)
        self._instances = pairs.instances_of(clips, pretraining.pairs)
        self._head, self._last_layer = head_of(classifier), classifier.head
        size = self._last_layer.in_features
        projection = nn.Sequential(nn.Linear(size, size), nn.ReLU(inplace=True), nn.Linear(size, _PROJECTED))
        classifier.set_submodule(self._head, projection.to(self._device))
        self._autocast = autocast_type(settings.dtype, self._device, classifier)
        normalise_over_workers(classifier.network, worker.world)
        self._network = wrap(classifier.network)
        self._updates = Updates(classifier, settings, settings.epochs * self._plan.steps)

    def run(self) -> Iterator[PretrainingEpoch]:
        """Train from the end of `history`; yield each epoch. Raises `TrainingError` when a loss is not finite."""
        memory.keep_freed()
        for number in range(len(self.history) + 1, self.settings.epochs + 1):
            self.history.append(self._train_epoch(number))
            yield self.history[-1]

    def body(self) -> Classifier:
        """Return the trained classifier with its own last layer, which was not trained. The training has ended."""
        body = self._updates.evaluated
        body.set_submodule(self._head, self._last_layer)
        return body.eval()

    def state(self) -> dict[str, Any]:
        """Return everything needed to resume, as in `Trainer.state`."""
        return self._updates.state() | {"history": [asdict(epoch) for epoch in self.history]}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from the `state` of a training with the same settings."""
        self._updates.restore(state)
        self.history = [PretrainingEpoch(**epoch) for epoch in state["history"]]

    def _train_epoch(self, number: int) -> PretrainingEpoch:
        started = time.perf_counter()
        # all random numbers follow from the epoch's number, so that a resumed run equals an uninterrupted one
        rng = seeded(self.seed, number, self.worker.rank)
        shape = (2 * self._plan.share, self._clips.shape.bins, self._frames)
        augment = Augmentation(self.settings, self._classifier, shape, 1, rng)
        self._network.train()
        sums = torch.zeros(2, device=self._device)
        batches = Timed(self._batches(number))
        for spectrograms, peak_db, instances in batches:
            x, _ = augment(spectrograms, peak_db, torch.zeros_like(instances))
            sums += self._step(x, instances)
        loss, matched = (workers.sum_over_workers(sums) / (self._plan.steps * self.worker.world)).tolist()
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} in epoch {number}; lower train.learning_rate")
        seconds = time.perf_counter() - started
        count = 2 * self._plan.steps * self._plan.share * self.worker.world
        rate = self._updates.learning_rate
        return PretrainingEpoch(number, loss, matched, rate, seconds, count / seconds, batches.wait_seconds)

    def _batches(self, number: int) -> Iterator[list[Tensor]]:
        """Yield spectrograms, peaks and instances of this worker's share of each batch, on the device."""
        batch_size, seed = self.settings.batch_size, (self.seed, number)
        for batch in pairs.training_pairs(
            self._clips, self._instances, self._frames, self._per_clip, batch_size, seed, self.worker
        ):
            yield to_device(self._device, batch.spectrograms, batch.peak_db, self._instances[batch.tracks])

    def _step(self, x: Tensor, instances: Tensor) -> Tensor:
        """Take a step on windows (batch, 1, bins, frames); return loss and share of matched windows, on the device."""
        with torch.autocast(self._device.type, self._autocast, enabled=self._autocast is not None):
            projected = self._network(x)
        loss, matched = nt_xent(projected.float(), instances, self.pretraining.temperature, self.worker)
        return torch.stack([self._updates.step(loss), matched])


def nt_xent(
    projected: Tensor, instances: Tensor, temperature: float, worker: Worker = Worker()
) -> tuple[Tensor, Tensor]:
    """Return the loss of this worker's windows among those of all workers, and the share that is matched.

    `projected` is (n, dimensions), where `i` and `n / 2 + i` are a pair, and `instances` (n,) are those of
    `pairs.instances_of`. The loss is the mean cross entropy of finding the other window of the pair by its cosine,
    divided by `temperature`. Windows of the same instance are not compared, except the pair. A window is matched if its
    pair is the nearest. The mean over the workers is the value of the complete batch.
    """
    own = nn.functional.normalize(projected, dim=1)
    everything, all_instances = gathered(own, worker), gathered(instances, worker)
    count = len(own)
    rows = torch.arange(count, device=own.device)
    pair = worker.rank * count + (rows + count // 2) % count
    ignored = instances.unsqueeze(1) == all_instances
    ignored[rows, pair] = False
    cosines = (own @ everything.T / temperature).masked_fill(ignored, -torch.inf)
    matched = (cosines.argmax(dim=1) == pair).float().mean()
    return nn.functional.cross_entropy(cosines, pair), matched.detach()
