"""What a worker of a training checks before it opens its clips. Several workers: tests/ray/test_train.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from genre.errors import TrainingError
from genre.features import Features, Shape
from genre.features.cache import ClipCache
from genre.features.manifest import Manifest
from genre.features.windows import Worker
from genre.settings import CacheSettings
from genre.storage import Location
from genre.training import sharing


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees the GPU")
def test_a_worker_on_a_gpu_that_torch_does_not_see_ends_the_training(tmp_path: Path) -> None:
    """It would train on the CPU of a machine that is paid for its GPU."""
    manifest = Manifest(fingerprint="", shape=Shape(1, 1, 80.0, 1.0), classes=[])
    cache = ClipCache(Features(Location.of(tmp_path), manifest), CacheSettings(), (), "")
    with pytest.raises(TrainingError, match="torch sees no GPU on "):
        sharing.open_data(cache, Worker(0, 1), "machine", use_gpu=True)
