"""Send messages from workers to the driver: in order, and without the prefixes of Ray's own logs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_jobs.engine import cli

_POLL_SECONDS = 0.5


@ray.remote(num_cpus=0)
class Mailbox:
    """Holds messages until the driver has them: an answer of `after` may be lost on its way."""

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._forgotten = 0

    def put(self, message: Any) -> None:
        """Add a message."""
        self._messages.append(message)

    def after(self, received: int) -> list[Any]:
        """Forget the first `received` messages, which the driver has, and return the others."""
        del self._messages[: received - self._forgotten]
        self._forgotten = received
        return list(self._messages)


@contextlib.contextmanager
def listening(receive: Callable[[Any], None]) -> Iterator[Any]:
    """Yield a mailbox for workers. A thread calls `receive` with each message; the last are received on leaving."""
    # on the driver's machine, so that the loss of another machine does not end it
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mailbox = Mailbox.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
    done, received = threading.Event(), 0

    def receive_new() -> None:
        nonlocal received
        for message in ray.get(mailbox.after.remote(received)):
            received += 1
            receive(message)

    def listen() -> None:
        while not done.wait(_POLL_SECONDS):
            with contextlib.suppress(ray.exceptions.ActorUnavailableError):  # temporary; the mailbox keeps its messages
                receive_new()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield mailbox
    finally:
        done.set()
        thread.join()
        receive_new()


@contextlib.contextmanager
def messages(job: str) -> Iterator[Any]:
    """Yield a mailbox whose messages are printed after the name of the job, each once though many workers send it."""
    printed = set[str]()

    def show(message: str) -> None:
        if message not in printed:
            printed.add(message)
            cli.say(f"{job}: {message}")

    with listening(show) as mailbox:
        yield mailbox
