"""Distribute the clips of a training with several workers: each machine keeps all clips if they fit, else a share."""

from __future__ import annotations

import json
from dataclasses import replace

from genre import devices
from genre.errors import ArtifactError, GenreError, MachineError, StorageError
from genre.features.cache import CachedClips, ClipCache
from genre.features.cache.cache_folder import Report
from genre.features.splitting.sampling import Share
from genre.features.statistics import LevelStatistics
from genre.features.windows import Worker
from genre.training import workers
from genre.wording import plural


def open_data(
    cache: ClipCache, worker: Worker, machine: str, report: Report = lambda message: None, use_gpu: bool = False
) -> tuple[CachedClips, Worker]:
    """Open this machine's copy of the clips, and return it and `worker`.

    All workers of a training have to call this, each with the name of its `machine`. If the clips fit on every machine,
    each keeps all of them, else the clips of its workers (`Share`). A share depends on the number of workers and where
    they run, and is copied again when these change. The returned worker then has `peers`: its place among those of its
    machine.

    Raises `MachineError` in all workers when one cannot open its copy, or lacks the GPU that `use_gpu` requires, and
    `StorageError` when one cannot reach the features.
    """
    fits, failure = _fits(cache, use_gpu)
    states = [json.loads(text) for text in workers.gather(json.dumps([machine, fits, failure]))]
    _raise_first([failure for _, _, failure in states])
    names = [name for name, _, _ in states]
    count = len(set(names))
    if count == 1 or all(fits for _, fits, _ in states):
        return _open(cache, report), worker
    if not worker.rank:
        report(f"not every machine can keep all clips: each of {plural(count, 'machine')} keeps a share")
    ranks = tuple(rank for rank, name in enumerate(names) if name == machine)
    cached = _open(cache, report, Share(ranks, worker.world))
    sums = workers.gather(json.dumps(cached.statistics.to_json()))
    of_machines = [json.loads(sums[names.index(name)]) for name in dict.fromkeys(names)]
    statistics = LevelStatistics.merged(cache.features.shape, of_machines)
    peers = Worker(ranks.index(worker.rank), len(ranks))
    return replace(cached, statistics=statistics), replace(worker, peers=peers)


def _fits(cache: ClipCache, use_gpu: bool) -> tuple[bool, str]:
    """Return whether this machine can keep all clips, and why it cannot train ("" if it can)."""
    try:
        if use_gpu:
            devices.check_gpu()
        cache.check_size()
    except ArtifactError:
        return False, ""
    except GenreError as error:
        return False, _failure(error)
    return True, ""


def _open(cache: ClipCache, report: Report, share: Share | None = None) -> CachedClips:
    """Return the copy of this worker, of all clips or a share. Raises the same error in all workers if one fails."""
    cached, failure = None, ""
    try:
        cached = (cache.of_share(share) if share else cache).open(report)
    except GenreError as error:
        failure = _failure(error)
    _raise_first(workers.gather(failure))
    assert cached is not None
    return cached


def _failure(error: GenreError) -> str:
    """Return what the other workers get of an error."""
    return json.dumps([isinstance(error, StorageError), str(error)])


def _raise_first(failures: list[str]) -> None:
    for failure in filter(None, failures):
        is_of_storage, message = json.loads(failure)
        raise StorageError(message) if is_of_storage else MachineError(message)
