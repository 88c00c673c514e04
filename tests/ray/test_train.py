"""The train job: any number of workers, kills and interruptions, and bad input."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import yaml
from conftest import REPOSITORY
from making import make_clips
from ray._private.internal_api import node_stats
from running import ENVIRONMENT, command, job

from genre import config
from genre.features import Clips
from genre.model import checkpoint
from genre.settings import Config
from genre.storage import Location
from ray_jobs import evaluate, pretrain, train, tune

pytestmark = [pytest.mark.ray, pytest.mark.slow]

EPOCHS = 20
CLASSES = ("folk", "jazz", "rock")
SETTINGS: dict[str, Any] = {
    "train": {
        "epochs": EPOCHS,
        "window_seconds": 0.5,
        "windows_per_clip": 2,
        "eval_windows": 2,
        "batch_size": 16,  # four for each of four workers: with fewer, batch norm is unstable
        "learning_rate": 0.01,
    },
    "device": "cpu",
    "architectures": {"cnn": {"width": 4, "depth": 3}},
    "cluster": {"object_store_mb": 100},
}


def write_features(folder: Path, splits: dict[str, Clips], settings: dict[str, Any] | None = None) -> None:
    """Write a features folder with the documented schema."""
    shape = next(iter(splits.values())).shape
    clips, tracks = [], []
    for split, made in splits.items():
        for row, track in enumerate(made.track_ids):
            tracks.append({"track_id": f"{split}-{track}", "genre": CLASSES[made.labels[row]], "split": split})
        for spectrogram, peak, row in zip(made.spectrograms, made.peak_db, made.track, strict=True):
            track = f"{split}-{made.track_ids[row]}"
            fields = {"track_id": track, "clip": 0, "start_seconds": 0.0, "peak_db": peak}
            clips.append(fields | {"spectrogram": spectrogram.tobytes()})
    (folder / "clips").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(clips, shape.clip_schema()), folder / "clips/all.parquet")
    pq.write_table(pa.Table.from_pylist(tracks), folder / "tracks.parquet")
    manifest = {"stage": "features", "schema_version": 2, "shape": vars(shape), "classes": CLASSES}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"settings": settings or {}}))


def make_splits() -> dict[str, Clips]:
    tracks = {"train": 26, "valid": 11, "test": 6}
    return {split: make_clips(count, seed=seed) for seed, (split, count) in enumerate(tracks.items())}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with features and a configuration."""
    folder = tmp_path_factory.mktemp("train")
    write_features(folder / "features", make_splits())
    (folder / "run.yaml").write_text(yaml.safe_dump(SETTINGS | {"output": str(folder)}))
    return folder


def settings_for(base: Path, output: Path, workers: int = 1) -> list[str]:
    """Return the settings for a separate output with the features of `base`; each worker has one CPU and one thread."""
    output.mkdir(exist_ok=True)
    if not (output / "features").exists():
        (output / "features").symlink_to(base / "features")
    return [f"output={output}", f"train.workers={workers}", f"cluster.cpus={workers}"]


def history(output: Path) -> list[dict[str, float]]:
    """Return the results of each epoch, without times."""
    card, _ = checkpoint.load(Location.of(output / "models/cnn"))
    return [{k: v for k, v in epoch.items() if "second" not in k} for epoch in card.facts["history"]]


@pytest.fixture(scope="module")
def undisturbed(base: Path) -> Path:
    job("train", base, *settings_for(base, base, 1))
    return base


# --- workers


@pytest.fixture(scope="module")
def shared_by(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Return the output of an undisturbed run with a number of workers."""

    @functools.cache
    def run(workers: int) -> Path:
        output = tmp_path_factory.mktemp(f"workers{workers}")
        job("train", base, *settings_for(base, output, workers))
        return output

    return run


@pytest.mark.parametrize("workers", [2, 4])
def test_it_trains_with_any_number_of_workers(
    undisturbed: Path, shared_by: Callable[[int], Path], workers: int
) -> None:
    epochs, alone = history(shared_by(workers)), history(undisturbed)
    assert [epoch["epoch"] for epoch in epochs] == list(range(1, EPOCHS + 1))
    # the global batch and its learning rate are the same
    assert [epoch["learning_rate"] for epoch in epochs] == [epoch["learning_rate"] for epoch in alone]
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]
    assert epochs[-1]["best_f1"] > 0.5


def test_a_network_that_tune_chose_is_replaced_with_a_message(base: Path, tmp_path: Path) -> None:
    settings, chosen = settings_for(base, tmp_path), tmp_path / "models/cnn"
    job("train", base, *settings, "train.epochs=1")
    files = sorted(path.name for path in chosen.iterdir())
    shutil.copytree(chosen, chosen / "seed-0")
    (chosen / "MODEL_CARD.md").write_text("what tune measured")
    message = f"train: replaces the network that tune chose in {chosen}; OUTPUT/leaderboard still describes that one"
    assert message in job("train", base, *settings, "train.epochs=2").stderr
    assert sorted(path.name for path in chosen.iterdir()) == sorted([*files, "seed-0"])
    assert message not in job("train", base, *settings, "train.epochs=2").stderr
    (runs,) = evaluate._all_models(Location.of(tmp_path / "models"))
    assert [model.location for model in runs.models] == [Location.of(chosen)]


def test_an_output_relative_to_the_working_folder(base: Path, tmp_path: Path) -> None:
    settings_for(base, tmp_path)
    job("train", base, f"output={os.path.relpath(tmp_path, REPOSITORY)}", "train.epochs=1", "cluster.cpus=1")
    assert len(history(tmp_path)) == 1


def test_a_finished_run_is_not_trained_again(base: Path, undisturbed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (undisturbed / "models/cnn").iterdir()}
    done = job("train", base, *settings_for(base, base, 1))
    assert "best validation macro F1" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in (undisturbed / "models/cnn").iterdir()} == before


@pytest.mark.parametrize(
    ("run", "settings"),
    [
        (train.run, ["train.epochs=2", "train.workers=2"]),
        (pretrain.run, ["pretrain.epochs=1", "train.workers=2"]),
        (tune.run, ["train.epochs=1", "tune.architectures=[cnn]", "tune.trials=2", "tune.seeds=1", "tune.folds=0"]),
    ],
    ids=["train", "pretrain", "tune"],
)
def test_features_that_are_larger_than_the_object_store(
    run: Callable[[Config], None], settings: list[str], tmp_path: Path
) -> None:
    """None of their clips enters the store: Ray would keep what exceeds its 100 MiB in files, and train as well."""
    splits = {"train": 600, "valid": 100, "test": 10}
    clips = {name: make_clips(count, bins=128, frames=1600) for name, count in splits.items()}
    assert sum(split.spectrograms.nbytes for split in clips.values()) > 140 * 10**6
    write_features(tmp_path / "features", clips)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(SETTINGS | {"output": str(tmp_path)}))
    ray.init(address="local", num_cpus=2, object_store_memory=100 << 20, include_dashboard=False, log_to_driver=False)
    try:
        run(config.load(str(tmp_path / "run.yaml"), [*settings, "train.batch_size=50", "cluster.cpus=2"]))
        stored = stored_bytes()
        reference = ray.put(clips["valid"].spectrograms)
        assert stored_bytes() - stored > clips["valid"].spectrograms.nbytes  # they would have been counted
        del reference
    finally:
        ray.shutdown()
    assert list(tmp_path.glob("**/weights.safetensors"))
    assert stored < 10**6


def stored_bytes() -> int:
    """Return the bytes of all objects that were ever put into the store of this machine, also of deleted ones."""
    (node,) = ray.nodes()
    stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], include_memory_info=False)
    return int(stats.store_stats.cumulative_created_bytes)


# --- interruptions


@pytest.fixture(scope="module")
def interrupted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that was interrupted after a few epochs."""
    output = tmp_path_factory.mktemp("interrupted")
    with started(base, *settings_for(base, output)) as running:
        wait_for(lambda: checkpoints(output), running)
        running.send_signal(signal.SIGINT)
        errors = running.communicate(timeout=300)[1]
    assert running.returncode == 1
    assert "run the same command again to resume" in errors
    assert "Traceback" not in errors
    return output


def test_an_interrupted_run_refuses_changed_settings(base: Path, interrupted: Path) -> None:
    done = job("train", base, *settings_for(base, interrupted), "train.gain_db=1", "seed=7", succeeds=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "train.gain_db is 1.0, expected 3.0" in line
    assert "seed is 7, expected 0" in line
    assert "train.resume=false" in line


def test_a_truncated_list_of_checkpoints_costs_one_epoch_at_most(
    base: Path, undisturbed: Path, interrupted: Path, tmp_path: Path
) -> None:
    """A kill may interrupt Ray while it writes its list, or a worker while it writes a checkpoint."""
    settings = settings_for(base, tmp_path)
    shutil.copytree(interrupted / "runs", tmp_path / "runs")
    listed = tmp_path / "runs/cnn/checkpoint_manager_snapshot.json"
    listed.write_text(listed.read_text()[:100])
    last = max(tmp_path.glob("runs/cnn/checkpoint_*-*"))
    (last / "state.pt").write_bytes((last / "state.pt").read_bytes()[:1000])
    errors = job("train", base, *settings).stderr
    assert ", resuming after the last epoch that ended" in errors
    assert "epoch   1/" not in errors
    assert history(tmp_path) == history(undisturbed)  # to the last bit


def test_a_resumed_run_with_a_killed_worker_gives_the_same_results(
    base: Path, undisturbed: Path, interrupted: Path
) -> None:
    last = max(checkpoints(interrupted))
    with started(base, *settings_for(base, interrupted)) as running:
        wait_for(lambda: max(checkpoints(interrupted), default="") > last, running)
        (worker,) = train_workers(running)
        os.kill(worker, signal.SIGKILL)
        errors = running.communicate(timeout=500)[1]
    assert running.returncode == 0, errors
    assert "epoch   1/" not in errors
    assert history(interrupted) == history(undisturbed)  # to the last bit


def test_two_workers_resume_when_one_of_them_is_killed(
    base: Path, shared_by: Callable[[int], Path], tmp_path: Path
) -> None:
    with started(base, *settings_for(base, tmp_path, 2)) as running:
        wait_for(lambda: len(checkpoints(tmp_path)) > 1, running)
        first, _ = train_workers(running)
        os.kill(first, signal.SIGKILL)
        errors = running.communicate(timeout=500)[1]
    assert running.returncode == 0, errors
    assert errors.count("epoch   1/") == 1
    assert history(tmp_path) == history(shared_by(2))  # to the last bit


def test_a_loss_that_is_not_finite_is_one_line_and_ends_the_run(base: Path, tmp_path: Path) -> None:
    settings = settings_for(base, tmp_path)
    done = job("train", base, *settings, "train.weight_decay=1e30", succeeds=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: the loss is nan in epoch")
    assert json.loads((tmp_path / "runs/cnn/run.json").read_text())["ended"]


def started(base: Path, *settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("train", base, *settings), cwd=REPOSITORY, env=ENVIRONMENT, text=True, stderr=subprocess.PIPE
    )


def checkpoints(output: Path) -> list[str]:
    """Return the names of the checkpoints that Ray would resume from; the names are times."""
    listed = output / "runs/cnn/checkpoint_manager_snapshot.json"
    return re.findall(r"checkpoint_[0-9-_.]+", listed.read_text()) if listed.exists() else []


def train_workers(running: subprocess.Popen[str]) -> list[int]:
    """Return the ids of the processes of this run that train."""
    table = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in table.splitlines()]
    family = {running.pid}
    for _ in range(4):  # driver, raylet, worker
        family |= {int(pid) for pid, parent, _ in rows if int(parent) in family}
    return [int(pid) for pid, _, name in rows if int(pid) in family and "TrainWorker" in name]


def wait_for(condition: Callable[[], Any], running: subprocess.Popen[str], seconds: float = 500) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert running.poll() is None, running.communicate()[1]
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


# --- bad input: one line, before Ray starts


def map_rows(table: pa.Table, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> pa.Table:
    rows = [change(row) for row in table.to_pylist()]
    return pa.Table.from_pylist([row for row in rows if row is not None], table.schema)


def without_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def with_other_settings(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["settings"] = {"audio": {}, "spectrogram": {"n_mels": 16}}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def with_another_shape(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shape"]["bins"] = 17
    (folder / "manifest.json").write_text(json.dumps(manifest))


def without_training_tracks(folder: Path) -> None:
    tracks = pq.read_table(folder / "tracks.parquet")
    pq.write_table(
        map_rows(tracks, lambda row: row | {"split": row["split"].replace("train", "test")}), folder / "tracks.parquet"
    )


def with_a_single_track_of_a_genre(folder: Path) -> None:
    tracks = pq.read_table(folder / "tracks.parquet")
    lone = "train-track000"
    kept = map_rows(tracks, lambda row: row if row["genre"] != CLASSES[0] or row["track_id"] == lone else None)
    pq.write_table(kept, folder / "tracks.parquet")


def with_a_track_in_two_splits(folder: Path) -> None:
    tracks = pq.read_table(folder / "tracks.parquet")
    again = map_rows(tracks, lambda row: row | {"split": "valid"} if row["track_id"] == "train-track000" else None)
    pq.write_table(pa.concat_tables([tracks, again]), folder / "tracks.parquet")


def with_nan(folder: Path) -> None:
    clips = pq.read_table(folder / "clips/all.parquet")
    changed = map_rows(clips, lambda row: row | ({"peak_db": np.nan} if row["track_id"] == "valid-track003" else {}))
    pq.write_table(changed, folder / "clips/all.parquet")


@pytest.mark.parametrize(
    ("damage", "settings", "code", "message"),
    [
        (without_manifest, [], 1, "no features here (manifest.json is missing)"),
        (
            with_other_settings,
            [],
            1,
            "give the same --config and settings as for prepare, or prepare into another output",
        ),
        (with_another_shape, [], 1, "column 'spectrogram' should be fixed_size_binary[680]"),
        (without_training_tracks, [], 2, "no track is in the train split"),
        (with_a_single_track_of_a_genre, [], 2, "only one track of"),
        (with_a_track_in_two_splits, [], 1, "leakage: "),
        (with_nan, [], 1, "peak_db holds NaN or nulls, first in track 'valid-track003'"),
        (None, ["train.batch_size=7", "train.workers=4"], 2, "batch norm needs 2; use a larger batch or fewer workers"),
        (
            None,
            ["architecture=resnet", "architectures.resnet.pretrained=/no/such.pth"],
            2,
            "pretrained=/no/such.pth: cannot be read",
        ),
        (None, ["architecture=resnett"], 2, "did you mean 'resnet'?"),
    ],
)
def test_bad_input_is_one_line_before_any_worker_starts(
    damage: Callable[[Path], None] | None,
    settings: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    without_ray: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from ray_jobs.engine import cli

    write_features(tmp_path / "features", make_splits())
    if damage is not None:
        damage(tmp_path / "features")
    small = [f"architectures.cnn.{key}={value}" for key, value in SETTINGS["architectures"]["cnn"].items()]
    assert cli.main("train", [f"output={tmp_path}", *small, *settings]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_clips_with_nan_end_the_run_with_one_line(tmp_path: Path) -> None:
    """Only the workers read clips of a folder that prepare wrote, so this is found when they copy them."""
    write_features(tmp_path / "features", make_splits())
    with_nan(tmp_path / "features")
    manifest = json.loads((tmp_path / "features/manifest.json").read_text())
    (tmp_path / "features/manifest.json").write_text(json.dumps(manifest | {"versions": {"numpy": "2"}}))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(SETTINGS | {"output": str(tmp_path)}))
    done = job("train", tmp_path, "cluster.cpus=1", succeeds=False)
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert "peak_db holds NaN" in last


def test_a_search_passes_the_leakage_gate_too(
    tmp_path: Path, without_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    from ray_jobs.engine import cli

    write_features(tmp_path / "features", make_splits())
    with_a_track_in_two_splits(tmp_path / "features")
    assert cli.main("tune", [f"output={tmp_path}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: leakage: track 'train-track000'")


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray_jobs.engine import cluster

    def no_ray(*_: Any) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(cluster, "connected", no_ray)
