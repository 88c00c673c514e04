"""AdamW, the learning-rate schedule, the moving average of the weights, and the class weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from genre.features import Clips
from genre.model.classifier import Classifier
from genre.settings import TrainSettings


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
