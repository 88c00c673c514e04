"""How `tag` divides its work between CPUs and GPUs, without Ray."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import ray

from genre.config import load
from genre.errors import GenreError
from genre.tagging.known_contents import KnownContents
from ray_jobs.engine import blocks, machines
from ray_jobs.tagging import distributed
from ray_jobs.tagging.distributed import Taggers


class Actor:
    """Stands for an actor. Its calls are numbers."""

    def __init__(self, calls: count[int]) -> None:
        self.blocks: list[Any] = []
        self._calls = calls
        self.load = SimpleNamespace(remote=lambda: next(calls))
        self.name = SimpleNamespace(remote=self._name)

    def _name(self, block: Any) -> int:
        self.blocks.append(block)
        return next(self._calls)


@pytest.fixture
def actors() -> list[Actor]:
    """Return the actors that were started, in order."""
    return []


@pytest.fixture
def taggers(actors: list[Actor]) -> Taggers:
    """Return taggers of at most three actors."""
    calls = count()

    def start() -> Actor:
        actors.append(Actor(calls))
        return actors[-1]

    return Taggers(start, most=3)


def test_a_block_goes_only_to_an_actor_that_is_ready(taggers: Taggers, actors: list[Actor]) -> None:
    """The second one never is. So no third is started, and the first names all blocks, two at a time."""
    decoded: list[Any] = ["a", "b", "c", "d", "e"]
    taggers.waiting.extend(decoded)
    taggers.assign()
    (loading,) = taggers.calls
    assert not taggers.have_named(loading)
    for named in range(5):
        taggers.assign()
        assert len(actors) == 2
        assert actors[0].blocks == decoded[: named + 2]
        assert taggers.have_named(taggers.calls[0])
    assert not actors[1].blocks
    assert not taggers.have_blocks


def test_the_blocks_of_an_actor_that_died_are_named_by_the_next(
    taggers: Taggers, actors: list[Actor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one gets the GPU as soon as it is free. One that dies while it loads the models is replaced as well."""
    killed: list[Any] = []
    monkeypatch.setattr(ray, "kill", killed.append)
    taggers.assign()
    taggers.replace(taggers.calls[0])
    decoded: list[Any] = ["a", "b", "c"]
    taggers.waiting.extend(decoded)
    taggers.assign()
    taggers.have_named(taggers.calls[0])
    taggers.assign()
    taggers.replace(taggers.calls[0])
    assert killed == actors[:2]
    assert not taggers.have_named(taggers.calls[0])
    while taggers.have_blocks:
        taggers.assign()
        assert taggers.have_named(taggers.calls[0])
    assert actors[1].blocks == ["a", "b"]
    assert actors[2].blocks == ["c", "a", "b"]


def test_as_many_actors_start_as_gpus_are_up(actors: list[Actor]) -> None:
    """Those of one machine load the models at the same time, if there is work for them."""
    calls = count()

    def start() -> Actor:
        actors.append(Actor(calls))
        return actors[-1]

    taggers = Taggers(start, most=5, up=3)
    block: Any = "block"
    started = []
    for more in (0, 2, 5):
        taggers.waiting.extend(more * [block])
        taggers.assign()
        started.append(len(actors))
    assert started == [1, 2, 3]
    for call in list(taggers.calls):
        taggers.have_named(call)
    taggers.waiting.extend(5 * [block])
    taggers.assign()
    assert len(actors) == 4  # one more than are up, since they are busy and blocks wait


def test_the_actors_of_a_known_number_start_together(actors: list[Actor]) -> None:
    """They start before a block is decoded. Two GPUs never come, and the actor that is ready names all blocks."""
    calls = count()

    def start() -> Actor:
        actors.append(Actor(calls))
        return actors[-1]

    taggers = Taggers(start, most=5, at_once=3)
    taggers.assign()
    assert len(actors) == 3
    assert not taggers.have_named(taggers.calls[1])
    decoded: list[Any] = ["a", "b", "c", "d", "e"]
    taggers.waiting.extend(decoded)
    while taggers.have_blocks:
        taggers.assign()
        assert taggers.have_named(taggers.calls[0])
    assert [actor.blocks for actor in actors] == [[], decoded, []]


def test_actors_that_die_one_after_the_other_end_the_job(taggers: Taggers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "kill", lambda actor: None)
    for _ in range(8):
        taggers.assign()
        taggers.replace(taggers.calls[0])
    taggers.assign()
    with pytest.raises(GenreError, match="9 processes that name the genres on a GPU died one after the other"):
        taggers.replace(taggers.calls[0])


def test_another_actor_starts_when_blocks_wait_and_none_is_starting(taggers: Taggers, actors: list[Actor]) -> None:
    def started_after(waiting: int) -> int:
        taggers.waiting.extend(waiting * [block])
        taggers.assign()
        return len(actors)

    block: Any = "block"
    assert [started_after(0), started_after(2)] == [1, 1]
    taggers.have_named(taggers.calls[-1])
    assert [started_after(0), started_after(1), started_after(1)] == [1, 2, 2]
    taggers.have_named(taggers.calls[-1])
    assert [started_after(0), started_after(5), started_after(5)] == [2, 3, 3]
    taggers.have_named(taggers.calls[-1])
    assert started_after(5) == 3
    assert [len(actor.blocks) for actor in actors] == [2, 2, 2]


@pytest.mark.parametrize(
    ("share", "settings", "gpus", "workers", "at_once"),
    [
        (1.0, ["cluster.max_cpus=4"], 1, 4, 1),
        (0.5, ["cluster.max_cpus=4"], 1, 8, 1),
        (0.5, ["cluster.max_cpus=65"], 2, 130, 2),
        (0.5, ["cluster.max_cpus=65", "cluster.max_gpus=1"], 1, 128, 1),
        (0.5, ["tag.batch_files=1"], 16, 2000, 1),
        (0.5, ["tag.batch_files=1", "cluster.max_gpus=3"], 3, 384, 1),
    ],
)
def test_tasks_take_all_cpus_with_their_share(
    share: float, settings: list[str], gpus: int, workers: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task of remote files takes half a CPU, a GPU has at most 64, and GPUs for known CPUs start together."""
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setattr(machines, "slots", lambda needed: 1)
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(blocks, "cpus_of_a_block", lambda tracks: share)
    monkeypatch.setattr(
        distributed,
        "on_both",
        lambda work, gpus, workers, share, device, at_once: [(gpus, workers, share, at_once)],
    )
    pending = pa.table({"path": [f"{number}.wav" for number in range(2000)]})
    ensemble: Any = SimpleNamespace(is_exported=False)
    config = load(None, ["device=cuda", *settings])
    streamed: list[Any] = list(distributed.stream(config, ensemble, pending, KnownContents.none()))
    assert streamed == [(gpus, workers, share, at_once)]
