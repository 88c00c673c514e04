"""A search on real Ray says how long it takes, keeps to its minutes, and resumes with the plan that it began with."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import job

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TWO = ("tune.architectures=[cnn, crnn]", "tune.trials=2", "tune.seeds=2", "tune.robustness=false")


@pytest.fixture(scope="module")
def features(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run folder, to search in."""
    place = tmp_path_factory.mktemp("planned")
    shutil.copytree(home / "out" / "features", place / "out" / "features")
    settings = yaml.safe_load((home / "run.yaml").read_text()) | {"output": str(place / "out")}
    (place / "run.yaml").write_text(yaml.safe_dump(settings))
    return place


def plan_file(features: Path) -> Path:
    (file,) = (features / "out/tune/plans").iterdir()
    return file


def plan_of(features: Path) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads(plan_file(features).read_text())["plan"]
    return plan


def seeds_of(features: Path) -> set[str]:
    return {path.name for path in (features / "out/models/cnn").glob("seed-*")}


def test_a_dry_run_says_how_long_it_takes_and_trains_nothing(features: Path) -> None:
    said = job("tune", features, *TWO, "--dry-run").stderr
    assert "tune: 2 trials of each of 2 architectures, the best with 2 seeds" in said
    assert re.search(r"tune: about [\d hmins]+: search [\d hmins]+, final trainings [\d hmins]+, judging", said)
    assert "epochs: 2 each; share of the time: cnn " in said
    assert not (features / "out/tune").exists()


LIMITED = (*TWO, "train.epochs=20000", "tune.grace_epochs=1", "tune.minutes=0.5")


def test_a_limited_search_ends_and_resumes_with_the_same_plan(features: Path) -> None:
    said = job("tune", features, *LIMITED).stderr
    plan = plan_of(features)
    assert all(1 <= epochs < 20000 for epochs in plan["epochs"].values())
    assert "epochs: " in said
    board = json.loads((features / "out/leaderboard/leaderboard.json").read_text())
    assert {"cnn", "crnn"} <= {row["name"] for row in board["rows"]}
    again = job("tune", features, *LIMITED).stderr
    assert plan_of(features) == plan
    assert "share of the time" not in again  # nothing is measured twice


def test_more_seeds_keep_the_trials_of_a_limited_search(features: Path) -> None:
    plan = plan_of(features)
    said = job("tune", features, *LIMITED, "tune.seeds=3").stderr
    assert "as asked, with the epochs of the earlier run" in said
    assert plan_of(features)["epochs"] == plan["epochs"]
    assert "search: " not in said  # every trial of it ran before
    assert seeds_of(features) == {"seed-0", "seed-1", "seed-2"}


def test_when_the_time_is_over_the_models_are_those_of_the_best_epochs(features: Path) -> None:
    # as on a machine that became a thousand times slower after it was measured
    kept = json.loads(plan_file(features).read_text())
    kept["plan"] |= {"epochs": {"cnn": 19999, "crnn": 19999}, "minutes": 0.05, "seeds": 2}
    kept |= {"seeds_decided": False, "asked": [2, 2]}
    plan_file(features).write_text(json.dumps(kept))
    said = job("tune", features, *LIMITED).stderr
    assert "tune.minutes=0.5 leaves time for no further training" in said
    assert seeds_of(features) == {"seed-0"}
    report = (features / "out/leaderboard/leaderboard.md").read_text()
    assert "of 19999 epochs; the model is that of its best epoch" in report


def test_without_features_a_dry_run_says_what_is_missing(features: Path, tmp_path: Path) -> None:
    said = job("tune", features, *TWO, f"output={tmp_path}", "--dry-run")
    assert "no forecast yet: " in said.stderr
    assert "run prepare" in said.stderr
    assert "tune:" in said.stdout  # the configuration all the same
