"""The machines that a cluster has, and those that its autoscaler can start.

Ray does not say which machines a cluster can start. So a job requests what it needs, and reads in the state of the
autoscaler whether the request is infeasible. Ray has no public API for this; only this module uses the internal one,
and tests/ray/test_ray_names.py fails when it changes.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from genre import devices
from genre.audio.isolation import portable
from genre.errors import ConfigError, GenreError
from ray_jobs.engine import cli

Bundle = Mapping[str, float]  # what one process needs on a machine, such as {"CPU": 1, "GPU": 1}
_POLL_SECONDS = 0.5
_SAID_SECONDS = 30.0  # a machine takes one to five minutes to boot
_SILENCE_SECONDS = 30.0  # without a report, the cluster has no autoscaler; one reports every 5 s
_NO_AUTOSCALER_SECONDS = 2.0  # the same, where workers are up that no autoscaler started


def running() -> list[dict[str, float]]:
    """Return the resources of each machine that is up."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def others() -> list[tuple[str, str]]:
    """Return the id and the host name of each other machine that is up. Ray must be connected."""
    here = ray.get_runtime_context().get_node_id()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    return [(node["NodeID"], node["NodeManagerHostname"]) for node in nodes]


def slots(needed: Bundle) -> int:
    """Return how many processes that each need `needed` fit on the machines that are up."""
    return sum(
        int(min(machine.get(kind, 0) / amount for kind, amount in needed.items()) + 1e-9) for machine in running()
    )


def can_have(needed: Bundle) -> bool:
    """Return whether a machine with `needed` is up or can be started; the request may start it."""
    if slots(needed):
        return True
    waiting = Waiting([needed])
    with _requested([needed]) as request:
        while (refused := request.is_refused()) is None:
            waiting.say()
            time.sleep(_POLL_SECONDS)
    return not refused


class Waiting:
    """Says now and then that a job waits for machines, and which the cluster could not launch."""

    def __init__(self, bundles: Sequence[Bundle]) -> None:
        self._bundles, self._next = bundles, time.monotonic() + _SAID_SECONDS

    def say(self) -> None:
        """Print what the job waits for, unless it was said a moment ago or such machines are up."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _SAID_SECONDS
        if slots(self._bundles[0]) >= len(self._bundles):
            return
        failures = []
        with contextlib.suppress(ray.exceptions.RayError, RuntimeError):  # without an answer the job still waits
            failures = launch_failures(_status())
        text = f"waiting for a machine with room for {_described(self._bundles)}"
        cli.say("; ".join([text, *failures]))


def launch_failures(status: GetClusterStatusReply) -> list[str]:
    """Return a line for each type of machine that the cluster could not launch, as its autoscaler reports."""
    types = {request.ray_node_type_name for request in status.autoscaling_state.failed_instance_requests}
    # Ray 2.60 leaves the field `reason` empty
    return [f"{kind} could not be launched, see monitor.log in Ray's logs on the head" for kind in sorted(types)]


def start(bundles: Sequence[Bundle], setting: str) -> None:
    """Start the machines that are missing for all `bundles`, which have the same size, and wait until they are up.

    Raises `ConfigError`, which begins with `setting`, when the cluster cannot start them, and `DeviceError` when
    torch does not see the GPU of one.
    """
    waiting = Waiting(bundles)
    with _requested(bundles) as request:
        while not request.group.wait(_POLL_SECONDS):
            waiting.say()
            if request.is_refused():
                raise ConfigError(
                    f"{setting}: the cluster has no machines for {_described(bundles)} and cannot start them; it has "
                    f"{_machines()} now; ask for less, or add such a type of machine to the cluster"
                )
        checks = [
            _gpu_error.options(
                num_gpus=bundle["GPU"], scheduling_strategy=PlacementGroupSchedulingStrategy(request.group, number)
            ).remote()
            for number, bundle in enumerate(bundles)
            if bundle.get("GPU")
        ]
        for error in ray.get(checks):
            if error is not None:
                raise error


@dataclass
class _Request:
    """A placement group that is requested, and what the autoscaler reports about it."""

    group: PlacementGroup
    bundles: Sequence[Bundle]
    version: int = 0  # of the first state of the cluster that contains the request; 0: not yet
    began: float = field(default_factory=time.monotonic)

    def is_refused(self) -> bool | None:
        """Return whether the cluster cannot have machines for the request; None while this is not known."""
        if slots(self.bundles[0]) >= len(self.bundles):
            return False  # the machines are up and busy with another job
        status = _status()
        state, report = status.cluster_resource_state, status.autoscaling_state
        if not self.version and self._is_in(state.pending_gang_resource_requests):
            self.version = state.cluster_resource_state_version
        seen = report.last_seen_cluster_resource_state_version
        if not self.version or seen < self.version:
            # workers that came up without any report were not started by an autoscaler that reports
            has_none = not seen and any(machine.get("CPU") for machine in running())
            silence = _NO_AUTOSCALER_SECONDS if has_none else _SILENCE_SECONDS
            return True if time.monotonic() - self.began > silence else None
        if not self._is_in(report.infeasible_gang_resource_requests):
            return False
        # a machine that is starting may be large enough
        return None if report.pending_instances or report.pending_instance_requests else True

    def _is_in(self, requests: Sequence[object]) -> bool:
        return any(self.group.id.hex() in getattr(request, "details", "") for request in requests)


def _status() -> GetClusterStatusReply:
    reply = GetClusterStatusReply()
    reply.ParseFromString(GcsClient(address=ray.get_runtime_context().gcs_address).get_cluster_status(timeout_s=10))
    return reply


@contextlib.contextmanager
def _requested(bundles: Sequence[Bundle]) -> Iterator[_Request]:
    """Within the block, request machines for all `bundles`, which have the same size."""
    group = placement_group([dict(bundle) for bundle in bundles])
    try:
        yield _Request(group, bundles)
    finally:
        remove_placement_group(group)


@ray.remote(num_cpus=0)
def _gpu_error() -> Exception | None:
    """Return why torch does not use the GPU of this machine; None where it does."""
    try:
        devices.check_gpu()
    except GenreError as error:
        return portable(error)
    return None


def _described(bundles: Sequence[Bundle]) -> str:
    """Return such as "2 x (1 CPU and 1 GPU)"."""
    needed = " and ".join(f"{amount:g} {kind}" for kind, amount in bundles[0].items())
    return f"{len(bundles)} x ({needed})"


def _machines() -> str:
    """Describe the machines that are up and can run tasks, such as "2 machines with 16 CPU and 1 GPU"."""
    kinds = Counter(
        " and ".join(f"{machine[kind]:g} {kind}" for kind in ("CPU", "GPU") if machine.get(kind))
        for machine in running()
    )
    listed = [f"{count} x ({kind})" for kind, count in kinds.items() if kind]
    return ", ".join(listed) or "no machine but its head"
