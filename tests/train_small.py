"""Train every architecture for a few steps, at its smallest size and at odd widths.

A script that `contract/test_memory.py` runs.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from annotated_types import Ge
from making import make_clips, statistics

from genre import architectures
from genre.model.classifier import Classifier, predict
from genre.settings import TrainSettings
from genre.training.trainer import Trainer

_ODD_WIDTHS = (5, 7, 9)  # below and above the vectors of AVX2
_TRAIN = make_clips(tracks=24, bins=32, frames=60)
_VALID = make_clips(tracks=3, bins=32, frames=60, seed=1)


def smallest(name: str) -> dict[str, Any]:
    """Return the settings of an architecture with every integer at its lower bound."""
    return {
        key: bound.ge
        for key, field in type(architectures.params(name, {})).model_fields.items()
        for bound in field.metadata
        if field.annotation is int and isinstance(bound, Ge)
    }


def train(name: str, params: dict[str, Any], precision: Literal["fp32", "bf16"]) -> None:
    """Do three optimiser steps, validate and predict, as the jobs do."""
    print(name, params, precision, flush=True)  # the last line printed names the training that crashed
    torch.manual_seed(0)
    network = architectures.build(name, params, _TRAIN.shape.bins, classes=3)
    classifier = Classifier(network, *statistics(_TRAIN), _TRAIN.shape.range_db)
    settings = TrainSettings(epochs=1, batch_size=8, window_seconds=0.92, eval_windows=1, dtype=precision)
    trainer = Trainer(classifier, _TRAIN, _VALID, 3, settings)
    assert [epoch.epoch for epoch in trainer.run()] == [1]
    predict(trainer.use_best(), _VALID, frames=40, per_clip=1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for architecture in architectures.names():
        small = smallest(architecture)
        train(architecture, small, "bf16")
        for size in [small, *(small | {"width": width} for width in _ODD_WIDTHS if "width" in small)]:
            train(architecture, size, "fp32")
    print("done")
