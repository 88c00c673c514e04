"""Every job with its output on a real S3 server on this machine: features, checkpoints, searches, models, tags."""

from __future__ import annotations

import pytest
import running
import yaml
from running import SETTINGS, job

from genre.storage import Location

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_the_chain_in_a_bucket(bucket_server, tmp_path, monkeypatch):
    output = Location.of("s3://bucket/chain")
    monkeypatch.setattr(running, "ENVIRONMENT", running.ENVIRONMENT | bucket_server)
    corpus = SETTINGS["corpus"] | {"root": str(tmp_path / "music")}
    tune = SETTINGS["tune"] | {"architectures": ["cnn", "resnet"]}
    settings = SETTINGS | {"output": output.address, "corpus": corpus, "tune": tune}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    job("prepare", tmp_path)
    assert len((output / "features" / "tracks.parquet").read_table()) == 60

    assert "epoch   2/2" in job("train", tmp_path, "model=crnn").stderr
    assert "epoch" not in job("train", tmp_path, "model=crnn").stderr.replace("in epoch", "")
    assert (output / "models" / "crnn" / "model.json").read_json()["architecture"] == "crnn"

    job("tune", tmp_path)
    assert len((output / "leaderboard" / "leaderboard.json").read_json()["rows"]) >= 4
    assert (output / "leaderboard" / "leaderboard.html").exists()
    job("evaluate", tmp_path)
    assert (output / "evaluation" / "leaderboard.html").exists()

    job("tag", tmp_path, f"inputs={tmp_path / 'music'}")
    assert len((output / "tags" / "tags.parquet").read_table()) == 60
