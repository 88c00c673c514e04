"""A search on real Ray says how long it takes, keeps to its minutes, and resumes with the plan that it began with."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from running import job

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TWO = ("tune.architectures=[cnn, crnn]", "tune.trials=2", "tune.seeds=2", "tune.robustness=false")


@pytest.fixture(scope="module")
def features(home, tmp_path_factory) -> Path:
    """A copy of the run folder, to search in."""
    place = tmp_path_factory.mktemp("planned")
    shutil.copytree(home / "out" / "features", place / "out" / "features")
    settings = yaml.safe_load((home / "run.yaml").read_text()) | {"output": str(place / "out")}
    (place / "run.yaml").write_text(yaml.safe_dump(settings))
    return place


def plan_of(features: Path) -> dict:
    (file,) = (features / "out/tune/plans").iterdir()
    return json.loads(file.read_text())["plan"]


def test_a_dry_run_says_how_long_it_takes_and_trains_nothing(features):
    said = job("tune", features, *TWO, "--dry-run").stderr
    assert "tune: 2 trials of each of 2 architectures, the best with 2 seeds" in said
    assert re.search(r"tune: about [\d hmins]+: search [\d hmins]+, final trainings [\d hmins]+, judging", said)
    assert "epochs: 2 each; share of the time: cnn " in said
    assert not (features / "out/tune").exists()


def test_a_limited_search_ends_and_resumes_with_the_same_plan(features):
    limited = (*TWO, "train.epochs=20000", "tune.grace_epochs=1", "tune.minutes=0.5")
    said = job("tune", features, *limited).stderr
    plan = plan_of(features)
    assert all(1 <= epochs < 20000 for epochs in plan["epochs"].values())
    assert "epochs: " in said
    board = json.loads((features / "out/leaderboard/leaderboard.json").read_text())
    assert {"cnn", "crnn"} <= {row["name"] for row in board["rows"]}
    assert 1 <= plan["seeds"] <= 2
    again = job("tune", features, *limited).stderr
    assert plan_of(features) == plan
    assert "share of the time" not in again  # nothing is measured twice
    assert "search: " not in again.replace("search: 4 of 4 trials ran before", "")


def test_without_features_a_dry_run_says_what_is_missing(features, tmp_path):
    said = job("tune", features, *TWO, f"output={tmp_path}", "--dry-run")
    assert "no forecast yet: " in said.stderr
    assert "run prepare" in said.stderr
    assert "tune:" in said.stdout  # the configuration all the same
