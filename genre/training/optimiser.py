"""AdamW, the learning-rate schedule, the moving average of the weights, and the class weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from genre.features import Clips
from genre.model.classifier import Classifier
from genre.settings import TrainSettings


class Updates:
    """Updates the weights of a classifier after each loss: clipping, AdamW, the schedule and the moving average."""

    def __init__(self, classifier: Classifier, settings: TrainSettings, steps: int) -> None:
        """`steps` is the number of steps of the complete training."""
        self._classifier, self._clip_norm = classifier, settings.clip_norm
        self._parameters = list(classifier.parameters())
        self._average = moving_average(classifier, settings.ema)
        self._optimizer = adamw(self._parameters, settings)
        self.schedule = one_cycle(self._optimizer, settings, steps)

    @property
    def evaluated(self) -> Classifier:
        """The classifier that is validated and saved: the moving average where there is one."""
        if self._average is None:
            return self._classifier
        averaged = self._average.module
        assert isinstance(averaged, Classifier)
        return averaged

    @property
    def learning_rate(self) -> float:
        return float(self.schedule.get_last_lr()[0])

    def step(self, loss: Tensor) -> Tensor:
        """Update the weights to lower `loss`; return it without its graph, still on the device."""
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._clip_norm:
            nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        self._optimizer.step()
        self.schedule.step()
        if self._average:
            self._average.update_parameters(self._classifier)
        return loss.detach()

    def state(self) -> dict[str, Any]:
        """Return everything needed to resume, the weights included. The tensors are not copies."""
        return {
            "classifier": self._classifier.state_dict(),
            "average": self._average.state_dict() if self._average else None,
            "optimizer": self._optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`; other keys are ignored."""
        self._classifier.load_state_dict(state["classifier"])
        if self._average:
            self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])


def adamw(parameters: list[nn.Parameter], settings: TrainSettings) -> torch.optim.AdamW:
    """Return AdamW (arXiv 1711.05101); matrices and kernels have weight decay, biases and norms have none."""
    decayed = [p for p in parameters if p.ndim > 1]
    plain = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


def one_cycle(optimizer: torch.optim.Optimizer, settings: TrainSettings, steps: int) -> OneCycleLR:
    """Return a schedule that rises to `learning_rate` over the share `warmup` of `steps`, then falls to nearly zero.

    Both parts follow a cosine; the rise takes at least one step. Smith and Topin, "Super-convergence",
    arXiv 1708.07120.
    """
    rise = max(settings.warmup, 2 / (steps + 1))
    return OneCycleLR(optimizer, settings.learning_rate, total_steps=steps + 1, pct_start=rise)


def moving_average(classifier: Classifier, decay: float) -> AveragedModel | None:
    """Return an exponential moving average of the weights and batch statistics; None where `decay` is 0.

    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 30(4), 1992.
    """
    if not decay:
        return None
    return AveragedModel(classifier, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]


def class_weights(clips: Clips, classes: int) -> Tensor:
    """Return the inverse frequency of each class (classes,), scaled so that the mean over the training clips is 1."""
    counts = clips.class_counts(classes)
    weights = clips.total / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return torch.from_numpy(weights.astype(np.float32))
