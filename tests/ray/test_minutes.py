"""A search on real Ray prints its expected time, keeps to its minutes, and resumes with the plan it started with."""

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
def folder(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder of this module's own, with a copy of the features."""
    folder = tmp_path_factory.mktemp("planned")
    shutil.copytree(home / "out" / "features", folder / "out" / "features")
    settings = yaml.safe_load((home / "run.yaml").read_text()) | {"output": str(folder / "out")}
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    return folder


def plan_file(folder: Path) -> Path:
    (file,) = (folder / "out/tune/plans").iterdir()
    return file


def plan_of(folder: Path) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads(plan_file(folder).read_text())["plan"]
    return plan


def seeds_of(folder: Path) -> set[str]:
    return {path.name for path in (folder / "out/models/cnn").glob("seed-*")}


def test_a_dry_run_prints_the_expected_time_and_trains_nothing(folder: Path) -> None:
    printed = job("tune", folder, *TWO, "--dry-run", "--price-per-core-hour=3600").stderr
    assert "tune: 2 trials of each of 2 architectures, the best with 2 seeds" in printed
    assert re.search(r"tune: about [\d hmins]+: search [\d hmins]+, final trainings [\d hmins]+, judging", printed)
    assert "epochs: 2 each; share of the time: cnn " in printed
    assert re.search(r"tune: \d+\.\d\d core-hours of training\ntune: price: \d+\.\d\d at 3600 a core-hour", printed)
    assert not (folder / "out/tune").exists()


LIMITED = (*TWO, "train.epochs=20000", "tune.grace_epochs=1", "tune.minutes=0.5")


def test_a_limited_search_ends_and_resumes_with_the_same_plan(folder: Path) -> None:
    printed = job("tune", folder, *LIMITED).stderr
    plan = plan_of(folder)
    assert all(1 <= epochs < 20000 for epochs in plan["epochs"].values())
    assert "epochs: " in printed
    board = json.loads((folder / "out/leaderboard/leaderboard.json").read_text())
    assert {"cnn", "crnn"} <= {row["name"] for row in board["rows"]}
    again = job("tune", folder, *LIMITED).stderr
    assert plan_of(folder) == plan
    assert "share of the time" not in again  # nothing is measured twice


def test_more_seeds_keep_the_trials_of_a_limited_search(folder: Path) -> None:
    plan = plan_of(folder)
    printed = job("tune", folder, *LIMITED, "tune.seeds=3").stderr
    assert "as asked, with the epochs of the earlier run" in printed
    assert plan_of(folder)["epochs"] == plan["epochs"]
    assert "search: " not in printed  # every trial of it ran before
    assert seeds_of(folder) == {"seed-0", "seed-1", "seed-2"}


def test_when_the_time_is_over_the_best_epochs_become_the_models(folder: Path) -> None:
    # as on a machine that became a thousand times slower after it was measured
    kept = json.loads(plan_file(folder).read_text())
    kept["plan"] |= {"epochs": {"cnn": 19999, "crnn": 19999}, "minutes": 0.05, "seeds": 2}
    kept |= {"seeds_decided": False, "asked": [2, 2]}
    plan_file(folder).write_text(json.dumps(kept))
    printed = job("tune", folder, *LIMITED).stderr
    assert "tune.minutes=0.5 leaves time for no further training" in printed
    assert seeds_of(folder) == {"seed-0"}
    report = (folder / "out/leaderboard/leaderboard.md").read_text()
    assert "of 19999 epochs; the model is that of its best epoch" in report


def test_a_dry_run_without_features_names_what_is_missing(folder: Path, tmp_path: Path) -> None:
    done = job("tune", folder, *TWO, f"output={tmp_path}", "--dry-run", succeeds=False)
    assert "run prepare" in done.stderr
    assert "tune:" in done.stdout  # the configuration is printed nevertheless
