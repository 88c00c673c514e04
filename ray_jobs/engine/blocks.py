"""Run a function on many tracks, divided into blocks, on all workers of a cluster."""

from __future__ import annotations

import contextlib
import itertools
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray

from genre.audio import members
from genre.audio.isolation import portable
from genre.errors import ConfigError
from genre.settings import ClusterSettings
from genre.storage import Location
from ray_jobs.engine import cluster, machines, reach

Work = Callable[[pa.Table], pa.Table]
_MIN_BLOCKS = 16  # number of blocks even of a small corpus, so that 16 CPUs can work on it
MOST_CPUS = 1000  # for which blocks are in Ray's queue, and so those that a cluster without limits may start
_THREAD_SECONDS = 10
WAIT_SECONDS = 5.0  # for a block, before a job may say what it waits for


class Workers(contextlib.ExitStack):
    """Runs functions on blocks of tracks. Connects to Ray with the first `map`, and disconnects on leaving."""

    def __init__(self, settings: ClusterSettings, output: str) -> None:
        super().__init__()
        self._settings, self._output = settings, output
        self._connected = False

    def map(self, work: Work, tracks: pa.Table, limit: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the result of `work` for each block of at most `limit` tracks, in any order; only `columns` if given.

        If a worker dies, its block is repeated, so `work` should reuse what it has finished. Raises the errors of
        `work`, and `ConfigError` when a machine cannot read the tracks.
        """
        if not self._connected:
            self._connected = True
            self.enter_context(cluster.connected(self._settings, self._output))
            reach.check_seen(tracks, "corpus.root")
        size = block_size(len(tracks), limit)
        share = cpus_of_a_block(tracks)
        task = ray.remote(num_cpus=share, max_retries=-1)(do_block)
        # The table is stored once in the shared memory of each node, and blocks are views of it. The reference is in a
        # list, because Ray replaces a reference that is an argument itself by the table.
        arguments = ray.put(([ray.put(tracks)], size, work, columns))
        yield from completed(
            lambda block: task.remote(block, arguments),
            blocks=-(-len(tracks) // size),
            most=int((self._settings.max_cpus or MOST_CPUS) / share),
            needed={"CPU": share},
        )


def completed(
    start: Callable[[int], ray.ObjectRef[Any]], blocks: int, most: int, needed: machines.Bundle
) -> Iterator[Any]:
    """Yield the results of the tasks that `start` queues for each block, in any order; at most `most` are queued.

    They are queued before machines are up, so that Ray's autoscaler starts all machines at once: docs/DECISIONS.md says
    why nothing is reserved. Raises results that are errors, and `ConfigError` if no machine can have what is `needed`.
    """
    numbers = iter(range(blocks))
    queued = [start(number) for number in itertools.islice(numbers, most)]
    try:
        require(needed)
        waiting = machines.Waiting([needed])
        while queued:
            done, queued = ray.wait(queued, timeout=WAIT_SECONDS)
            waiting.say()
            queued += [start(number) for number in itertools.islice(numbers, len(done))]
            for result in ray.get(done):
                yield checked(result)
    finally:
        for task in queued:
            ray.cancel(task)


def require(needed: machines.Bundle) -> None:
    """Raise `ConfigError` if the cluster neither has a machine with what is `needed` nor can start one."""
    if not machines.can_have(needed):
        asked = " and ".join(f"{amount:g} {kind}" for kind, amount in needed.items())
        raise ConfigError(
            f"the cluster has no machine with {asked} and cannot start one; add such a type of machine to the cluster"
        )


def checked(result: Any) -> Any:
    """Return the result of a task. Raises it when it is an error."""
    if isinstance(result, Exception):
        raise result
    return result


def object_row(value: Any) -> pa.Table:
    """Return a row that holds an object, such as an error: if it were raised, Ray Data would wrap it in its own."""
    return pa.table({"object": pa.array([pickle.dumps(value)], pa.binary())})


def objects_in(rows: pa.Table) -> Iterator[Any]:
    """Yield the objects in rows of `object_row`."""
    for value in rows["object"]:
        yield pickle.loads(value.as_py())  # noqa: S301 - from our own workers and driver


def answers(dataset: ray.data.Dataset) -> Iterator[Any]:
    """Yield the objects in the rows of `object_row` in any order. Raises an object that is an error.

    At the end the execution and its threads are stopped: a thread of Ray Data that calls Ray after `ray.shutdown` ends
    the process without a message, or starts Ray again.
    """
    batches = iter(dataset.iter_batches(prefetch_batches=0, batch_size=None, batch_format="pyarrow"))
    try:
        for table in batches:
            yield from map(checked, objects_in(table))
    finally:
        batches.close()
        for thread in threading.enumerate():
            if thread.name == "iter_threaded":
                thread.join(_THREAD_SECONDS)


def block_size(tracks: int, limit: int) -> int:
    """Return the number of tracks in a block: at most `limit`, fewer in a small corpus.

    It does not depend on the cluster, so that a corpus is divided into the same blocks on any of them.
    """
    return min(limit, max(1, -(-tracks // _MIN_BLOCKS)))


def cpus_of_a_block(tracks: pa.Table) -> float:
    """Return 1 for local files and 0.5 for remote ones: a CPU decodes one block while another waits for bytes."""
    return 1.0 if Location.of(members.file_of(tracks["path"][0].as_py())).is_local else 0.5


def do_block(
    block: int, arguments: tuple[list[ray.ObjectRef[pa.Table]], int, Work, Sequence[str] | None]
) -> pa.Table | Exception:
    """Return the result of the block with this number, or its error: if it were raised, Ray would wrap it."""
    listed, size, work, columns = arguments
    try:
        result = work(ray.get(listed[0]).slice(block * size, size))
        return result.select(columns) if columns else result
    except Exception as error:
        return portable(error)
