"""The training loop: one for one CPU process and for many GPU workers. Knows neither Ray nor paths."""

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
from genre.config import TrainSettings
from genre.errors import TrainingError
from genre.evaluation import metrics
from genre.features import Clips, windows
from genre.features.windows import Shard
from genre.model import layout
from genre.model.classifier import Classifier, predict, to_device
from genre.training import augmentation, optimiser

State = dict[str, Any]

_EVAL_BATCH = 64  # windows
_VALIDATION_SHARE = 0.2  # of the work of a training, at most
_TRAINING_COST = 3.0  # forward passes that cost as much as one window of training: forward, and backward twice that
_MIXSTYLE_BETA = 0.3  # of the weights' beta distribution, as published


@dataclass(frozen=True)
class Epoch:
    """Results of a validated epoch. Scores are of the validation tracks, with the averaged weights where those are on.

    `train_loss`, `seconds`, `windows_per_second` and `data_wait_seconds` cover all epochs since the last validation.
    """

    epoch: int  # 1, 2, ...
    train_loss: float
    valid_loss: float
    valid_accuracy: float
    valid_f1: float
    best_f1: float
    best_epoch: int
    learning_rate: float
    seconds: float
    windows_per_second: float
    data_wait_seconds: float  # in which training waited for windows


class Trainer:
    """Trains a classifier and keeps the weights of its best validation epoch.

    With several workers each holds the same data and trains its share of every global batch; `wrap` makes
    the network average gradients. `batch_size` is the global batch and `learning_rate` belongs to it, so
    neither changes with the number of workers. Batch norm normalises each worker's share by itself, as in
    Goyal et al., "Accurate, large minibatch SGD", arXiv 1706.02677; what it remembers for evaluation is the
    mean over the workers, taken after each epoch.

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
        shard: Shard = Shard(),
        wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
    ) -> None:
        self.classifier = classifier
        self.history: list[Epoch] = []
        self.best: State = {}
        self._classes = classes
        self.valid = valid  # what `best` is chosen by
        self.settings, self.seed = settings, seed
        self._train, self._shard = train, shard
        self._device = classifier.mean.device
        self._autocast = autocast_type(settings.precision, self._device, classifier)
        self._frames = windows.frames_in(settings.window_seconds, train.shape)
        self._per_clip = windows.per_epoch(settings.windows_per_clip, self._frames, train.shape.frames)
        self._plan = windows.plan(len(train), self._per_clip, settings.batch_size, shard.world)
        self._every = epochs_per_validation(
            len(train) * self._per_clip,
            len(valid) * len(windows.eval_starts(self._frames, valid.shape.frames, settings.eval_windows)),
        )
        self._network = wrap(classifier.network)
        self._parameters = list(classifier.parameters())
        self._average = optimiser.moving_average(classifier, settings.ema)
        self._optimizer = optimiser.adamw(self._parameters, settings)
        self._schedule = optimiser.one_cycle(self._optimizer, settings, settings.epochs * self._plan.steps)
        self._targets = torch.eye(classes, device=self._device)  # row by row what each class should be answered
        self._class_weights = (
            optimiser.class_weights(train, classes).to(self._device) if settings.class_weights else None
        )

    def run(self) -> Iterator[Epoch]:
        """Continue from the end of `history`; yield each validated epoch. Raises `TrainingError` for a lost loss.

        Validation follows every epoch, or every few where it would otherwise take more than a fifth of the work.
        The last epoch is always validated.
        """
        memory.keep_freed()
        while self._trained() < self.settings.epochs and not self._out_of_patience():
            first = self._trained() + 1
            yield self._validated(range(first, min(first + self._every, self.settings.epochs + 1)))

    def use_best(self) -> Classifier:
        """The classifier with the weights of its best epoch."""
        self.classifier.load_state_dict(self.best)
        self.classifier.eval()
        return self.classifier

    def state(self) -> State:
        """Everything needed to go on later, tensors and plain values only: the live ones, to be written at once."""
        return {
            "classifier": self.classifier.state_dict(),
            "average": self._average.state_dict() if self._average else None,
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "best": self.best,
            "history": [asdict(epoch) for epoch in self.history],
        }

    def restore(self, state: State) -> None:
        """Go back to a `state` of the same settings."""
        self.classifier.load_state_dict(state["classifier"])
        if self._average:
            self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self.best = state["best"]
        self.history = [Epoch(**epoch) for epoch in state["history"]]

    def _trained(self) -> int:
        """Epochs that were trained and validated."""
        return self.history[-1].epoch if self.history else 0

    def _validated(self, epochs: range) -> Epoch:
        """Train `epochs`, then validate."""
        started, number = time.perf_counter(), epochs[-1]
        losses, counts, waits = zip(*(self._train_epoch(epoch) for epoch in epochs), strict=True)
        trained = time.perf_counter() - started
        loss, scores = self._validate()
        if not math.isfinite(loss):
            raise TrainingError(f"the validation loss is {loss} after epoch {number}; lower train.learning_rate")
        best = self.history[-1] if self.history else None
        improved = best is None or scores.f1 > best.best_f1
        if improved:
            self.best = copy.deepcopy(self._evaluated().state_dict())
        epoch = Epoch(
            epoch=number,
            train_loss=sum(losses) / len(losses),
            valid_loss=loss,
            valid_accuracy=scores.accuracy,
            valid_f1=scores.f1,
            best_f1=scores.f1 if best is None or improved else best.best_f1,
            best_epoch=number if best is None or improved else best.best_epoch,
            learning_rate=float(self._schedule.get_last_lr()[0]),
            seconds=time.perf_counter() - started,
            windows_per_second=sum(counts) / trained,
            data_wait_seconds=sum(waits),
        )
        self.history.append(epoch)
        return epoch

    def _train_epoch(self, number: int) -> tuple[float, int, float]:
        """Mean loss over all workers' windows, how many windows this took, and the seconds without any."""
        settings = self.settings
        # chance follows from the epoch's number, so that a resumed run equals an undisturbed one
        entropy = np.random.SeedSequence((self.seed, number, self._shard.rank))
        self._rng = np.random.default_rng(entropy)
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))
        share, bins = self._plan.share, self._train.shape.bins
        self._levels = augmentation.level_changes(share, bins, settings.gain_db, settings.equaliser_db, self._device)
        self._masks = augmentation.masks(share, bins, self._frames, settings.mel_mask, settings.time_mask, self._device)
        self._network.train()
        total = torch.zeros((), device=self._device)
        batches = windows.training_windows(
            self._train, self._frames, self._per_clip, settings.batch_size, (self.seed, number), self._shard
        )
        source = _Timed(to_device(self._device, batch.spectrograms, batch.peak_db, batch.labels) for batch in batches)
        for spectrograms, peak_db, labels in source:
            total += self._step(spectrograms, peak_db, labels)
        # the only place where the host waits for the device in an epoch of training
        mean = float(sum_over_workers(total)) / (self._plan.steps * self._shard.world)
        if not math.isfinite(mean):
            raise TrainingError(f"the loss is {mean} in epoch {number}; lower train.learning_rate")
        return mean, self._plan.steps * self._plan.share * self._shard.world, source.seconds

    def _step(self, spectrograms: Tensor, peak_db: Tensor, labels: Tensor) -> Tensor:
        """One optimiser step; the loss, still on the device."""
        x, targets = self._augmented(spectrograms, peak_db, labels)
        with torch.autocast(self._device.type, self._autocast or torch.bfloat16, enabled=self._autocast is not None):
            logits = self._network(x.unsqueeze(1))
        loss = self._loss(logits.float(), targets)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.settings.clip_norm:
            nn.utils.clip_grad_norm_(self._parameters, self.settings.clip_norm)
        self._optimizer.step()
        self._schedule.step()
        if self._average:
            self._average.update_parameters(self.classifier)
        return loss.detach()

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy, (batch, classes) both; the mean over the windows, whatever their classes weigh.

        A mean over the weights would not be the mean of the means over several workers' shares.
        """
        return nn.functional.cross_entropy(
            logits, targets, self._class_weights, label_smoothing=self.settings.label_smoothing
        )

    def _augmented(self, spectrograms: Tensor, peak_db: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised windows and their targets, (batch, classes); what is switched off costs nothing."""
        settings, targets = self.settings, self._targets[labels]
        if settings.gain_db or settings.equaliser_db:
            peak_db = peak_db.unsqueeze(1) + next(self._levels)
        x = self.classifier.normalised(spectrograms, peak_db)
        if self._rng.random() < settings.mixstyle:
            kept = self._rng.beta(_MIXSTYLE_BETA, _MIXSTYLE_BETA, len(x)).astype(np.float32)
            x = augmentation.mixstyle(x, *to_device(self._device, kept))
        if settings.mixup:
            # normalising is affine, so that blending after it is blending before it
            x, targets = augmentation.mixup(x, targets, self._rng.beta(settings.mixup, settings.mixup))
        if settings.mel_mask or settings.time_mask:
            kept_bins, kept_frames = next(self._masks)
            x.mul_(kept_bins).mul_(kept_frames)
        return x, targets

    def _validate(self) -> tuple[float, metrics.Scores]:
        """Loss and scores over all validation tracks, from sums over the workers: the same for any number of them."""
        self._share_batch_statistics()
        probabilities = predict(
            self._evaluated(),
            self.valid,
            self._frames,
            self.settings.eval_windows,
            _EVAL_BATCH,
            self._shard,
            self._autocast,
        )
        tracks = np.flatnonzero(probabilities.any(axis=1))
        counts = np.zeros((self._classes, self._classes))
        likelihood = np.zeros(len(self.valid.labels))  # of each track, so that the order of summing is always the same
        if len(tracks):
            truth = self.valid.labels[tracks]
            counts += metrics.confusion_counts(truth, metrics.decisions(probabilities[tracks]), self._classes)
            likelihood[tracks] = np.log(np.maximum(probabilities[tracks, truth], 1e-12))
        sums = sum_over_workers(torch.from_numpy(np.append(counts.ravel(), likelihood)).to(self._device)).cpu().numpy()
        counts = sums[: counts.size].reshape(counts.shape)
        return float(-sums[counts.size :].mean()), metrics.scores(counts)

    def _share_batch_statistics(self) -> None:
        """Make batch norm's running statistics the mean over the workers, so that all evaluate the same network."""
        networks = [self.classifier.network, *([self._evaluated().network] if self._average else [])]
        buffers = [buffer for network in networks for buffer in network.buffers() if buffer.is_floating_point()]
        if self._shard.world == 1 or not buffers:
            return
        mean = sum_over_workers(torch.cat([buffer.flatten() for buffer in buffers])) / self._shard.world
        for buffer, part in zip(buffers, torch.split(mean, [buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))

    def _evaluated(self) -> Classifier:
        if self._average is None:
            return self.classifier
        averaged = self._average.module
        assert isinstance(averaged, Classifier)
        return averaged

    def _out_of_patience(self) -> bool:
        patience = self.settings.patience
        return bool(patience and self.history and self._trained() - self.history[-1].best_epoch >= patience)


class _Timed(Iterator[list[Tensor]]):
    """An iterator that knows how long it was waited for."""

    def __init__(self, source: Iterator[list[Tensor]]) -> None:
        self.seconds = 0.0
        self._source = source

    def __next__(self) -> list[Tensor]:
        started = time.perf_counter()
        try:
            return next(self._source)
        finally:
            self.seconds += time.perf_counter() - started


def epochs_per_validation(train_windows: int, valid_windows: int) -> int:
    """Epochs from one validation to the next, so that validating takes at most a fifth of the work.

    Counted in windows rather than measured, so that the same run validates the same epochs on every machine.
    """
    epochs = valid_windows * (1 / _VALIDATION_SHARE - 1) / (_TRAINING_COST * train_windows)
    return max(1, math.ceil(epochs))


def sum_over_workers(values: Tensor) -> Tensor:
    """`values` summed over all workers, where there are several."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
    return values


def autocast_type(precision: str, device: torch.device, network: nn.Module) -> torch.dtype | None:
    """The reduced type to compute in, or None for float32."""
    if precision == "bf16":
        return torch.bfloat16
    return torch.bfloat16 if precision == "auto" and _computes_bf16(device, network) else None


def _computes_bf16(device: torch.device, network: nn.Module) -> bool:
    """Whether bfloat16 is native there, rather than slowly emulated, and was never seen to fail.

    On CPUs it was seen to corrupt memory in ResNets of 4 and 8 channels: those that `layout.safe` excludes.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    # what oneDNN was told to leave unused (ONEDNN_MAX_CPU_ISA) it emulates, ten times slower than float32
    native = native and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bool(native and layout.safe(network))
