"""What `tune` refuses before it starts Ray, where it starts from a saved model."""

from __future__ import annotations

from pathlib import Path

import pytest
from grouped import save_trained, write_grouped

from genre.config import load
from genre.errors import ArtifactError
from genre.features.cache import ClipCache
from genre.settings import CacheSettings
from genre.storage import Location
from genre.training.experiment import Data
from ray_jobs import tune


def test_a_search_of_other_networks_than_that_of_the_model_is_refused(tmp_path: Path) -> None:
    features = write_grouped(tmp_path / "features", splits=("train", "train", "valid", "test"))
    model = Location.of(tmp_path / "cnn")
    save_trained(model, Data.open(ClipCache.of(features, CacheSettings())))
    start = [f"output={tmp_path}", f"train.init_from={model}", "train.window_seconds=0.5", "train.batch_size=8"]
    with pytest.raises(ArtifactError, match=r"is a cnn, architecture is crnn; write .*tune.architectures=\[cnn\]$"):
        tune.run(load(None, [*start, "tune.architectures=[cnn, crnn]"]))
