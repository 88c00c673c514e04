"""The resources of trials on a cluster of two machines, whose GPUs Ray takes as declared; and the cost of a step."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from clip_features import copies, write_features
from ray.cluster_utils import Cluster

from genre.config import load
from genre.errors import ConfigError, TrainingError
from genre.features import Shape
from genre.features.cache import ClipCache
from genre.settings import CacheSettings
from genre.training.costs import Cost, Workload
from genre.training.experiment import Experiment
from ray_jobs.engine import training
from ray_jobs.engine.capacity import Capacity
from ray_jobs.search import space, timing
from ray_jobs.search.budget import Forecast
from ray_jobs.search.resources import TrialResources
from ray_jobs.search.runner import Runner

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def two_machines() -> Iterator[None]:
    """Two CPUs and a GPU on each."""
    machine = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=machine | {"include_dashboard": False})
    cluster.add_node(**machine)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    cluster.wait_for_nodes(timeout=60)
    yield
    ray.shutdown()
    cluster.shutdown()


def resources(*settings: str) -> TrialResources:
    config = load(overrides=settings)
    return TrialResources.of(config.tune, config.device, Capacity.of(config.cluster))


@pytest.mark.parametrize(
    ("settings", "gpus", "trials"),
    [
        ([], 0.25, 4),  # as many as there are CPUs
        (["tune.cpus_per_trial=0.5"], 0.25, 8),
        (["tune.gpus_per_trial=0.5"], 0.5, 4),
        (["tune.gpus_per_trial=1"], 1, 2),
        (["tune.gpus_per_trial=0"], 0, 4),
        (["device=cpu"], 0, 4),
        (["tune.concurrent=3"], 0.25, 3),
        (["tune.workers_per_trial=2"], 1, 1),  # a GPU for each
        (["tune.workers_per_trial=2", "device=cpu"], 0, 2),
        (["tune.workers_per_trial=3", "device=cpu"], 0, 1),
    ],
)
def test_the_resources_of_a_trial_and_how_many_fit(settings: list[str], gpus: float, trials: int) -> None:
    trial = resources(*settings)
    assert trial.gpus == gpus
    assert trial.concurrent_trials() == trials
    assert [bundle.get("GPU", 0) for bundle in trial.bundles().bundles] == [gpus] * trial.workers


@pytest.mark.parametrize(
    "settings",
    [
        ["tune.cpus_per_trial=3"],  # four CPUs, but no machine has three
        ["tune.gpus_per_trial=2"],
        ["tune.workers_per_trial=3"],
        ["tune.workers_per_trial=5", "device=cpu"],
    ],
)
def test_a_trial_that_fits_no_machine_is_refused(settings: list[str]) -> None:
    with pytest.raises(ConfigError, match="ask for less"):
        resources(*settings).concurrent_trials()


def test_a_cluster_runs_as_many_trials_as_its_limits_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "these two machines")
    unlimited = resources()
    assert unlimited.gpus == 0.25
    assert unlimited.most_trials() is None
    assert unlimited.concurrent_trials() == 4  # what the machines that are up can hold
    assert resources("cluster.max_cpus=3").concurrent_trials() == 3
    assert resources("cluster.max_gpus=2").concurrent_trials() == 8
    assert resources("cluster.max_gpus=0").gpus == 0
    assert resources("tune.concurrent=9").most_trials() == 9
    with pytest.raises(ConfigError, match=r"a trial needs 2 x .* cluster.max_cpus allows 1 CPUs .* ask for less"):
        resources("tune.workers_per_trial=2", "cluster.max_cpus=1").most_trials()


def test_train_does_not_exceed_the_limits() -> None:
    config = load(overrides=["train.workers=2", "cluster.max_cpus=1", "device=cpu"])
    with pytest.raises(ConfigError, match=r"train.workers=2, but the job may use 1 CPUs and 2 GPUs; use at most 1"):
        training._resources(config.train.workers, config.device, Capacity.of(config.cluster))


def test_workers_of_a_trial_do_not_share_a_gpu() -> None:
    with pytest.raises(ConfigError, match="cannot share a GPU"):
        resources("tune.workers_per_trial=2", "tune.gpus_per_trial=0.5")


WORKLOAD = Workload(
    train=40, valid=20, test=20, shape=Shape(16, 600, 80.0, 512 / 22050), classes=4, test_tracks=20, train_tracks=40
)


def probe_without_crnn(planned: Experiment, workload: Workload, resources: TrialResources) -> Cost:
    if planned.architecture == "crnn":
        raise RuntimeError("the kernel is larger than the input")
    return Cost(0.01, 0.003)


def measure(monkeypatch: pytest.MonkeyPatch, names: str, *settings: str) -> Forecast:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not find tests
    monkeypatch.setattr(timing, "_probe", ray.remote(probe_without_crnn))
    config = load(overrides=[f"tune.architectures={names}", *settings])
    resources = TrialResources.of(config.tune, "cpu", Capacity.of(config.cluster))
    return timing.measure(space.experiments(config), config.tune, WORKLOAD, resources)


def test_an_architecture_that_cannot_take_a_step_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    forecast = measure(monkeypatch, "[cnn, crnn]")
    assert list(forecast.plan().epochs) == ["cnn"]
    assert forecast.failures == {
        "crnn": "no training step is possible (RuntimeError: the kernel is larger than the input)"
    }


def test_minutes_in_which_no_architecture_finishes_an_epoch_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"tune\.minutes=0\.01 is too short for one epoch of cnn; give at least"):
        measure(monkeypatch, "[cnn, crnn]", "tune.minutes=0.01")


def test_a_search_in_which_no_architecture_can_take_a_step_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match=r"crnn: no training step is possible .*larger than the input"):
        measure(monkeypatch, "[crnn]")


def test_a_machine_without_room_for_all_tracks_ends_a_search_on_a_sample_at_its_start(tmp_path: Path) -> None:
    """The final models learn from all tracks, hours later."""
    features = write_features(tmp_path / "features")
    limit = 1e-9 * (ClipCache.of(features, CacheSettings()).size() - 1)
    settings = CacheSettings(folder=str(tmp_path / "cache"), max_gb=limit)
    base = load(overrides=["tune.sample=0.5"])
    trials = Runner(base, ClipCache.of(features.sampled(0.5, 0), settings), resources("tune.gpus_per_trial=0"))
    with pytest.raises(TrainingError, match=r"cache.folder=.*: the clips of .* available, enough for .* of them"):
        trials.cache_clips()
    assert copies(settings) == []
    roomy = replace(trials, cache=replace(trials.cache, settings=CacheSettings(folder=settings.folder)))
    roomy.cache_clips()
    assert len(copies(settings)) == 1
