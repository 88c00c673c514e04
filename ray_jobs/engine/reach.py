"""Check that all machines of a cluster can access the output and the music of a job, before the work starts."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from genre.audio import members
from genre.corpora import MISSING
from genre.errors import ConfigError, one_line
from genre.storage import Location
from ray_jobs.engine import capacity, machines

_NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "fuse", "lustre", "ceph", "gpfs", "beegfs", "gluster", "9p", "virtiofs")
_MOUNTS = "/proc/self/mounts"
_ANSWER_SECONDS = 120
_TRIED_FILES = 16


def is_submitted() -> bool:
    """Return whether this process is the driver of a `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def check_readable(address: str, setting: str) -> None:
    """Raise `ConfigError` unless every machine can read `address`, which is part of the value of `setting`."""
    for machine, problem in _ask_others(address, write=False):
        raise ConfigError(
            f"{setting}: {machine} cannot read {address} ({problem}); use an address that all machines reach, "
            "such as s3://bucket/music or a mounted folder"
        )


def check_seen(files: pa.Table, setting: str) -> None:
    """Raise `ConfigError` unless every machine can read one of `files` (path, size), the first that this one finds.

    A table may state the sizes of files that were deleted since, so a few of them are tried.
    """
    if not machines.others():
        return
    listed = files.filter(pc.not_equal(files["size"], MISSING)).slice(0, _TRIED_FILES)
    for path in listed["path"].to_pylist():
        address = members.file_of(path)
        with contextlib.suppress(OSError):  # of the storage: the job itself tries again and reports it
            if Location.of(address).exists():
                check_readable(address, setting)
                return


def check_writable(output: str) -> None:
    """Raise `ConfigError` unless this machine can write the output. For jobs that work long before Ray starts."""
    with _probe(output):
        pass


def check_output(output: str) -> None:
    """Raise `ConfigError` unless all machines can write the output, and Ray does not delete it after the job.

    Ray must be connected.
    """
    location = Location.of(output)
    remedy = "use an address that all machines reach, such as s3://bucket/run or a mounted folder"
    if is_submitted() and location.is_local and location.path.startswith(os.path.join(os.getcwd(), "")):
        raise ConfigError(f"output={output} is in the submitted copy of the code, which Ray deletes; {remedy}")
    if location.is_local and capacity.has_no_worker_yet() and not _on_network(location.path):
        raise ConfigError(f"output={output} is a folder of the head, where no tasks run; {remedy}")
    with _probe(output) as probe:
        for machine, problem in _ask_others(str(probe), write=True):
            raise ConfigError(f"output={output} is not shared with {machine} ({problem}); {remedy}")


@contextlib.contextmanager
def _probe(output: str) -> Iterator[Location]:
    """Write a file into the output and delete it on leaving. Raises `ConfigError` when it cannot be written."""
    probe = Location.of(output) / f".probe-{secrets.token_hex(4)}"
    try:
        probe.write_text("")
    except OSError as error:
        raise ConfigError(
            f"output={output} cannot be written ({one_line(error)}); choose another, or check your access"
        ) from None
    try:
        yield probe
    finally:
        probe.delete()


def _ask_others(address: str, write: bool) -> Iterator[tuple[str, str]]:
    """Yield (machine, problem) for each other machine that cannot use `address`."""
    asked = {}
    for node, name in machines.others():
        on = NodeAffinitySchedulingStrategy(node, soft=False)
        asked[_try.options(scheduling_strategy=on).remote(address, write)] = name
    # a machine that is lost or slow is ignored: this is no fault of the address, and the job tolerates it
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_SECONDS) if asked else ([], [])
    for answer in answered:
        with contextlib.suppress(ray.exceptions.RayError):
            if problem := ray.get(answer):
                yield asked[answer], problem


@ray.remote(num_cpus=0, max_retries=0)
def _try(address: str, write: bool) -> str:
    """Return why this machine cannot use the file at `address`; "" when it can."""
    location = Location.of(address)
    try:
        if not location.exists():
            return "it finds nothing at this address"
        if write:
            location.write_text(socket.gethostname())
    except OSError as error:
        return one_line(error)
    return ""


def _on_network(path: str) -> bool:
    """Return whether `path` is on a file system that other machines can mount as well."""
    kinds = {}
    with contextlib.suppress(OSError), open(_MOUNTS, encoding="utf-8") as mounts:
        kinds = {fields[1]: fields[2] for fields in map(str.split, mounts)}
    while path not in kinds and path != "/":
        path = os.path.dirname(path)
    return kinds.get(path, "").startswith(_NETWORK_FILE_SYSTEMS)
