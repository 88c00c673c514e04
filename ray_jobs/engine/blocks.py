"""Work on a long list of tracks, cut into blocks, on all workers of a Ray that starts with the first block."""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import ray

from genre.audio import members
from genre.audio.isolation import portable
from genre.settings import Config
from genre.storage import Location
from ray_jobs.engine import capacity, cluster, reach

Work = Callable[[pa.Table], pa.Table]
_MIN_BLOCKS = 16  # of a corpus with as many tracks, so that 16 CPUs share a small one
_MAX_BLOCKS_PER_TASK = 16  # between two tasks a CPU is idle for a tenth of a second, the polling interval of Ray Data
_THREAD_SECONDS = 10


class Workers:
    """Runs a function on blocks of tracks. Connects to Ray with the first call, and disconnects on leaving."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stack = contextlib.ExitStack()
        self._connected = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, at)

    def map(self, work: Work, tracks: pa.Table, limit: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the result of `work` for each block of at most `limit` tracks, in any order; only `columns` if given.

        A block whose worker dies is repeated, so `work` should reuse what it has finished. Raises the errors of `work`.
        """
        if not self._connected:
            self._connected = True
            self._stack.enter_context(cluster.connected(self._config))
            reach.check_readable(members.file_of(tracks["path"][0].as_py()), "corpus.root")
        size = block_size(len(tracks), limit)
        firsts = first_blocks(-(-len(tracks) // size), capacity.cpus())
        # The table is once in the shared memory of each node, and blocks are views of it. The reference is in a list,
        # because Ray replaces a direct argument by the table itself.
        tasks = len(firsts) - 1
        data = cluster.data()
        results = data.range(tasks, override_num_blocks=tasks).map_batches(
            _do_blocks,
            batch_size=None,
            batch_format="pyarrow",
            fn_args=([ray.put(tracks)], firsts, size, work, columns),
            num_cpus=_cpus_of_a_block(tracks),
        )
        results.context.target_max_block_size = 1  # each result is sent at once, not at the end of the task
        yield from answers(results)


@contextlib.contextmanager
def as_they_come(dataset: ray.data.Dataset) -> Iterator[Iterator[pa.Table]]:
    """Iterate over the blocks of `dataset` in any order. On leaving, its execution and its threads have ended.

    A thread of Ray Data that calls Ray after `ray.shutdown` ends the process without a message, or starts another Ray.
    """
    batches = iter(dataset.iter_batches(prefetch_batches=0, batch_size=None, batch_format="pyarrow"))
    try:
        yield batches
    finally:
        batches.close()
        for thread in threading.enumerate():
            if thread.name == "iter_threaded":
                thread.join(_THREAD_SECONDS)


def answer_row(answer: Any) -> pa.Table:
    """Return a row with an object, such as an error, which Ray Data would wrap in its own if it were raised."""
    return pa.table({"answer": pa.array([pickle.dumps(answer)], pa.binary())})


def answers(dataset: ray.data.Dataset) -> Iterator[Any]:
    """Yield the objects in rows of `answer_row` as they come. Raises those that are errors."""
    with as_they_come(dataset) as tables:
        for answer in (answer for table in tables for answer in table["answer"]):
            result = pickle.loads(answer.as_py())  # noqa: S301 - from our own workers
            if isinstance(result, Exception):
                raise result
            yield result


def block_size(tracks: int, limit: int) -> int:
    """Return the number of tracks in a block: at most `limit`, fewer in a small corpus.

    It depends only on the number of tracks, so that the blocks of a corpus are the same on any cluster.
    """
    return min(limit, max(1, -(-tracks // _MIN_BLOCKS)))


def first_blocks(blocks: int, cpus: int) -> list[int]:
    """Return the first block of each task, and at the end the number of blocks.

    Tasks become smaller towards the end, so that all CPUs finish at about the same time: Polychronopoulos and Kuck,
    "Guided self-scheduling", IEEE Transactions on Computers C-36(12), 1987.
    """
    firsts = [0]
    while (left := blocks - firsts[-1]) > 0:
        firsts.append(firsts[-1] + min(_MAX_BLOCKS_PER_TASK, -(-left // (2 * cpus))))
    return firsts


def _do_blocks(
    numbers: pa.Table,
    listed: list[ray.ObjectRef],
    firsts: list[int],
    size: int,
    work: Work,
    columns: Sequence[str] | None,
) -> Iterator[pa.Table]:
    """Yield a row for each block of the task: the pickled result, or the error, which Ray would wrap in its own."""
    (task,) = numbers["id"].to_pylist()
    tracks = ray.get(listed[0])
    for block in range(firsts[task], firsts[task + 1]):
        try:
            result = work(tracks.slice(block * size, size))
            answer = answer_row(result.select(columns) if columns else result)
        except Exception as error:
            yield answer_row(portable(error))
            return
        yield answer


def _cpus_of_a_block(tracks: pa.Table) -> float:
    """Return 1 for local files and 0.5 for others, so that a CPU decodes one block while another waits for bytes."""
    return 1.0 if Location.of(members.file_of(tracks["path"][0].as_py())).is_local else 0.5
