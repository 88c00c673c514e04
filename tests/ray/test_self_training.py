"""Training from the genres that a teacher predicts for tracks without one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from grouped import CLASSES, write_grouped
from running import job

from genre import report
from genre.features import Features, streaming
from genre.model import checkpoint
from genre.storage import Location

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SETTINGS: dict[str, Any] = {
    "train": {"window_seconds": 0.5, "windows_per_clip": 4, "eval_windows": 2, "epochs": 2, "batch_size": 8},
    "device": "cpu",
    "architectures": {"cnn": {"width": 4, "depth": 3}},
    "cluster": {"cpus": 1, "object_store_mb": 100},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of which six tracks have no genre, one of them the audio of a validation track, with a teacher."""
    home = tmp_path_factory.mktemp("home")
    write_grouped(home / "features", splits=("train", "train", "valid", "test"))
    change_tracks(home, [24, 25, 26, 27, 28, 29])
    (home / "run.yaml").write_text(yaml.safe_dump(SETTINGS | {"output": str(home)}))
    job("train", home)
    os.rename(home / "models/cnn", home / "models/teacher")
    return home


def change_tracks(home: Path, unlabelled: list[int]) -> None:
    tracks = pq.read_table(home / "features/tracks.parquet").to_pylist()
    for track in (tracks[number] for number in unlabelled):
        track["genre"], track["split"] = None, "unlabelled"
    tracks[24]["sound"] = tracks[12]["sound"]  # of split valid
    pq.write_table(pa.Table.from_pylist(tracks), home / "features/tracks.parquet")


def test_the_student_learns_what_the_teacher_predicts_and_is_compared_with_it(home: Path) -> None:
    teacher = home / "models/teacher"
    first = job("train", home, f"teacher={teacher}")
    assert f"train: 5 more tracks, with the genres that {teacher} predicts" in first.stderr
    card = json.loads((home / "models/cnn-student/model.json").read_text())
    assert card["facts"]["teacher"] == str(teacher)

    predicted = pq.read_table(home / "runs/cnn-student/predicted.parquet").to_pydict()
    features = Features.open(Location.of(home / "features"))
    tracks = features.tracks("unlabelled")
    clips = streaming.first_clips(features, tracks, 2 * len(tracks))
    network = checkpoint.load(Location.of(teacher))
    answers = network.predict(clips)
    assert predicted["track_id"] == tracks["track_id"].to_pylist()
    assert predicted["genre"] == [CLASSES[best] for best in np.argmax(answers, axis=1)]

    again = job("train", home, f"teacher={teacher}")
    assert "valid loss" not in again.stderr
    job("evaluate", home)
    board = report.read_board(Location.of(home / "evaluation"))
    assert {"teacher", "cnn-student"} <= {entry.name for entry in board.entries}
    refused = job("evaluate", home, "evaluate.folds=2", f"model={home / 'models/cnn-student'}", succeeds=False)
    assert "evaluate.folds: cnn-student learned what a teacher predicts" in refused.stderr
    folds = job("evaluate", home, "evaluate.folds=2")
    assert "evaluate: without cnn-student, whose teachers learned from tracks of other folds" in folds.stderr


def test_a_student_is_not_judged_by_what_its_teacher_predicted(home: Path, tmp_path: Path) -> None:
    job("train", home, f"teacher={home / 'models/teacher'}")
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    tracks = pq.read_table(home / "features/tracks.parquet").to_pylist()
    tracks[26]["genre"], tracks[26]["split"] = CLASSES[0], "test"  # a person reviewed it
    pq.write_table(pa.Table.from_pylist(tracks), tmp_path / "features/tracks.parquet")
    settings = [f"output={tmp_path}", f"model={tmp_path / 'models/cnn-student'}"]
    refused = job("evaluate", home, *settings, succeeds=False)
    assert "learned from tracks that are in split test today" in refused.stderr
    job("evaluate", home, *settings, "evaluate.split=valid")


def test_a_student_teaches_the_next_one_which_replaces_it(home: Path) -> None:
    student = home / "models/cnn-student"
    job("train", home, f"teacher={home / 'models/teacher'}")
    second = job("train", home, f"teacher={student}")
    assert f"train: 5 more tracks, with the genres that {student} predicts" in second.stderr
    assert "valid loss" in second.stderr
    assert "valid loss" not in job("train", home, f"teacher={student}").stderr


def test_a_teacher_that_cannot_teach_is_one_line(home: Path, tmp_path: Path) -> None:
    teacher = home / "models/teacher"
    missing = job("train", home, f"teacher={home / 'models/none'}", succeeds=False)
    assert missing.stderr.splitlines()[-1].startswith(f"error: {home / 'models/none'}")

    write_grouped(tmp_path / "features", splits=("train", "train", "valid", "test"))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(SETTINGS | {"output": str(tmp_path)}))
    labelled = job("train", tmp_path, f"teacher={teacher}", succeeds=False)
    assert "has no track without a genre; prepare some with the others, or leave the teacher out" in labelled.stderr

    card = json.loads((teacher / "model.json").read_text())
    card["facts"]["trained_on"] = ["train", "valid"]
    knows = tmp_path / "knows"
    knows.mkdir()
    for file in teacher.iterdir():
        (knows / file.name).write_bytes(file.read_bytes())
    (knows / "model.json").write_text(json.dumps(card))
    refused = job("train", home, f"teacher={knows}", succeeds=False)
    assert "learned, or may have learned, from validation or test tracks" in refused.stderr
