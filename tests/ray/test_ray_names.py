"""Names that Ray may change without notice: each has one owner in ray_jobs, and is as the owner expects it.

After an update of Ray this test fails within seconds, and names the module to look at.
"""

from __future__ import annotations

import ast
import importlib
import mmap
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

import ray_jobs

# isort: split
import ray
from ray._raylet import InnerGcsClient  # type: ignore[attr-defined]
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
from ray.exceptions import RayTaskError
from ray.runtime_context import RuntimeContext
from ray.train import WorkerGroupError
from ray.util.placement_group import PlacementGroup

# What Ray marks as for developers or alpha, does not mark, or does not export; and the modules that may use it. Two are
# named where both implement an interface of Ray that passes the object to them.
OWNERS = {
    "ray._raylet.GcsClient": ["engine/machines.py"],
    "ray.core.generated.autoscaler_pb2.GetClusterStatusReply": ["engine/machines.py"],
    "ray.nodes": ["engine/machines.py"],
    "ray.cluster_resources": ["engine/capacity.py"],
    "ray.data.DataContext": ["engine/cluster.py"],
    "ray.exceptions.ActorUnavailableError": ["engine/reporter.py"],
    "ray.train.LoggingConfig": ["engine/training.py"],
    "ray.train.WorkerGroupError": ["engine/training.py"],
    "ray.tune.experiment.Trial": ["search/progress.py", "search/stopper.py"],
    "ray.tune.schedulers.TrialScheduler": ["search/stopper.py"],
    "ray.tune.search.Searcher": ["search/samplers.py"],
    "ray.tune.search.optuna.OptunaSearch": ["search/samplers.py"],
    "ray.util.get_node_ip_address": ["search/distributed.py"],
    "ray.util.metrics.Counter": ["engine/metrics.py"],
    "ray.util.metrics.Gauge": ["engine/metrics.py"],
}
# public in Ray's documentation, but not marked so in its code
PUBLIC = ("ray.ObjectRef", "ray.serve.deployment", "ray.train.torch.prepare_model")
# texts that are not names of Python: files, threads and variables of Ray, with their owner and a file of Ray
TEXTS = {
    "checkpoint_manager_snapshot.json": ("engine/training.py", "train/v2/_internal/constants.py"),
    "iter_threaded": ("engine/blocks.py", "data/_internal/block_batching/util.py"),
    "RAY_JOB_CONFIG_JSON_ENV_VAR": ("engine/reach.py", "_private/runtime_env/constants.py"),
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": ("__init__.py", "_private/accelerators/accelerator.py"),
    "RAY_AIR_NEW_OUTPUT": ("__init__.py", "tune/experimental/output.py"),
    "RAY_BACKEND_LOG_LEVEL": ("__init__.py", "_raylet.so"),
    "RAY_CHDIR_TO_TRIAL_DIR": ("__init__.py", "train/constants.py"),
    "RAY_DATA_DISABLE_PROGRESS_BARS": ("__init__.py", "data/context.py"),
    "RAY_DATA_METADATA_PREFETCH_ON_THREAD": ("__init__.py", "data/_internal/execution/metadata_fetcher.py"),
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": ("__init__.py", "train/v2/_internal/constants.py"),
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": ("__init__.py", "train/constants.py"),
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": ("__init__.py", "train/v2/_internal/constants.py"),
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": ("__init__.py", "train/v2/_internal/constants.py"),
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": ("__init__.py", "tune/constants.py"),
}
JOBS = REPOSITORY / "ray_jobs"
SOURCES = {str(path.relative_to(JOBS)): path.read_text(encoding="utf-8") for path in sorted(JOBS.rglob("*.py"))}


def names_of_ray(source: str) -> set[str]:
    """Return the dotted names of Ray that a module imports or uses."""
    tree = ast.parse(source)
    names, local = set(), {"ray": "ray"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ray":
            local |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
            names |= {f"{node.module}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            first, _, rest = dotted.partition(".")
            if first in local and dotted.replace(".", "").replace("_", "").isalnum():
                names.add(f"{local[first]}.{rest}")
    return names


def resolved(name: str) -> Any:
    """Return the object of a dotted name. Raises `AttributeError` when Ray has renamed it."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return found
    raise AttributeError(name)


def is_unstable(name: str) -> bool:
    """Return whether Ray may change what has this name: it is internal, not marked as public, or marked as alpha."""
    found = resolved(name)
    if not callable(found) or name in PUBLIC:
        return False
    if found.__module__ and hasattr(resolved(name.rpartition(".")[0]), "_annotated_type"):
        return False  # a method of a class that is itself in the list
    mark = getattr(found, "_annotated_type", None)
    return getattr(mark, "name", "") != "PUBLIC_API" or "PublicAPI (alpha)" in (found.__doc__ or "")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the import of Ray Serve
def test_each_unstable_name_has_its_owner() -> None:
    users = defaultdict(list)
    for module, source in SOURCES.items():
        for name in sorted(filter(is_unstable, names_of_ray(source))):
            users[name].append(module)
    assert dict(sorted(users.items())) == dict(sorted(OWNERS.items()))


@pytest.mark.parametrize(("text", "place"), TEXTS.items(), ids=list(TEXTS))
def test_a_text_of_ray_is_in_its_code_and_in_its_owner(text: str, place: tuple[str, str]) -> None:
    owner, file = place
    assert [module for module, source in SOURCES.items() if f'"{text}"' in source] == [owner]
    with (
        open(Path(ray.__file__).parent / file, "rb") as code,
        mmap.mmap(code.fileno(), 0, access=mmap.ACCESS_READ) as it,
    ):
        assert it.find(text.encode()) >= 0


def test_every_variable_that_the_jobs_set_is_in_the_list() -> None:
    assert set(ray_jobs.RAY_VARIABLES) == {text for text, (owner, _) in TEXTS.items() if owner == "__init__.py"}


def test_the_state_of_the_autoscaler_has_the_fields_that_are_read() -> None:
    assert callable(InnerGcsClient.get_cluster_status)  # GcsClient asks it for each attribute
    reply = GetClusterStatusReply()
    state, report = reply.cluster_resource_state, reply.autoscaling_state
    assert state.cluster_resource_state_version == report.last_seen_cluster_resource_state_version == 0
    for requests in (state.pending_gang_resource_requests, report.infeasible_gang_resource_requests):
        assert requests.add().details == ""
    assert report.failed_instance_requests.add().ray_node_type_name == ""
    assert not report.pending_instances
    assert not report.pending_instance_requests


def test_errors_of_ray_hold_those_of_the_jobs() -> None:
    """A job that finds none of these would report Ray's error in place of its own."""
    own = ValueError("batch of one")
    assert RayTaskError("task", "Traceback", own).cause is own
    assert next(iter(WorkerGroupError("Traceback", {0: own}).worker_failures.values())) is own


def test_groups_and_contexts_have_the_attributes_that_are_read() -> None:
    read = {PlacementGroup: ("bundle_count", "bundle_specs", "wait"), RuntimeContext: ("gcs_address", "get_node_id")}
    for kind, names in read.items():
        assert [name for name in names if not hasattr(kind, name)] == []
