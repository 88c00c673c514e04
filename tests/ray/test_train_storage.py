"""`train` with its output in a bucket whose uploads fail: a checkpoint is complete or not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY
from faulty_storage import Handler, healthy, proxy
from making import make_clips
from pyarrow import fs
from test_train import SETTINGS, write_features

from genre.model import checkpoint
from genre.storage import Location
from genre.training import trainer_state

pytestmark = [pytest.mark.ray, pytest.mark.slow]

EPOCHS = 6  # two of them are reported together: one would be too short to be validated
OUTPUT = "s3://bucket/run"


def states(bucket: Location) -> list[Location]:
    runs = bucket / "runs" / "cnn"
    return [folder / "state.pt" for folder in runs.folders("checkpoint_2")]


def test_a_failed_upload_of_a_checkpoint_ends_the_job_and_the_next_one_resumes(
    bucket_server: dict[str, str], tmp_path: Path
) -> None:
    """The server refuses the uploads of states after the first."""
    write_features(tmp_path / "features", {name: make_clips(9, seed=9) for name in ("train", "valid", "test")})
    fs.copy_files(str(tmp_path / "features"), f"{OUTPUT}/features")
    settings: dict[str, Any] = SETTINGS | {"output": OUTPUT}
    settings["train"] = settings["train"] | {"epochs": EPOCHS}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    uploads = 0

    def refused(request: Handler, number: int) -> bool:
        nonlocal uploads
        if request.command == "PUT" and "state.pt" in request.path:
            uploads += 1
            if uploads > 1:
                request.refuse(400, "ExpiredToken")
                return True
        return False

    with proxy(bucket_server["AWS_ENDPOINT_URL"], refused) as server:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}

        def train() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "ray_jobs.train", "--config", str(tmp_path / "run.yaml"), "cluster.cpus=1"],
                capture_output=True, text=True, cwd=REPOSITORY, check=False,
                env=environment | {"AWS_ENDPOINT_URL": server.address},
            )  # fmt: skip

        failed = train()
        assert failed.returncode == 1, failed.stderr
        assert "cannot be written" in (last := failed.stderr.splitlines()[-1])
        assert "ExpiredToken" in last
        assert "Traceback" not in failed.stderr
        saved = states(Location.of(OUTPUT))
        assert len(saved) == 1
        assert all(trainer_state.is_complete(state) for state in saved)
        server.fault = healthy
        resumed = train()
        assert resumed.returncode == 0, resumed.stderr
        assert "epoch   2/" not in resumed.stderr
        assert f"epoch   4/{EPOCHS}" in resumed.stderr
    card, _ = checkpoint.load(Location.of(OUTPUT) / "models" / "cnn")
    assert [epoch["epoch"] for epoch in card.facts["history"]] == [2, 4, 6]
