"""Joining a cluster, or starting Ray on this machine for the time of one job."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import ray
import yaml
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import genre
import ray_jobs
from genre.errors import ConfigError
from genre.settings import Config
from genre.storage import Location
from ray_jobs.engine import head
from ray_jobs.engine.interrupts import interruptible

_NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "fuse", "lustre", "ceph", "gpfs", "beegfs", "gluster", "9p", "virtiofs")
_MOUNTS = "/proc/self/mounts"
_PROBE_SECONDS = 120
_AUTOSCALER_FILE = "~/ray_bootstrap_config.yaml"


@contextlib.contextmanager
def connected(config: Config) -> Iterator[None]:
    """Ray for the time of a job: the cluster of RAY_ADDRESS, or one of this machine's own that ends with the job.

    Within another `connected`, such as that of a job made of several, it is the Ray of that one.
    """
    if ray.is_initialized():
        yield
        return
    with contextlib.ExitStack() as stack:
        if os.environ.get("RAY_ADDRESS"):
            _join()
            stack.enter_context(head.watched(ray.get_runtime_context().gcs_address))
        else:
            _start(config)
        stack.callback(ray.shutdown)
        stack.enter_context(interruptible())
        _quieten()
        _check_output(config)
        yield


def _quieten() -> None:
    for name in ("ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)


def data() -> ModuleType:
    """Return Ray Data, set to be quiet.

    Call this once Ray is connected: importing Ray Data and pandas takes more than Ray itself, and at that moment
    Ray's own processes are still starting on the other CPUs.
    """
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # importing it sets another level
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    module: ModuleType = ray.data
    return module


def cpus() -> int:
    """CPUs of the cluster, with those of machines that its autoscaler may still start; at least one."""
    return max(1, _capacity("CPU"))


def gpus() -> int:
    """GPUs of the cluster, with those of machines that its autoscaler may still start."""
    return _capacity("GPU")


def places(needed: Mapping[str, float]) -> int:
    """How many times `needed` fits into the cluster, each time on one machine, which its sum does not tell."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fits = max(sum(_fits(machine, needed) for machine in machines) for machines in (alive, _startable()))
    return fits or int(_works_elsewhere())  # machines that nobody announced may still come


def check_seen(address: str, setting: str) -> None:
    """Raise `ConfigError` unless every machine of the cluster sees `address`, which came from `setting`."""
    for machine, problem in _ask_others(address, write=False):
        raise ConfigError(
            f"{setting}: {machine} cannot read {address} ({problem}); use an address that all machines reach, "
            "such as s3://bucket/music or a mounted folder"
        )


def check_writable(config: Config) -> None:
    """Raise `ConfigError` unless this machine can write the output; for jobs with much to do before Ray starts."""
    with _probe(config):
        pass


def _join() -> None:
    address = os.environ["RAY_ADDRESS"]
    if re.fullmatch(r"[^/]+:\d+", address) and not head.answers(address):
        raise ConfigError(f"RAY_ADDRESS={address}: no cluster answers there; start one, or unset it to work without")
    # `ray job submit --working-dir` already ships the code; a driver started by hand must
    modules = None if _submitted() else {"py_modules": [genre, ray_jobs]}
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


def _submitted() -> bool:
    """Whether this is the driver of a `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def _capacity(kind: str) -> int:
    return max(int(ray.cluster_resources().get(kind, 0)), _could_start(kind))


def _fits(machine: Mapping[str, float], needed: Mapping[str, float]) -> int:
    return int(min(machine.get(kind, 0) / amount for kind, amount in needed.items()) + 1e-9)


def _could_start(kind: str) -> int:
    return sum(int(machine.get(kind, 0)) for machine in _startable())


def _startable() -> list[dict[str, float]]:
    """Resources of all machines that the autoscaler of `ray up` may start; its file is in the head's home.

    Ray itself does not tell: the limits that Ray Train asks for are reported by no autoscaler of 2.60.
    """
    if not os.environ.get("RAY_ADDRESS"):
        return []  # a Ray of our own, perhaps on a machine that was a head once
    try:
        cluster = yaml.safe_load(Path(_AUTOSCALER_FILE).expanduser().read_text(encoding="utf-8"))
    except OSError:
        return []
    groups = cluster["available_node_types"].values()
    return [group.get("resources", {}) for group in groups for _ in range(group.get("max_workers", 0))]


def _check_output(config: Config) -> None:
    """Before any work: the output can be written, every machine can reach it, and it stays when the job has ended."""
    output = Location.of(config.output)
    remedy = "use an address that all machines reach, such as s3://bucket/run or a mounted folder"
    if _submitted() and output.is_local and output.path.startswith(os.path.join(os.getcwd(), "")):
        raise ConfigError(f"output={config.output} is in the submitted copy of the code, which Ray deletes; {remedy}")
    if output.is_local and _works_elsewhere() and not _on_network(output.path):
        raise ConfigError(f"output={config.output} is a folder of the head, where no tasks run; {remedy}")
    with _probe(config) as probe:
        for machine, problem in _ask_others(str(probe), write=True):
            raise ConfigError(f"output={config.output} is not shared with {machine} ({problem}); {remedy}")


@contextlib.contextmanager
def _probe(config: Config) -> Iterator[Location]:
    """A file in the output, for a moment. Raises `ConfigError` when none can be written."""
    probe = Location.of(config.output) / f".probe-{secrets.token_hex(4)}"
    try:
        probe.write_text("")
    except OSError as error:
        why = error.strerror or " ".join(str(error).split())
        raise ConfigError(f"output={config.output} cannot be written ({why}); choose another") from None
    try:
        yield probe
    finally:
        probe.delete()


def _ask_others(address: str, write: bool) -> Iterator[tuple[str, str]]:
    """(machine, problem) for each of the other machines that cannot use `address`."""
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    asked = {_look.options(**_on(node)).remote(address, write): node for node in others}
    # one that is lost or slow is no verdict on the address: the job itself survives that
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_PROBE_SECONDS) if asked else ([], [])
    for answer in answered:
        with contextlib.suppress(ray.exceptions.RayError):
            if problem := ray.get(answer):
                yield asked[answer]["NodeManagerHostname"], problem


@ray.remote(num_cpus=0, max_retries=0)
def _look(address: str, write: bool) -> str:
    """What keeps this machine from using the file at `address`, or "" when nothing does."""
    place = Location.of(address)
    try:
        if not place.exists():
            return "it does not see what this machine sees there"
        if write:
            place.write_text(socket.gethostname())
    except OSError as error:
        return error.strerror or " ".join(str(error).split())
    return ""


def _on(node: dict[str, Any]) -> dict[str, Any]:
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)}


def _works_elsewhere() -> bool:
    """Whether all machines that will work are still to be started, so that none can be asked."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    return len(alive) == 1 and not alive[0]["Resources"].get("CPU")


def _on_network(path: str) -> bool:
    """Whether `path` lies on a file system that other machines can mount as well."""
    kinds = {}
    with contextlib.suppress(OSError), open(_MOUNTS, encoding="utf-8") as mounts:
        kinds = {fields[1]: fields[2] for fields in map(str.split, mounts)}
    while path not in kinds and path != "/":
        path = os.path.dirname(path)
    return kinds.get(path, "").startswith(_NETWORK_FILE_SYSTEMS)
