"""The classical baseline fitted in tasks equals that of clips in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from making import load

from genre.evaluation import baseline as machines
from genre.evaluation import track_statistics
from genre.evaluation.baseline import Split
from genre.features import SPLITS, Features, Float32
from genre.storage import Location
from ray_jobs.engine import baseline

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def one_cpu() -> Iterator[None]:
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.fixture
def features(home: Path) -> Features:
    return Features.open(Location.of(home / "out" / "features"))


def test_the_fitted_baseline_is_that_of_clips_in_memory(features: Features) -> None:
    fitted = ray.get(baseline.fit_baseline.remote(features, False))
    clips = load(features, *SPLITS)
    splits = {name: Split(track_statistics.of_clips(each), each.labels) for name, each in clips.items()}
    expected = machines.fit(splits["train"], splits["valid"], len(features.classes), class_weights=False)
    assert fitted.baseline.settings == expected.settings
    assert fitted.baseline.valid_f1 == expected.valid_f1
    np.testing.assert_array_equal(fitted.predictions, expected.predict(splits["test"].statistics))


def test_several_tasks_give_the_same_statistics(features: Features) -> None:
    def nested(features: Features) -> tuple[int, Float32]:
        """Divide the work among tasks, from a task that itself has the only CPU."""
        baseline._CLIPS_PER_TASK = 5
        tracks = features.tracks()
        return len(baseline.task_rows(tracks)), baseline._statistics(features, tracks)

    tasks, statistics = ray.get(ray.remote(num_cpus=1)(nested).remote(features), timeout=120)
    assert tasks > 1
    np.testing.assert_array_equal(statistics, track_statistics.of_tracks(features, features.tracks()))


def test_each_task_has_all_tracks_of_its_files(features: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baseline, "_CLIPS_PER_TASK", 5)
    tracks = features.tracks()
    rows = baseline.task_rows(tracks)
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(tracks)))
    parts = [set(tracks["part"].take(each).to_pylist()) for each in rows]
    assert sum(map(len, parts)) == len(set.union(*parts))
