"""Connect a job to Ray: to the cluster of RAY_ADDRESS, or to a local Ray that is stopped at the end."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from types import ModuleType

import ray

import genre
import ray_jobs
from genre.errors import ConfigError
from genre.settings import ClusterSettings
from ray_jobs.engine import head, reach
from ray_jobs.engine.capacity import Capacity
from ray_jobs.engine.interrupts import interruptible


@contextlib.contextmanager
def connected(settings: ClusterSettings, output: str) -> Iterator[Capacity]:
    """Within the block, be connected to Ray; all machines can write `output`. Yield the limits of the job.

    Blocks can be nested, as in a job that runs others; the outermost one connects. Raises `ConfigError` when no cluster
    answers, or a machine cannot write the output.
    """
    if ray.is_initialized():
        yield Capacity.of(settings)
        return
    with contextlib.ExitStack() as stack:
        if os.environ.get("RAY_ADDRESS"):
            with _no_stderr():
                _join()
            stack.enter_context(head.watched(ray.get_runtime_context().gcs_address))
        else:
            with _no_stderr():
                _start(settings)
        stack.callback(ray.shutdown)
        stack.enter_context(interruptible())
        for name in ("ray.train", "ray.tune"):
            logging.getLogger(name).setLevel(logging.ERROR)
        reach.check_output(output)
        yield Capacity.of(settings)


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Discard standard error, on which Ray's core reports that its logs are switched off. Errors are still raised."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def data() -> ModuleType:
    """Return Ray Data, configured to print nothing.

    To be called when Ray is connected: the import of Ray Data and pandas takes longer than that of Ray, whose processes
    start at the same time on the other CPUs.
    """
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # the import sets another level
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    module: ModuleType = ray.data
    return module


def _join() -> None:
    address = os.environ["RAY_ADDRESS"]
    if re.fullmatch(r"[^/]+:\d+", address) and not head.is_listening(address):
        raise ConfigError(
            f"RAY_ADDRESS={address}: no cluster answers there; start one, or unset it to use this machine"
        )
    # `ray job submit --working-dir` sends the code to the workers; a driver that was started by hand has to send it
    modules = None if reach.is_submitted() else {"py_modules": [genre, ray_jobs]}
    ray.init(log_to_driver=False, logging_level="error", runtime_env=modules)


def _start(settings: ClusterSettings) -> None:
    ray.init(
        address="local",
        num_cpus=settings.cpus or None,
        object_store_memory=settings.object_store_mb * 2**20 or None,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )
