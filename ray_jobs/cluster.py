"""Joining a cluster, or starting Ray on this machine for the time of one job. Import this before `ray`."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator

# One job is one program: Ray's own reports would bury its output. All can be set back from outside.
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # a report waits for the next poll; two seconds of it would be most of a short epoch
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
}
for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)
if not os.environ.get("RAY_ADDRESS"):
    # read when ray is imported; a token of this process's own, so that nothing is left in HOME
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

import ray  # noqa: E402
import ray.data  # noqa: E402

import genre  # noqa: E402
import ray_jobs  # noqa: E402
from genre.config import Config  # noqa: E402
from genre.errors import ConfigError  # noqa: E402
from genre.storage import Location  # noqa: E402


@contextlib.contextmanager
def connected(config: Config) -> Iterator[None]:
    """Ray for the time of a job: the cluster of RAY_ADDRESS, or one of this machine's own that ends with the job."""
    if os.environ.get("RAY_ADDRESS"):
        _join()
    else:
        _start(config)
    for name in ("ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    try:
        _check_output(config)
        yield
    finally:
        ray.shutdown()


def cpus() -> int:
    """CPUs of the cluster, at least one."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def gpus() -> int:
    return int(ray.cluster_resources().get("GPU", 0))


def _join() -> None:
    # `ray job submit --working-dir` already ships the code; a driver started by hand must
    submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    modules = None if submitted else {"py_modules": [genre, ray_jobs]}
    ray.init(log_to_driver=False, logging_level="error", runtime_env=modules)


def _start(config: Config) -> None:
    ray.init(
        address="local",
        num_cpus=config.cluster.cpus or None,
        object_store_memory=config.cluster.object_store_mb * 2**20 or None,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )


def _check_output(config: Config) -> None:
    """Before any work: the output can be written, and every node can reach it."""
    output = Location.of(config.output)
    nodes = {node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    if output.is_local and len(nodes) > 1 and not os.path.ismount(_mount_of(output.path)):
        raise ConfigError(
            f"output={config.output} is a folder of one machine, the cluster has {len(nodes)}; "
            "use an address that all of them reach, such as s3://bucket/run or a mounted path"
        )
    try:
        (output / ".writable").write_text("")
        (output / ".writable").delete()
    except OSError as error:
        raise ConfigError(
            f"output={config.output} cannot be written ({error.strerror or error}); choose another"
        ) from None


def _mount_of(path: str) -> str:
    """The mount point that holds `path`, or "" for the root file system."""
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return "" if path == "/" else path
