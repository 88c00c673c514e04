"""Tag a collection on Ray: decoded and named by the same processes, or decoded on CPUs and named on GPUs.

Decoding is most of the work. Without a GPU each process loads the models and does both, because two kinds of processes
on the same CPUs would only add the transfer between them. Where there are GPUs, every CPU of every machine decodes, and
actors on GPUs name the genres.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError

from genre import memory
from genre.audio.isolation import portable
from genre.errors import GenreError
from genre.model.saved_model import SavedEnsemble
from genre.settings import Config, DecodingSettings
from genre.tagging import tag_rows
from genre.tagging.audio_files import block_size
from genre.tagging.known_contents import KnownContents
from genre.tagging.tag_rows import DecodedFile
from genre.tagging.tagger import Tagger
from ray_jobs.engine import blocks, capacity, machines
from ray_jobs.engine.capacity import Capacity

_CPUS_PER_GPU = 64  # of which a GPU names the files at least as fast as they decode them
_MOST_LOST = 8  # actors, before the reason is rather in the models or the machine
_BLOCKS_PER_ACTOR = 2  # at a time: one is named, and the other is sent to the machine


@dataclass(frozen=True)
class TagWork:
    """The files to tag, divided into blocks, and how. The objects are once in the memory of each machine."""

    objects: list[ray.ObjectRef[Any]]  # in a list, because Ray replaces a direct argument by the object
    limits: DecodingSettings
    files: int
    size: int  # files in a block

    @classmethod
    def of(
        cls, config: Config, ensemble: SavedEnsemble, pending: pa.Table, known: KnownContents, workers: int
    ) -> TagWork:
        """Divide `pending` into blocks for `workers` processes."""
        size = block_size(len(pending), config.tag.batch_files, workers)
        objects = [ray.put(ensemble), ray.put(pending), ray.put(known)]
        return cls(objects, config.decoding, len(pending), size)

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return -(-self.files // self.size)

    def decode(self, block: int, decoder: Callable[[str], Any] | None = None) -> list[DecodedFile]:
        """Decode the files of a block, with the `decoder` of the models by default."""
        ensemble, pending, known = ray.get(self.objects)
        decoder = decoder or ensemble.decoder(self.limits)
        return tag_rows.decode_files(decoder, pending.slice(block * self.size, self.size), known)


def stream(config: Config, ensemble: SavedEnsemble, pending: pa.Table, known: KnownContents) -> Iterator[pa.Table]:
    """Yield rows of `tag_rows.tag_files` for the pending files in the order of completion, on the connected Ray.

    Raises `ConfigError` where the cluster has no machine for the work and cannot start one.
    """
    limits = Capacity.of(config.cluster)
    # loading the models takes a CPU of a cluster, which may have to be started, as long as a full block
    wanted = -(-len(pending) // config.tag.batch_files) if capacity.is_cluster() else len(pending)
    cpus = limits.workers(min(wanted, blocks.MOST_CPUS))
    if not ensemble.is_exported and limits.gives_gpu(config.device):
        needed = -(-cpus // _CPUS_PER_GPU)
        gpus = int(min(limits.gpus, max(machines.slots({"GPU": 1}), needed)))
        # without a limit nobody knows how many CPUs will come, and so how many GPUs will have work
        at_once = min(gpus, needed) if config.cluster.max_cpus else 1
        share = blocks.cpus_of_a_block(pending)
        workers = int(min(cpus, gpus * _CPUS_PER_GPU) / share)
        work = TagWork.of(config, ensemble, pending, known, workers)
        yield from on_both(work, min(gpus, work.blocks), workers, share, "cuda", min(at_once, work.blocks))
    else:
        work = TagWork.of(config, ensemble, pending, known, cpus)
        yield from _on_cpus(work, cpus if capacity.is_cluster() else work.blocks)


def _on_cpus(work: TagWork, most: int) -> Iterator[pa.Table]:
    """Decode and name the blocks in the same processes, with `most` blocks queued at a time."""
    task = ray.remote(num_cpus=1, max_retries=-1)(tag_block)
    yield from blocks.completed(lambda block: task.remote(work, block), work.blocks, most, {"CPU": 1})


def on_both(work: TagWork, gpus: int, workers: int, share: float, device: str, at_once: int = 1) -> Iterator[pa.Table]:
    """Decode the blocks in tasks with a `share` of a CPU each, and name the genres by actors on at most `gpus` GPUs.

    At most `workers` blocks are being decoded, and at most twice as many are being decoded or wait for an actor.
    `device` is what the actors compute on. The first `at_once` of them start together.
    """
    decode = ray.remote(num_cpus=share, max_retries=-1)(decode_block)
    # no CPU for the actor: a machine with one CPU and a GPU would decode nothing
    actor = ray.remote(num_cpus=0, num_gpus=1)(TaggingActor)
    taggers = Taggers(lambda: actor.remote(work, device), gpus, machines.slots({"GPU": 1}), at_once)
    left = iter(range(work.blocks))
    decoding: list[ray.ObjectRef[Any]] = []
    is_checked, waiting = False, machines.Waiting([{"GPU": 1}])
    try:
        while True:
            room = min(workers, 2 * workers - len(taggers.waiting)) - len(decoding)
            decoding += [decode.remote(work, block) for _, block in zip(range(room), left, strict=False)]
            taggers.assign()
            if not is_checked:  # when everything is queued, so that all machines start at once
                blocks.require({"CPU": share})
                blocks.require({"GPU": 1})
                is_checked = True
            if not (decoding or taggers.have_blocks):
                return
            done = _first_ended([*taggers.calls, *decoding], waiting)
            if done in decoding:
                decoding.remove(done)
                taggers.waiting.append(done)
                continue
            try:
                result = blocks.checked(ray.get(done))
            except (RayActorError, OutOfMemoryError, ObjectLostError):
                taggers.replace(done)
                continue
            if taggers.have_named(done):
                yield result
    finally:
        for task in decoding:
            ray.cancel(task)
        taggers.kill()


def _first_ended(calls: list[ray.ObjectRef[Any]], waiting: machines.Waiting) -> ray.ObjectRef[Any]:
    """Wait until one of `calls` has ended, and return it. No decoded audio comes to this machine."""
    while True:
        ended, _ = ray.wait(calls, timeout=blocks.WAIT_SECONDS, fetch_local=False)
        waiting.say()
        if ended:
            return ended[0]


class Taggers:
    """Actors that name decoded blocks: one, and another whenever blocks wait because all are busy, up to `most`.

    The first `at_once` start together, before a block is decoded, so that their machines boot at the same time. Beyond
    these and the GPUs that are `up` they start one at a time. A block goes only to an actor that is ready: Ray does not
    say that a cluster will never have the GPU of an actor. Ray does not restart one that dies, because the GPU may be
    given to another first.
    """

    def __init__(self, start: Callable[[], Any], most: int, up: int = 0, at_once: int = 1) -> None:
        self._start, self._most, self._up, self._at_once = start, most, up, at_once
        self._lost = 0  # actors that died since a block was named
        self._starting: dict[ray.ObjectRef[Any], Any] = {}  # actors by their calls of `load`
        self._ready: list[Any] = []
        self._naming: dict[ray.ObjectRef[Any], tuple[Any, ray.ObjectRef[Any]]] = {}  # actor and block of each call
        self.waiting: deque[ray.ObjectRef[Any]] = deque()  # decoded blocks

    @property
    def have_blocks(self) -> bool:
        """Whether blocks wait or are being named."""
        return bool(self.waiting or self._naming)

    @property
    def calls(self) -> list[ray.ObjectRef[Any]]:
        """The calls of the actors that have not ended, as far as is known."""
        return [*self._naming, *self._starting]

    def assign(self) -> None:
        """Give the blocks that wait to the actors that are ready, and start an actor where blocks are left."""
        while self.waiting and (free := self._least_busy()):
            block = self.waiting.popleft()
            self._naming[free.name.remote(block)] = (free, block)
        while len(self._starting) < self._wanted():
            actor = self._start()
            self._starting[actor.load.remote()] = actor

    def have_named(self, call: ray.ObjectRef[Any]) -> bool:
        """Return whether a call that has ended named a block. Otherwise its actor is ready now."""
        if call in self._starting:
            self._ready.append(self._starting.pop(call))
            return False
        del self._naming[call]
        self._lost = 0
        return True

    def replace(self, call: ray.ObjectRef[Any]) -> None:
        """Give up the actor of a call that failed because it died: its blocks wait for another.

        Raises `GenreError` when one after the other dies.
        """
        self._lost += 1
        if self._lost > _MOST_LOST:
            raise GenreError(
                f"{self._lost} processes that name the genres on a GPU died one after the other; see Ray's logs, or "
                "use device=cpu"
            )
        lost = self._starting.pop(call) if call in self._starting else self._naming[call][0]
        self.waiting.extend(block for actor, block in self._naming.values() if actor is lost)
        self._naming = {call: given for call, given in self._naming.items() if given[0] is not lost}
        self._ready = [actor for actor in self._ready if actor is not lost]
        ray.kill(lost)  # it may only have been out of reach

    def kill(self) -> None:
        """End all actors, and the request for one that has not started."""
        for actor in [*self._ready, *self._starting.values()]:
            ray.kill(actor)

    def _wanted(self) -> int:
        """Return how many actors may be starting now."""
        if not self.waiting and self._ready:
            return 0
        useful = max(1, len(self.waiting)) if self._up else 1
        ready = len(self._ready)
        return min(max(min(max(1, self._up - ready), useful), self._at_once - ready), self._most - ready)

    def _least_busy(self) -> Any:
        """Return the ready actor with the fewest blocks; None if each has enough."""
        busy = [actor for actor, _ in self._naming.values()]
        actor = min(self._ready, key=busy.count, default=None)
        return actor if busy.count(actor) < _BLOCKS_PER_ACTOR else None


class TaggingActor:
    """An actor that loads the models once and names the genres of decoded files."""

    def __init__(self, work: TagWork, device: str) -> None:
        self._work, self._device = work, device

    def load(self) -> Exception | None:
        """Load the models, and return the error where this fails, which Ray would wrap in its own."""
        try:
            _tagger(self._work, self._device)
        except Exception as error:
            return portable(error)
        return None

    def name(self, files: list[DecodedFile] | Exception) -> pa.Table | Exception:
        """Return the rows of a decoded block, or the error."""
        if isinstance(files, Exception):
            return files
        try:
            return tag_rows.name_files(_tagger(self._work, self._device), files)
        except Exception as error:
            return portable(error)


def decode_block(work: TagWork, block: int) -> list[DecodedFile] | Exception:
    try:
        memory.keep_freed()
        return work.decode(block)
    except Exception as error:
        return portable(error)


def tag_block(work: TagWork, block: int) -> pa.Table | Exception:
    try:
        tagger = _tagger(work, "cpu")
        return tag_rows.name_files(tagger, work.decode(block, tagger.decode))
    except Exception as error:
        return portable(error)


def _tagger(work: TagWork, device: str) -> Tagger:
    """Return the tagger of this process, which is loaded once."""
    return _loaded(work.objects[0], work.limits, device)


@lru_cache(maxsize=1)
def _loaded(saved: ray.ObjectRef[SavedEnsemble], limits: DecodingSettings, device: str) -> Tagger:
    if device == "cuda":
        from genre import devices  # needs torch, which an exported model does not

        devices.check_gpu()
    memory.keep_freed()
    ensemble = ray.get(saved)
    return Tagger(ensemble.load(limits, device, threads=1), ensemble.calibration)
