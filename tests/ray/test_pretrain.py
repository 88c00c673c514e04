"""The pretrain job: two workers, an interruption, and a training from the body."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import REPOSITORY
from grouped import write_grouped
from running import ENVIRONMENT, command, job

from genre.model.card import read_card
from genre.storage import Location

pytestmark = [pytest.mark.ray, pytest.mark.slow]

EPOCHS = 12
OFF = {"mixstyle": 0, "gain_db": 0, "equaliser_db": 0, "mel_mask": 0, "time_mask": 0}  # random in each worker
SETTINGS: dict[str, Any] = {
    "train": OFF | {"window_seconds": 0.5, "windows_per_clip": 8, "epochs": 1, "batch_size": 8, "dtype": "fp32"},
    "pretrain": {"epochs": EPOCHS, "batch_size": 16},
    "device": "cpu",
    "architectures": {"cnn": {"width": 4, "depth": 3, "dropout": 0}},
    "cluster": {"object_store_mb": 100},
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An output of which some tracks have no genre, and a configuration."""
    write_grouped(tmp_path / "features", splits=("train", "train", "valid", "test"))
    tracks = pq.read_table(tmp_path / "features/tracks.parquet").to_pylist()
    for track in tracks[24:30]:  # of split train
        track["genre"], track["split"] = None, "unlabelled"
    tracks[24]["sound"] = tracks[12]["sound"]  # of split valid
    pq.write_table(pa.Table.from_pylist(tracks), tmp_path / "features/tracks.parquet")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(SETTINGS | {"output": str(tmp_path)}))
    return tmp_path


def losses(body: Path) -> list[float]:
    card, _ = read_card(Location.of(body), may_be_body=True)
    return [epoch["loss"] for epoch in card.facts["history"]]


def test_two_workers_have_the_loss_of_one_and_an_interrupted_run_resumes(home: Path) -> None:
    body, run = home / "pretrained/cnn", home / "runs/pretrain-cnn"
    two = ["train.workers=2", "cluster.cpus=2"]
    with subprocess.Popen(
        command("pretrain", home, *two), cwd=REPOSITORY, env=ENVIRONMENT, text=True, stderr=subprocess.PIPE
    ) as running:
        deadline = time.monotonic() + 300
        while not (run / "checkpoint_manager_snapshot.json").exists():
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        errors = running.communicate(timeout=300)[1]
    assert "run the same command again to resume" in errors
    assert not body.exists()
    refused = job("pretrain", home, "cluster.cpus=1", "pretrain.temperature=1", succeeds=False)
    assert "pretrain.temperature is 1.0, expected 0.1" in refused.stderr
    resumed = job("pretrain", home, "cluster.cpus=1")  # with one worker
    assert "epoch   1/" not in resumed.stderr
    assert f"epoch  {EPOCHS}/{EPOCHS}" in resumed.stderr
    first = losses(body)
    job("pretrain", home, "cluster.cpus=1", "train.resume=false")
    assert losses(body) == pytest.approx(first, rel=1e-2)
    learned = json.loads((body / "model.json").read_text())["facts"]["learned_from"]
    assert len(learned) == 17 + 5  # of split train, and without a genre; not the one that sounds like one of valid
    job("train", home, "cluster.cpus=1", f"init_from={body}")
