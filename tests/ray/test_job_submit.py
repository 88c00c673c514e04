"""Submit jobs through the Jobs API of a real cluster on loopback, with a token."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq
import pytest
from heads import RAY, Head
from making import SMALL_MODELS
from running import write_config

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SETTINGS: dict[str, dict[str, Any]] = {
    "corpus": {
        "kind": "synthetic",
        "params": {"tracks_per_genre": 3, "artists_per_genre": 3, "seconds": 2.0, "damaged": 2},
    },
    "audio": {"clip_seconds": 2.0},
    "spectrogram": {"n_mels": 16, "n_fft": 1024, "hop_length": 512},
    "train": {"epochs": 2000, "window_seconds": 1.0, "eval_windows": 2, "batch_size": 16},
    "architectures": SMALL_MODELS,
}


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("head")
    write_config(folder, SETTINGS)
    with Head(folder) as head:
        yield head


def test_prepare_uploads_a_small_package_and_logs_its_progress(head: Head) -> None:
    head.submit("prepare", options=("--submission-id", "prepare-1"))
    assert len(pq.read_table(head.folder / "out/features/tracks.parquet")) == 30

    (package,) = head.temporary.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/")
    assert sum(file.stat().st_size for file in package.rglob("*")) < 5_000_000
    assert {path.name for path in package.iterdir()} >= {"genre", "ray_jobs", "configs"}
    assert not {".git", ".venv", "tests", "docs", "outputs"} & {path.name for path in package.iterdir()}

    logs = head.ray("job", "logs", "prepare-1")
    lines = [line for line in logs.splitlines() if not re.match(r"\S+ \S+\t|Running entrypoint|-+$|Job '|$", line)]
    assert lines[0].startswith("prepare: scanning corpus")
    assert all(line.startswith(("prepare:", "  ")) for line in lines), logs
    assert "\x1b[" not in "".join(lines)


def increase(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Return by how much each metric rose, without those that did not."""
    changes = {name: value - before.get(name, 0) for name, value in after.items()}
    return {name: change for name, change in changes.items() if change > 0}


def test_prometheus_reads_the_counts_of_prepare(head: Head) -> None:
    before, output = head.metrics(), head.folder / "counted"
    head.submit("prepare", f"output={output}")
    counts = json.loads((output / "features/manifest.json").read_text())["counts"]
    expected = {
        "ray_genre_prepared_clips_total": counts["clips"],
        "ray_genre_rejected_tracks_total": 2,
        "ray_genre_finished_tracks_total": 32,
    }
    deadline = time.monotonic() + 60  # workers report every ten seconds
    while (counted := increase(before, head.metrics())) != expected:
        assert time.monotonic() < deadline, counted
        time.sleep(1)


def test_an_error_and_its_exit_code_reach_the_submitter(head: Head) -> None:
    output = head.submit("prepare", "output=outputs/x", code=1)
    assert "error: output=outputs/x is in the submitted copy of the code, which Ray deletes" in output
    assert "exit code 2" in output


def test_training_reports_its_speed_and_stopping_it_ends_its_processes(head: Head) -> None:
    head.submit("train", "architecture=cnn", options=("--no-wait", "--submission-id", "train-1"))
    deadline = time.monotonic() + 150
    while "epoch   2/" not in head.ray("job", "logs", "train-1", code=None):
        assert time.monotonic() < deadline, head.ray("job", "logs", "train-1")
        time.sleep(1)
    while not (metrics := head.metrics()).get("ray_genre_train_windows_per_second"):
        assert time.monotonic() < deadline, metrics
        time.sleep(1)
    assert "ray_genre_train_data_wait_seconds" in metrics
    head.ray("job", "stop", "train-1")
    assert "was stopped" in head.ray("job", "status", "train-1")
    while left := [line for line in head.descendants().values() if "RayTrainWorker" in line or "ray_jobs" in line]:
        assert time.monotonic() < deadline, left
        time.sleep(0.5)


def test_a_wrong_token_is_refused(head: Head) -> None:
    stranger = head.environment | {"RAY_AUTH_TOKEN": "0" * 64}
    done = subprocess.run([RAY, "job", "list"], env=stranger, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "auth" in (done.stdout + done.stderr).lower()
