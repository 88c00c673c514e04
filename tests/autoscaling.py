"""A Ray cluster whose autoscaler starts and ends real nodes, all of them processes of this machine.

The head runs no tasks, and no other node runs at first. Node types may declare GPUs that do not exist. The provider is
Ray's own `fake_multinode`, to which `SlowNodes` adds the time that a machine takes to boot.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.autoscaler._private.fake_multi_node import node_provider
from ray.util import get_node_ip_address

_HEAD = "ray.head.default"  # the name of the head's type that Ray's provider knows
_STORE = 100 * 2**20  # bytes of shared memory of a node
_MARK = "GENRE_TEST_CLUSTER"  # an environment variable that all processes of a cluster inherit
_PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Autoscaled:
    """A running cluster. `environment` is that of a job that joins it."""

    address: str
    environment: dict[str, str]
    folder: Path
    mark: str  # in the environment of each of its processes

    def processes(self) -> list[int]:
        """Return the ids of the processes of all machines, without those of tasks and actors."""
        return _marked(self.mark)

    def workers(self) -> list[str]:
        """Return the node types of the machines that are up, the head excluded, sorted."""
        status = self._status()
        names = (node.ray_node_type_name for node in status.active_nodes + status.idle_nodes)
        return sorted(name for name in names if name != _HEAD)

    def wait(self, condition: Callable[[Autoscaled], bool], seconds: float = _PATIENCE_SECONDS) -> float:
        """Wait until the condition holds and return the seconds it took. Raises `TimeoutError`, with the log."""
        began = time.monotonic()
        while not condition(self):
            if time.monotonic() - began > seconds:
                raise TimeoutError(f"not within {seconds:g} s; machines: {self.workers()}\n{self.log()[-3000:]}")
            time.sleep(0.2)
        return time.monotonic() - began

    def log(self) -> str:
        """Return the log of the autoscaler."""
        return (self.folder / "session_latest/logs/monitor.log").read_text()

    def _status(self) -> Any:
        from ray.autoscaler.v2.sdk import get_cluster_status

        return get_cluster_status(self.address)


@contextlib.contextmanager
def autoscaled(
    types: Mapping[str, dict[str, Any]],
    boot_seconds: float = 0.0,
    idle_minutes: float = 0.1,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Autoscaled]:
    """Start a cluster with no machine but its head; end all its processes on leaving.

    `types` are the node types that the autoscaler may start, such as `{"cpu": {"resources": {"CPU": 2},
    "max_workers": 4}}`; with `"node_config": {"refused": REASON}` it fails to start any. A machine joins
    `boot_seconds` after it was asked for. One that is idle for `idle_minutes` is ended. `variables` are added to the
    environment of all nodes.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets in it need a short path
    mark = secrets.token_hex(16)
    address = f"{get_node_ip_address()}:{_free_port()}"
    token = {name: os.environ[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    (folder / "cluster.yaml").write_text(yaml.safe_dump(_cluster_file(types, address, boot_seconds, idle_minutes)))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = inherited | token | dict(variables or {})
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        with (folder / "head.log").open("w") as log:
            head = subprocess.Popen(
                _head_command(folder, address), env=environment | _head_variables(mark), stdout=log, stderr=log
            )
        stack.callback(head.wait)
        stack.callback(_end, mark)
        _wait_for_head(head, address, folder)
        yield Autoscaled(address, environment | {"RAY_ADDRESS": address}, folder, mark)


class SlowNodes(node_provider.FakeMultiNodeProvider):  # type: ignore[misc]
    """Ray's provider of nodes that are processes of this machine, which join some time after they were asked for."""

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        _LateNode.boot_seconds = provider_config["boot_seconds"]
        ray._private.node.Node = _LateNode  # that of this process, the autoscaler

    def create_node_with_resources_and_labels(self, node_config: dict[str, Any], *arguments: Any) -> None:
        """Start a machine. Raises an error for a type that the cloud refuses."""
        if reason := node_config.get("refused"):
            raise RuntimeError(reason)
        super().create_node_with_resources_and_labels(node_config, *arguments)

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        """Return the machines that are up or boot, as a cloud does.

        Ray's provider also returns those that were killed. The autoscaler waits an hour for one that has not joined.
        """
        with self.lock:
            for name in [name for name, node in self._nodes.items() if "node" in node and node["node"].is_lost()]:
                self.terminate_node(name)
            nodes: list[str] = super().non_terminated_nodes(tag_filters)
            return nodes


class _LateNode:
    """Stands for a `ray._private.node.Node` until it starts."""

    boot_seconds = 0.0
    _node = ray._private.node.Node
    _starting = threading.Lock()  # two that start at a time choose the same ports, and one of them does not come up

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._started: Any = None
        self._failed = False
        self._lock = threading.Lock()
        self._timer = threading.Timer(self.boot_seconds, self._start, arguments, settings)
        self._timer.daemon = True
        self._timer.start()

    def _start(self, *arguments: Any, **settings: Any) -> None:
        with self._lock, self._starting:
            try:
                self._started = self._node(*arguments, **settings)
            except Exception:
                self._failed = True
                raise

    def is_lost(self) -> bool:
        """Return whether the machine did not come up, or its raylet has ended."""
        if not self._started:
            return self._failed
        (raylet,) = self._started.all_processes["raylet"]
        return bool(raylet.process.poll() is not None)

    def kill_all_processes(self, **how: Any) -> None:
        self._timer.cancel()
        with self._lock:
            if self._started:
                self._started.kill_all_processes(**how)


def _cluster_file(
    types: Mapping[str, dict[str, Any]], address: str, boot_seconds: float, idle_minutes: float
) -> dict[str, Any]:
    workers = {
        name: {"node_config": {}, "min_workers": 0}
        | kind
        | {"resources": {"object_store_memory": _STORE} | kind["resources"]}
        for name, kind in types.items()
    }
    return {
        "cluster_name": "test",
        "max_workers": sum(kind["max_workers"] for kind in types.values()),
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": idle_minutes,
        "provider": {
            "type": "external",
            "module": f"{__name__}.{SlowNodes.__name__}",
            "gcs_address": address,
            "head_node_id": node_provider.FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
            "boot_seconds": boot_seconds,
        },
        "available_node_types": {_HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}} | workers,
        "head_node_type": _HEAD,
        "docker": {},
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }


def _head_command(folder: Path, address: str) -> list[str]:
    host, _, port = address.rpartition(":")
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
        *("--node-ip-address", host, "--port", port, "--temp-dir", str(folder), "--include-dashboard=false"),
        *("--autoscaling-config", str(folder / "cluster.yaml"), "--num-cpus=0", "--num-gpus=0"),
        *("--object-store-memory", str(_STORE), "--ray-client-server-port", str(_free_port())),
        *("--dashboard-agent-listen-port=0", "--min-worker-port=0", "--max-worker-port=0"),
    ]


def _head_variables(mark: str) -> dict[str, str]:
    """Return the environment that the head's processes need in addition, as `ray.cluster_utils` sets it."""
    return {
        _MARK: mark,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": node_provider.FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": node_provider.FAKE_HEAD_NODE_ID,
        "RAY_NODE_TYPE_NAME": _HEAD,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }


def _wait_for_head(head: subprocess.Popen[bytes], address: str, folder: Path) -> None:
    """Wait until the autoscaler knows the head."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while "Ray runtime started" not in (folder / "head.log").read_text():
        if head.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the head at {address} did not start:\n{(folder / 'head.log').read_text()}")
        time.sleep(0.1)


def _end(mark: str) -> None:
    """End every process that has inherited the mark, by its id, until there is none."""
    while marked := _marked(mark):
        for process in marked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.1)


def _marked(mark: str) -> list[int]:
    entry = f"{_MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if entry in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
