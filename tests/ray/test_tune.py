"""The search on real Ray: clusters of any size, recorded failures, interruption and resumption."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from conftest import REPOSITORY
from running import ENVIRONMENT, command, job

from genre.config import load
from genre.features import Features
from genre.features.cache import ClipCache
from genre.report import read_board
from genre.settings import CacheSettings
from genre.storage import Location
from genre.training import experiment
from genre.training.experiment import Data
from ray_jobs.search import space
from ray_jobs.search.trial_folder import Record, TrialFolder

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ONE = ("tune.architectures=[cnn]", "train.epochs=2")
TWO = ("tune.architectures=[cnn, crnn]", "train.epochs=2")


@pytest.fixture
def output(home: Path, tmp_path: Path) -> Path:
    """Return an output folder of the test's own, with the prepared features."""
    shutil.copytree(home / "out/features", tmp_path / "out/features")
    return tmp_path / "out"


def data_of(output: Path) -> Data:
    return Data.open(ClipCache.of(Features.open(Location.of(output / "features")), CacheSettings()))


@pytest.mark.parametrize(
    ("cpus", "more"),
    [
        (1, []),
        (2, ["tune.workers_per_trial=2", "tune.trials=2"]),
        (4, ["tune.sampler=tpe", "tune.workers_per_trial=2", "tune.concurrent=3", "tune.cpus_per_trial=0.5"]),
    ],
    ids=["one CPU", "trials of all CPUs", "half CPUs, by TPE"],
)
def test_no_size_of_cluster_deadlocks(home: Path, output: Path, cpus: int, more: list[str]) -> None:
    done = job("tune", home, *TWO, f"output={output}", f"cluster.cpus={cpus}", *more)
    names = {entry.name for entry in read_board(Location.of(output / "leaderboard")).entries}
    assert {"cnn", "crnn"} <= names
    assert "failed" not in done.stderr


def test_a_search_on_a_sample_trains_its_winners_on_all_tracks(home: Path, output: Path, tmp_path: Path) -> None:
    settings = (*ONE, f"output={output}", "tune.sample=0.5", f"cache.folder={tmp_path / 'cache'}")
    done = job("tune", home, *settings)
    assert done.stderr.count("on 50% of the tracks") > 0  # the estimate
    (parent,) = (output / "tune").glob("cnn-*")
    assert {folder.name for folder in parent.iterdir()} == {"000", "000-seed-0"}
    final, trial = (Location.of(parent / name / "model") for name in ("000-seed-0", "000"))
    saved = (output / "models/cnn/model.json").read_bytes()
    assert saved == (final / "model.json").read_bytes() != (trial / "model.json").read_bytes()
    assert len(list((tmp_path / "cache").glob("features-*"))) == 2
    board = read_board(Location.of(output / "leaderboard"))
    assert board.search is not None
    assert "on 50% of the tracks" in board.search.budget


@pytest.mark.parametrize(
    "setting", ["tune.cpus_per_trial=64", "tune.workers_per_trial=3", "tune.gpus_per_trial=0.5", "device=cuda"]
)
def test_a_trial_that_fits_no_machine_is_refused_at_once(home: Path, output: Path, setting: str) -> None:
    done = job("tune", home, *TWO, f"output={output}", setting, succeeds=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "ask for less" in done.stderr or "leaves none for a trial" in done.stderr
    assert not list(output.glob("tune/*/*/trial.json"))


def test_a_trial_whose_loss_becomes_nan_is_recorded_and_ends_no_other(home: Path, output: Path) -> None:
    space = "tune.space={crnn: {train.weight_decay: 1.0e+30, train.windows_per_clip: 8}}"
    done = job("tune", home, *TWO, f"output={output}", space)
    assert "crnn: a trial failed: the loss is nan" in done.stderr
    names = {entry.name for entry in read_board(Location.of(output / "leaderboard")).entries}
    assert "cnn" in names
    assert "crnn" not in names


def test_a_trial_that_raises_is_tried_twice_and_recorded(home: Path, output: Path) -> None:
    space = "tune.space={crnn: {train.batch_size: 1}}"
    done = job("tune", home, *TWO, f"output={output}", space)
    assert "crnn: a trial failed: " in done.stderr
    record = records(output)["crnn-000"]
    assert (record.ended, len(record.sessions)) == ("crashed", 2)
    assert "batch norm needs 2" in record.failure
    assert {entry.name for entry in read_board(Location.of(output / "leaderboard")).entries} >= {"cnn"}


def test_models_are_those_of_the_last_settings_after_any_number_of_changes(home: Path, output: Path) -> None:
    for width in (4, 8, 4):
        job("tune", home, *TWO, f"output={output}", "tune.architectures=[cnn]", f"architectures.cnn.width={width}")
        (saved,) = output.glob("models/cnn/seed-*/model.json")
        assert Location.of(saved).read_json()["params"]["width"] == width


def test_mlflow_gets_every_trial_and_its_epochs(home: Path, output: Path, tmp_path: Path) -> None:
    tracking = pytest.importorskip("mlflow.tracking", reason="mlflow is not installed; it is part of genre[dev]")
    store = f"sqlite:///{tmp_path}/runs.db"
    job("tune", home, *TWO, f"output={output}", "tune.architectures=[cnn]", f"tune.mlflow={store}")
    client = tracking.MlflowClient(tracking_uri=store)
    (experiment,) = [found for found in client.search_experiments() if found.name == "out search"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["run/settings/architecture"] == "cnn"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "valid_f1")] == [1, 2]
    refused = job("tune", home, *TWO, f"output={output}", f"tune.mlflow={tmp_path}/folder", succeeds=False)
    assert refused.returncode == 2
    assert "sqlite:///" in refused.stderr


def test_the_search_trained_the_first_seed(home: Path, output: Path) -> None:
    """The model copied from the search equals, bit for bit, one trained alone with the same settings.

    Afterwards only the further seeds of the configured settings are trained, which are compared and no model to use.
    """
    # too low a rate, and enough epochs with another one, so that the other trial wins on every processor; with window
    # norm, even a network that hardly learns may name all of the few validation tracks in one of 30 epochs
    slow = ("train.learning_rate=0.000001", "train.window_norm=false")
    settings = (*ONE, *slow, "train.epochs=30", "tune.grace_epochs=30")
    job_of_search = (home, *settings, f"output={output}", "tune.seeds=2", "tune.trials=2")
    done = job("tune", *job_of_search)
    assert "final: 2 finished" in done.stderr
    trained = records(output)
    searched = {name: trained[name] for name in ("cnn-000", "cnn-001")}
    best, winner = max(searched.items(), key=lambda item: item[1].best_f1 or 0.0)
    assert best == "cnn-001"
    assert trained.keys() == {*searched, f"{best}-seed-1"}
    planned = space.experiment(load(str(home / "run.yaml"), [f"output={output}", *settings]), winner.settings)
    data = data_of(output)
    card, trainer = experiment.trainer_for(planned, data, torch.device("cpu"))
    list(trainer.run())
    experiment.save_best(Location.of(output / "again"), card, trainer)
    copied, again = (saved_model(output / folder) for folder in ("models/cnn/seed-0", "again"))
    assert again == copied
    assert saved_model(output / "models/cnn/seed-1")["weights"] != copied["weights"]

    job("tune", *job_of_search, "tune.defaults=true")
    assert {name: record for name, record in records(output).items() if name in trained} == trained
    assert records(output).keys() - trained.keys() == {"cnn-000-seed-1"}
    entries = {entry.name: entry for entry in read_board(Location.of(output / "leaderboard")).entries}
    default = entries["cnn default"]
    assert (default.kind, default.default_of, [run.seed for run in default.runs]) == ("default", "cnn", [0, 1])
    assert default.settings["train.learning_rate"] == searched["cnn-000"].settings["train.learning_rate"]
    assert not default.robustness
    assert "ensemble" not in entries
    assert [path.name for path in (output / "models").iterdir()] == ["cnn"]

    report = (output / "leaderboard/leaderboard.json").read_text()
    repeated = job("tune", *job_of_search, "tune.defaults=true")
    assert "nothing has changed since the models were judged" in repeated.stderr
    assert (output / "leaderboard/leaderboard.json").read_text() == report  # measured times included
    validation = output / "models/cnn/seed-0/validation.parquet"
    pq.write_table(pq.read_table(validation).slice(1), validation)  # as after a cross-validation
    assert "nothing has changed" not in job("tune", *job_of_search, "tune.defaults=true").stderr


def test_more_trials_run_only_the_new_ones_and_fewer_run_none(home: Path, output: Path) -> None:
    def tune(*settings: str) -> dict[str, Record]:
        job("tune", home, *ONE, f"output={output}", *settings)
        return records(output)

    first = tune("tune.trials=1")
    assert sorted(first) == ["cnn-000"]  # and no final training
    second = tune("tune.trials=2")
    assert sorted(second) == ["cnn-000", "cnn-001"]
    assert {name: second[name] for name in first} == first
    third = tune("tune.trials=1", "tune.seeds=2")
    assert sorted(set(third) - set(second)) == ["cnn-000-seed-1"]
    assert {name: third[name] for name in second} == second
    board = read_board(Location.of(output / "leaderboard"))
    assert {entry.name: entry.trials for entry in board.entries if entry.kind == "network"} == {"cnn": 1}
    assert tune("tune.trials=1", "tune.seeds=1") == third
    assert [path.name for path in output.glob("models/cnn/seed-*")] == ["seed-0"]


def test_a_model_that_a_kill_left_unsaved_is_saved_from_the_last_state(home: Path, output: Path) -> None:
    """The kill comes after the last epoch and before the model is saved. Nothing is trained again."""
    job("tune", home, *ONE, f"output={output}")
    before = saved_model(output / "models/cnn/seed-0")
    ((name, record),) = records(output).items()
    (trial,) = output.glob("tune/cnn-*/000")
    planned = space.experiment(load(str(home / "run.yaml"), [f"output={output}", *ONE]), record.settings)
    data = data_of(output)
    _, trainer = experiment.trainer_for(planned, data, torch.device("cpu"))
    list(trainer.run())
    shutil.rmtree(trial / "model")
    TrialFolder(Location.of(trial)).write(replace(record, ended=None))
    TrialFolder(Location.of(trial)).save_state(trainer.state())
    job("tune", home, *ONE, f"output={output}")
    assert saved_model(output / "models/cnn/seed-0") == before
    assert records(output)[name].ended == "finished"
    assert not (trial / "state.pt").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_an_interrupted_or_killed_search_resumes(home: Path, output: Path, number: int) -> None:
    settings = ("tune.architectures=[cnn]", "tune.trials=2", "train.epochs=30", "tune.grace_epochs=30")
    running = subprocess.Popen(
        command("tune", home, *settings, f"output={output}", "cluster.cpus=1"),
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for_epochs(output)
        os.kill(running.pid, number)
        _, printed = running.communicate(timeout=120)
    finally:
        running.kill()
    assert running.returncode != 0
    if number == signal.SIGINT:
        assert "run the same command again to resume" in printed
        assert (output / "leaderboard/so-far/leaderboard.html").exists()
    before = records(output)
    job("tune", home, *settings, f"output={output}", "cluster.cpus=1")
    after = records(output)
    assert sorted(after) == ["cnn-000", "cnn-001"]
    for name, record in after.items():
        assert (record.ended, record.epochs) == ("finished", 30)
        lines = (output / "tune/logs/search" / name / "result.json").read_text().splitlines()
        reported = [json.loads(line)["epoch"] for line in lines]
        assert reported[0] > (before[name].epochs if name in before else 0)
        assert reported[-1] == 30


def test_an_interrupt_of_the_final_training_writes_the_leaderboard_so_far(home: Path, output: Path) -> None:
    settings = ("tune.architectures=[cnn]", "train.epochs=30", "tune.grace_epochs=30", "tune.seeds=2")
    running = subprocess.Popen(
        command("tune", home, *settings, f"output={output}"),
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for_epochs(output, "*-seed-*")
        os.kill(running.pid, signal.SIGINT)
        _, printed = running.communicate(timeout=120)
    finally:
        running.kill()
    assert running.returncode == 1
    assert "run the same command again to resume" in printed
    assert read_board(Location.of(output / "leaderboard/so-far")).judged_on == "valid"
    assert not (output / "leaderboard/leaderboard.html").exists()


def wait_for_epochs(output: Path, trials: str = "0??") -> None:
    """Wait until a trial has trained three epochs."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if any(record.epochs >= 3 for record in records(output, trials).values()):
            return
        time.sleep(0.1)
    raise AssertionError("no trial reached its third epoch")


def records(output: Path, trials: str = "0*") -> dict[str, Record]:
    """Return the records of the trials in `output`, by architecture and name."""
    folders = {path.parent for path in output.glob(f"tune/*/{trials}/trial.json")}
    named = {f"{path.parent.name.rsplit('-', 1)[0]}-{path.name}": TrialFolder(Location.of(path)) for path in folders}
    return {name: record for name, folder in named.items() if (record := folder.record()) is not None}


def saved_model(folder: Path) -> dict[str, Any]:
    """Return the content of model.json, including the hash of the weights, without times, speeds and memory."""
    content: dict[str, Any] = Location.of(folder / "model.json").read_json()
    facts = content["facts"]
    for key in ("train_seconds", "memory_mb"):
        del facts[key]
    for epoch in facts["history"]:
        for key in ("seconds", "windows_per_second", "data_wait_seconds"):
            del epoch[key]
    return content
