"""How many trials fit into a cluster, counted machine by machine. Ray takes its word for GPUs, so none is needed."""

from __future__ import annotations

import pytest
import ray
from ray.cluster_utils import Cluster

from genre.config import load
from genre.errors import ConfigError
from ray_jobs.search import terms

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def two_machines():
    """Two CPUs and a GPU on each."""
    machine = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=machine | {"include_dashboard": False})
    cluster.add_node(**machine)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    cluster.wait_for_nodes(timeout=60)
    yield
    ray.shutdown()
    cluster.shutdown()


def resolved(*settings):
    return terms.with_resources(load(overrides=settings))


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
def test_resources_and_room_of_a_trial(settings, gpus, trials):
    config = resolved(*settings)
    assert config.tune.gpus_per_trial == gpus
    assert terms.concurrent_trials(config) == trials
    assert [bundle.get("GPU", 0) for bundle in terms.bundles(config).bundles] == [gpus] * config.tune.workers_per_trial


@pytest.mark.parametrize(
    "settings",
    [
        ["tune.cpus_per_trial=3"],  # four CPUs, but no machine has three
        ["tune.gpus_per_trial=2"],
        ["tune.workers_per_trial=3"],
        ["tune.workers_per_trial=5", "device=cpu"],
    ],
)
def test_what_no_machine_holds_is_refused_rather_than_waited_for(settings):
    with pytest.raises(ConfigError, match="ask for less"):
        terms.concurrent_trials(resolved(*settings))


def test_workers_of_a_trial_do_not_share_a_gpu():
    with pytest.raises(ConfigError, match="cannot share a GPU"):
        resolved("tune.workers_per_trial=2", "tune.gpus_per_trial=0.5")
