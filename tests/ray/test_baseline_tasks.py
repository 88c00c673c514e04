"""The classical baseline fitted in tasks equals that of clips in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from making import load

from genre.arrays import Float32
from genre.evaluation import baseline as machines
from genre.evaluation import track_statistics
from genre.evaluation.baseline import LabelledStatistics
from genre.features import SPLITS, Features
from genre.storage import Location
from ray_jobs.engine.capacity import Capacity
from ray_jobs.scoring import baseline

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ONE_CPU = Capacity(cpus=1, gpus=0)


@pytest.fixture(scope="module", autouse=True)
def one_cpu() -> Iterator[None]:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.fixture
def features(home: Path) -> Features:
    return Features.open(Location.of(home / "out" / "features"))


def test_the_fitted_baseline_is_that_of_clips_in_memory(features: Features) -> None:
    fitted = ray.get(baseline.fit_baseline.remote(features, False, ONE_CPU))
    clips = load(features, *SPLITS)
    splits = {name: LabelledStatistics(track_statistics.of_clips(each), each.labels) for name, each in clips.items()}
    expected = machines.fit(splits["train"], splits["valid"], len(features.classes), class_weights=False)
    assert fitted.settings == expected.settings
    assert fitted.valid_f1 == expected.valid_f1
    test = splits["test"].statistics
    np.testing.assert_array_equal(fitted.predict(test), expected.predict(test))


def test_several_tasks_give_the_statistics_of_clips_in_memory(features: Features) -> None:
    def nested(features: Features) -> Float32:
        """Divide the work among tasks, from a task that itself has the only CPU."""
        baseline._CLIPS_PER_TASK = 5
        return baseline.statistics(features, features.tracks("train"), ONE_CPU)

    statistics = ray.get(ray.remote(num_cpus=1)(nested).remote(features), timeout=300)
    np.testing.assert_array_equal(statistics, track_statistics.of_clips(load(features, "train")["train"]))
