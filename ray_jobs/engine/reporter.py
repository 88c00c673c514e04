"""Send messages from workers to the driver: in order, and without the prefixes of Ray's own logs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@ray.remote(num_cpus=0)
class Mailbox:
    """Holds messages until the driver takes them."""

    def __init__(self) -> None:
        self._messages: list[Any] = []

    def put(self, message: Any) -> None:
        """Add a message."""
        self._messages.append(message)

    def take(self) -> list[Any]:
        """Return the messages since the last call."""
        taken, self._messages = self._messages, []
        return taken


@contextlib.contextmanager
def listening(receive: Callable[[Any], None], every_seconds: float = 0.5) -> Iterator[Any]:
    """Yield a mailbox for workers. A thread of this process calls `receive` with each message, the last on leaving."""
    # on the driver's machine, so that the loss of another machine does not end it
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mailbox = Mailbox.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
    done = threading.Event()

    def listen() -> None:
        while not done.wait(every_seconds):
            with contextlib.suppress(ray.exceptions.ActorUnavailableError):  # temporary; the mailbox keeps its messages
                for message in ray.get(mailbox.take.remote()):
                    receive(message)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield mailbox
    finally:
        done.set()
        thread.join()
        for message in ray.get(mailbox.take.remote()):
            receive(message)
