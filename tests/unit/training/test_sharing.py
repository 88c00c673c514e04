"""What a worker of a training checks before it opens its clips. Several workers: tests/ray/test_train.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from faulty_storage import behind, refusing

from genre.errors import MachineError, StorageError
from genre.features import Features, Shape
from genre.features.cache import ClipCache
from genre.features.manifest import Manifest
from genre.features.windows import Worker
from genre.settings import CacheSettings
from genre.storage import Location
from genre.training import sharing

MANIFEST = Manifest(fingerprint="", shape=Shape(1, 1, 80.0, 1.0), classes=[])


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees the GPU")
def test_a_worker_on_a_gpu_that_torch_does_not_see_ends_the_training(tmp_path: Path) -> None:
    """It would train on the CPU of a machine that is paid for its GPU."""
    cache = ClipCache(Features(Location.of(tmp_path), MANIFEST), CacheSettings(), (), "")
    with pytest.raises(MachineError, match="torch sees no GPU on "):
        sharing.open_data(cache, Worker(0, 1), "machine", use_gpu=True)


def test_a_folder_of_copies_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "features-old").touch()  # where a folder is expected
    cache = ClipCache(Features(Location.of(tmp_path), MANIFEST), CacheSettings(folder=str(tmp_path)), (), "")
    with pytest.raises(MachineError, match=r"^cache\.folder=.*: cannot be .* \(Not a directory\); name a folder .*$"):
        sharing.open_data(cache, Worker(0, 1), "machine")


def test_a_storage_that_refuses_is_not_the_fault_of_the_training(
    bucket_server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repetition may succeed, unlike after a `MachineError`."""
    with behind(bucket_server, refusing(400, "ExpiredToken", lambda request: True), monkeypatch):
        features = Features(Location.of("s3://bucket/features"), MANIFEST)
        cache = ClipCache(features, CacheSettings(folder=str(tmp_path)), ("train",), "")
        with pytest.raises(StorageError, match=r"s3://bucket/features.* cannot be reached .*AWS Error"):
            sharing.open_data(cache, Worker(0, 1), "machine")
