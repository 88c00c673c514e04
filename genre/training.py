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
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from genre import augment, metrics, windows
from genre.classifier import Classifier, predict, to_device
from genre.config import TrainSettings
from genre.errors import TrainingError
from genre.features import Clips
from genre.windows import Shard

State = dict[str, Any]


@dataclass(frozen=True)
class Epoch:
    """What one epoch brought. Scores are of the validation tracks, with the averaged weights where those are on."""

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


class Trainer:
    """Trains a classifier and keeps the weights of its best validation epoch.

    With several workers each holds the same data and trains its share of every global batch; `wrap` makes
    the network synchronise gradients. The learning rate belongs to the global batch, whatever the number
    of workers.
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
        self._train, self._valid, self._settings = train, valid, settings
        self._seed, self._shard = seed, shard
        self._device = classifier.mean.device
        self._autocast = autocast_type(settings.precision, self._device)
        self._frames = windows.frames_in(settings.window_seconds, train)
        self._wrapped = wrap(classifier)
        self._average = _averaged(classifier, settings.ema)
        self._optimizer = _optimizer(classifier, settings, self._device)
        steps = settings.epochs * windows.steps_per_epoch(
            len(train), settings.windows_per_clip, settings.batch_size, shard.world
        )
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, settings.learning_rate, total_steps=steps + 1, pct_start=settings.warmup or 1 / (steps + 1)
        )
        weights = _class_weights(train, classes) if settings.class_weights else None
        self._loss = nn.CrossEntropyLoss(
            None if weights is None else weights.to(self._device), label_smoothing=settings.label_smoothing
        )

    def run(self) -> Iterator[Epoch]:
        """Train on from where `history` ends; yields after each epoch. Raises `TrainingError` for a lost loss."""
        while len(self.history) < self._settings.epochs and not self._out_of_patience():
            yield self._epoch(len(self.history) + 1)

    def use_best(self) -> Classifier:
        """The classifier with the weights of its best epoch."""
        self.classifier.load_state_dict(self.best)
        self.classifier.eval()
        return self.classifier

    def state(self) -> State:
        """Everything needed to go on later: tensors and plain values only."""
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

    def _epoch(self, number: int) -> Epoch:
        started = time.perf_counter()
        # drawn from the epoch's number, so that a resumed run equals an undisturbed one
        torch.manual_seed(hash((self._seed, number, self._shard.rank)))
        train_loss, seen = self._train_epoch(number)
        trained = time.perf_counter() - started
        loss, scores = self._validate()
        best = self.history[-1] if self.history else None
        improved = best is None or scores.f1 > best.best_f1
        if improved:
            self.best = copy.deepcopy(self._evaluated().state_dict())
        epoch = Epoch(
            epoch=number,
            train_loss=train_loss,
            valid_loss=loss,
            valid_accuracy=scores.accuracy,
            valid_f1=scores.f1,
            best_f1=scores.f1 if best is None or improved else best.best_f1,
            best_epoch=number if best is None or improved else best.best_epoch,
            learning_rate=float(self._schedule.get_last_lr()[0]),
            seconds=time.perf_counter() - started,
            windows_per_second=seen / trained,
        )
        self.history.append(epoch)
        return epoch

    def _train_epoch(self, number: int) -> tuple[float, int]:
        """Mean loss over all workers' windows, and how many windows this took."""
        settings = self._settings
        self._wrapped.train()
        total = torch.zeros((), device=self._device)
        steps = seen = 0
        for batch in windows.training_windows(
            self._train, self._frames, settings.windows_per_clip, settings.batch_size, (self._seed, number), self._shard
        ):
            total += self._step(*to_device(batch, self._device))
            steps += 1
            seen += len(batch.labels) * self._shard.world
        mean = float(sum_over_workers(total)) / (steps * self._shard.world)
        if not math.isfinite(mean):
            raise TrainingError(f"the loss is {mean} in epoch {number}; lower train.learning_rate")
        return mean, seen

    def _step(self, spectrograms: Tensor, peak_db: Tensor, labels: Tensor) -> Tensor:
        """One optimiser step; the loss, still on the device."""
        settings = self._settings
        levels = augment.random_gain(self.classifier.levels(spectrograms, peak_db), settings.gain_db)
        levels, partner, weight = augment.mixup(levels, settings.mixup)
        with torch.autocast(self._device.type, self._autocast or torch.bfloat16, enabled=self._autocast is not None):
            logits = self._wrapped(levels, self._mask)
        logits = logits.float()
        loss: Tensor = weight * self._loss(logits, labels)
        if weight < 1:
            loss = loss + (1 - weight) * self._loss(logits, labels[partner])
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if settings.clip_norm:
            nn.utils.clip_grad_norm_(self.classifier.parameters(), settings.clip_norm)
        self._optimizer.step()
        self._schedule.step()
        if self._average:
            self._average.update_parameters(self.classifier)
        return loss.detach()

    def _mask(self, x: Tensor) -> Tensor:
        return augment.spec_augment(x, self._settings.mel_mask, self._settings.time_mask)

    def _validate(self) -> tuple[float, metrics.Scores]:
        """Loss and scores over all validation tracks, from sums over the workers: the same for any number of them."""
        mine = self._valid.track % self._shard.world == self._shard.rank
        tracks = np.unique(self._valid.track[mine])
        probabilities = predict(
            self._evaluated(), self._valid, self._frames, self._settings.eval_windows, 64, self._shard, self._autocast
        )[tracks]
        truth = self._valid.labels[tracks]
        counts = metrics.confusion_counts(truth, metrics.decisions(probabilities), self._classes)
        likelihood = np.log(np.maximum(probabilities[np.arange(len(truth)), truth], 1e-12)).sum()
        sums = torch.from_numpy(np.append(counts.ravel().astype(np.float64), [likelihood, len(truth)]))
        sums = sum_over_workers(sums.to(self._device)).cpu()
        counts = sums[:-2].round().to(torch.int64).reshape(self._classes, self._classes).numpy()
        return float(-sums[-2] / sums[-1].clamp(min=1)), metrics.scores(counts)

    def _evaluated(self) -> Classifier:
        if self._average is None:
            return self.classifier
        averaged = self._average.module
        assert isinstance(averaged, Classifier)
        return averaged

    def _out_of_patience(self) -> bool:
        patience = self._settings.patience
        return bool(patience and self.history and len(self.history) - self.history[-1].best_epoch >= patience)


def sum_over_workers(values: Tensor) -> Tensor:
    """`values` summed over all workers, where there are several."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
    return values


def autocast_type(precision: str, device: torch.device) -> torch.dtype | None:
    """The reduced type to compute in, or None for float32."""
    if precision == "bf16":
        return torch.bfloat16
    return torch.bfloat16 if precision == "auto" and _computes_bf16(device) else None


def _computes_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is native there, rather than slowly emulated."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _optimizer(classifier: Classifier, settings: TrainSettings, device: torch.device) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101) that decays weight matrices and kernels, not biases and norms."""
    decayed = [p for p in classifier.parameters() if p.ndim > 1]
    plain = [p for p in classifier.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=device.type == "cuda")


def _averaged(classifier: Classifier, decay: float) -> AveragedModel | None:
    if not decay:
        return None
    return AveragedModel(classifier, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]


def _class_weights(clips: Clips, classes: int) -> Tensor:
    """Inverse frequency of each class among the training clips, with mean one over the clips."""
    counts = np.bincount(clips.clip_labels(), minlength=classes)
    weights = len(clips) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return torch.from_numpy(weights.astype(np.float32))
