"""The search: no deadlock at any size, failures recorded, interrupted and resumed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY
from running import ENVIRONMENT, command, job

from genre.report import read_board
from genre.storage import Location

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TWO = ("tune.architectures=[cnn, crnn]", "train.epochs=2")


def test_a_state_of_the_search_that_was_cut_short_gives_way_to_the_one_before(tmp_path):
    from ray_jobs.tune import _can_restore

    assert not _can_restore(Location.of(tmp_path))
    (tmp_path / "tuner.pkl").write_bytes(b"tuner")
    for day, content in ((1, "{}"), (2, '{"trial_data": [')):
        (tmp_path / f"experiment_state-2026-11-0{day}.json").write_text(content)
    assert _can_restore(Location.of(tmp_path))
    assert [path.name for path in tmp_path.glob("*.json")] == ["experiment_state-2026-11-01.json"]
    (tmp_path / "experiment_state-2026-11-01.json").write_text("{")
    assert not _can_restore(Location.of(tmp_path))


@pytest.fixture
def features(home: Path, tmp_path: Path) -> Path:
    """An output of its own with the prepared features."""
    shutil.copytree(home / "out/features", tmp_path / "out/features")
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("cpus", "more"),
    [
        (1, []),
        (2, ["tune.workers_per_trial=2", "tune.trials=2"]),
        (4, ["tune.sampler=tpe", "tune.trials=2"]),
        (4, ["tune.sampler=tpe", "tune.workers_per_trial=2", "tune.concurrent=3", "tune.cpus_per_trial=0.5"]),
    ],
    ids=["one CPU", "trials of all CPUs", "more CPUs than trials, by TPE", "half CPUs, by TPE"],
)
def test_no_size_of_cluster_deadlocks(home, features, cpus, more):
    done = job("tune", home, *TWO, f"output={features}", f"cluster.cpus={cpus}", *more)
    names = {entry.name for entry in read_board(Location.of(features / "leaderboard")).entries}
    assert {"cnn", "crnn"} <= names
    assert "failed" not in done.stderr


@pytest.mark.parametrize(
    "setting", ["tune.cpus_per_trial=64", "tune.workers_per_trial=3", "tune.gpus_per_trial=0.5", "train.device=cuda"]
)
def test_a_trial_that_has_no_room_is_refused_at_once(home, features, setting):
    told = job("tune", home, *TWO, f"output={features}", setting, succeeds=False)
    assert told.returncode == 2
    assert told.stderr.splitlines()[-1].startswith("error: ")
    assert "ask for less" in told.stderr or "leaves none for a trial" in told.stderr
    assert not list(features.glob("tune/search-*"))


def test_a_lost_loss_is_recorded_and_sinks_nothing(home, features):
    space = "tune.space={crnn: {train.weight_decay: 1.0e+30, train.windows_per_clip: 8}}"
    done = job("tune", home, *TWO, f"output={features}", space)
    assert "crnn: a trial failed: the loss is nan" in done.stderr
    names = {entry.name for entry in read_board(Location.of(features / "leaderboard")).entries}
    assert "cnn" in names
    assert "crnn" not in names


def test_models_are_those_of_the_last_settings_however_often_they_change(home, features):
    for width in (4, 8, 4):
        job("tune", home, *TWO, f"output={features}", "tune.architectures=[cnn]", f"models.cnn.width={width}")
        (saved,) = features.glob("models/cnn/seed-*/model.json")
        assert Location.of(saved).read_json()["params"]["width"] == width


def test_mlflow_gets_every_trial_and_its_epochs(home, features, tmp_path):
    tracking = pytest.importorskip("mlflow.tracking", reason="mlflow is not installed; it is part of genre[dev]")
    store = f"sqlite:///{tmp_path}/runs.db"
    job("tune", home, *TWO, f"output={features}", "tune.architectures=[cnn]", f"tune.mlflow={store}")
    client = tracking.MlflowClient(tracking_uri=store)
    (experiment,) = [one for one in client.search_experiments() if one.name == "out search"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["run/settings/model.name"] == "cnn"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "valid_f1")] == [1, 2]
    refused = job("tune", home, *TWO, f"output={features}", f"tune.mlflow={tmp_path}/folder", succeeds=False)
    assert refused.returncode == 2
    assert "sqlite:///" in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_an_ended_search_goes_on(home, features, number):
    settings = ("tune.architectures=[cnn]", "tune.trials=2", "train.epochs=30", "tune.grace_epochs=30")
    running = subprocess.Popen(
        command("tune", home, *settings, f"output={features}", "cluster.cpus=1"),
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for_checkpoint(features)
        os.kill(running.pid, number)
        _, said = running.communicate(timeout=120)
    finally:
        running.kill()
    assert running.returncode != 0
    if number == signal.SIGINT:
        assert "the same command goes on from here" in said
        assert (features / "leaderboard/so-far/leaderboard.html").exists()
    before = epochs_seen(features)
    job("tune", home, *settings, f"output={features}", "cluster.cpus=1")
    after = epochs_seen(features)
    assert len(after) == 2
    for trial, epochs in after.items():
        assert epochs >= before.get(trial, 0)
        assert epochs in (30, 31)  # at most the one epoch that was under way is done again


def test_an_interrupt_of_the_last_training_leaves_the_leaderboard_so_far(home, features):
    settings = ("tune.architectures=[cnn]", "train.epochs=30", "tune.grace_epochs=30")
    running = subprocess.Popen(
        command("tune", home, *settings, f"output={features}"),
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for_checkpoint(features, "final")
        os.kill(running.pid, signal.SIGINT)
        _, said = running.communicate(timeout=120)
    finally:
        running.kill()
    assert running.returncode == 1
    assert "the same command goes on from here" in said
    assert read_board(Location.of(features / "leaderboard/so-far")).part == "valid"
    assert not (features / "leaderboard/leaderboard.html").exists()


def wait_for_checkpoint(output: Path, phase: str = "search") -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if len(list(output.glob(f"tune/{phase}-*/*/checkpoint_*/state.pt"))) >= 3:
            return
        time.sleep(0.2)
    raise AssertionError(f"the {phase} wrote no checkpoint")


def epochs_seen(output: Path) -> dict[str, int]:
    """Epochs that each trial of the search reported; one done twice would count twice."""
    files = output.glob("tune/search-*/*/result.json")
    return {file.parent.name: len(file.read_text().splitlines()) for file in files}
