"""The measured costs of a training step."""

from __future__ import annotations

import math

import pytest
import torch

from genre.config import load
from genre.features import Shape
from genre.training import costs
from genre.training.costs import Workload
from genre.training.experiment import Experiment

WORKLOAD = Workload(
    train=40, valid=20, test=20, shape=Shape(16, 600, 80.0, 512 / 22050), classes=4, test_tracks=20, train_tracks=40
)


@pytest.mark.parametrize("batch", [2, 4, 8])
def test_every_batch_size_is_measured(batch: int) -> None:
    """Small batches too, whose validation would be rare: the slowest networks are measured with few windows only."""
    config = load(overrides=["architecture=cnn", "architectures.cnn={width: 4, depth: 2}", f"train.batch_size={batch}"])
    cost = costs.probe(Experiment.of(config), WORKLOAD, torch.device("cpu"))
    assert 0 < cost.train < math.inf
    assert 0 < cost.predict < math.inf
