"""Scoring on changed audio: what cannot be measured is a note, and never an error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
from saving import CLASSES, FEATURES, save_model, song

from genre.config import load
from genre.evaluation import robustness
from genre.evaluation.changes import CHANGES
from genre.evaluation.robustness import UNCHANGED, ChangedTrackPreparer
from genre.features.recipe import Recipe
from genre.model import checkpoint
from genre.storage import Location
from ray_jobs.engine.capacity import Capacity
from ray_jobs.engine.progress import JobProgress
from ray_jobs.scoring.robustness import ChangedAudio, Measurement

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RECIPE = Recipe.of(load(None, FEATURES))
TRUTH = np.array([0, 1, 2, 0, 1, 2])


@pytest.fixture(scope="module", autouse=True)
def two_cpus() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Location]:
    folder = tmp_path_factory.mktemp("models")
    return [Location.of(save_model(folder / str(seed), seed=seed)) for seed in (0, 1)]


@pytest.fixture
def tracks(tmp_path: Path) -> pa.Table:
    """Six test tracks of three genres."""
    paths = [str(song(tmp_path / f"{n}.wav", hertz=200.0 + 90 * n, seed=n)) for n in range(6)]
    return pa.table({"path": paths, "genre": [CLASSES[label] for label in TRUTH]})


def measure(
    tracks: pa.Table, models: list[Location], count: int = 0, recipe: Recipe = RECIPE
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Return the scores and notes; unchanged, every model is right on every track."""
    right = [np.eye(len(CLASSES), dtype=np.float32)[TRUTH]] * len(models)
    measurement = Measurement.start(
        ChangedAudio.sample(tracks, count, 0, recipe), models, None, Capacity(cpus=2, gpus=0)
    )
    with JobProgress("test", len(measurement.tasks)) as progress:
        scores, notes, failed = measurement.finish(TRUTH, {"cnn": [0, 1]}, right, "", progress)
    assert failed == any("Robustness was not" in note or "leaves out" in note for note in notes)
    return scores, notes


def expected(tracks: pa.Table, rows: list[int], models: list[Location]) -> dict[str, float]:
    """Return macro F1 by change, computed in this process."""
    kernel = ChangedTrackPreparer(RECIPE)
    changed = [kernel(tracks["path"][row].as_py()) for row in rows]
    answers = [[robustness.predict_changed(track, RECIPE.shape(), [load_model(model)])[0] for track in changed]
               for model in models]  # fmt: skip
    stacked = np.array(answers)  # (models, tracks, changes, classes)
    return {change: robustness.macro_f1(TRUTH[rows], stacked[:, :, n]) for n, change in enumerate(CHANGES)}


def load_model(folder: Location) -> robustness.PredictClips:
    return checkpoint.load(folder).predict


def test_all_tracks_are_scored_on_every_change(tracks: pa.Table, models: list[Location]) -> None:
    scores, notes = measure(tracks, models)
    assert notes == []
    assert scores["cnn"] == pytest.approx(expected(tracks, list(range(6)), models) | {UNCHANGED: 1.0})


def test_a_sample_is_scored_and_counted(tracks: pa.Table, models: list[Location]) -> None:
    audio = ChangedAudio.sample(tracks, 3, 0, RECIPE)
    assert sorted(TRUTH[audio.rows]) == [0, 1, 2]
    assert audio.paths == [tracks["path"][row].as_py() for row in audio.rows.tolist()]
    scores, notes = measure(tracks, models, count=3)
    assert notes == ["Robustness was measured on 3 of 6 test tracks, each genre in proportion."]
    assert scores["cnn"] == pytest.approx(expected(tracks, audio.rows.tolist(), models) | {UNCHANGED: 1.0})


def test_tracks_that_cannot_be_decoded_are_left_out_and_counted(tracks: pa.Table, models: list[Location]) -> None:
    Path(tracks["path"][1].as_py()).unlink()
    Path(tracks["path"][4].as_py()).write_bytes(b"nothing")
    scores, notes = measure(tracks, models)
    assert notes[0] == "Robustness was measured on 4 of 6 test tracks, each genre in proportion."
    assert notes[1].startswith("Robustness leaves out 2 tracks that could not be decoded again, the first is ")
    assert "1.wav: unreadable" in notes[1]
    assert scores["cnn"] == pytest.approx(expected(tracks, [0, 2, 3, 5], models) | {UNCHANGED: 1.0})


def test_a_track_that_kills_or_stalls_its_decoder_is_left_out(tracks: pa.Table, models: list[Location]) -> None:
    limits = RECIPE.decoding.model_copy(update={"file_timeout_s": 1e-4})
    scores, notes = measure(tracks, models, recipe=RECIPE.model_copy(update={"decoding": limits}))
    assert scores == {}
    assert len(notes) == 1
    assert notes[0].startswith("Robustness was not measured: ")
    assert "timed_out" in notes[0]
    starved = RECIPE.decoding.model_copy(update={"max_file_memory_mb": 1})
    scores, notes = measure(tracks, models, recipe=RECIPE.model_copy(update={"decoding": starved}))
    assert scores == {}
    assert "absurd_header" in notes[0] or "crashed" in notes[0]


def test_a_task_that_fails_is_a_note(tracks: pa.Table, models: list[Location], tmp_path: Path) -> None:
    scores, notes = measure(tracks, [*models, Location.of(tmp_path / "gone")])
    assert scores == {}
    assert len(notes) == 1
    assert notes[0].startswith("Robustness was not measured: ")
