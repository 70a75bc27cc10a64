"""What tests send to see a cluster under load, and tasks that misbehave in each way that a task can.

Owns loads (`burst`, `huge`, `many_mailboxes`) for whoever has a `Sim`, and `Misbehaving`, which registers one task of
each kind with an application. Nothing here goes wrong by itself: these are calls like a user's own.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Final

from ...actors.app import App
from ...actors.tasks.task import Task
from ...transport.codec import FRAME_BYTES_MAX
from .sent import Sent
from .sim import Sim

#: More than fits one frame of verbs, and so travels as a part of its own.
HUGE_BYTES: Final = 2 * FRAME_BYTES_MAX
#: What a task that leaks keeps each time.
LEAK_BYTES: Final = 1 << 20


def burst(sim: Sim, task: Task[..., Any], count: int = 1_000, client: int = 0) -> list[Sent[Any]]:
    """Send so many calls of a task without arguments before anybody has a turn."""
    return [sim.client(client).send(task) for _ in range(count)]


def huge(sim: Sim, task: Task[..., Any], size: int = HUGE_BYTES) -> Sent[Any]:
    """Send a call whose only argument has so many bytes."""
    return sim.send(task, bytes(size))


def many_mailboxes(sim: Sim, task: Task[..., Any], count: int = 10_000) -> list[Sent[Any]]:
    """Send a call of a task to each of so many mailboxes. No worker of the cluster serves them."""
    return [sim.client().apply_async(task, queue=f"mailbox {number}") for number in range(count)]


class Misbehaving:
    """Tasks of an application, each of which does one thing that a task should not."""

    def __init__(self, app: App, *, time_limit: float = 1.0, max_deliveries: int = 2) -> None:
        """`time_limit` seconds end the one that hangs; the poison is delivered `max_deliveries` times."""
        safe: dict[str, Any] = {"acks_late": True, "reject_on_worker_lost": True}
        self._leaked: list[bytearray] = []
        self.poison: Task[[], None] = app.task(_poison, name="poison", max_deliveries=max_deliveries, **safe)
        self.hang: Task[[], None] = app.task(_hang, name="hang", time_limit=time_limit, **safe)
        self.fail: Task[[], None] = app.task(_fail, name="fail", **safe)
        self.unserialisable: Task[[], object] = app.task(_unserialisable, name="unserialisable", **safe)
        self.leak: Task[[], int] = app.task(self._leak, name="leak", **safe)

    def _leak(self) -> int:
        """Keep memory, and return how often that was done."""
        self._leaked.append(bytearray(LEAK_BYTES))
        return len(self._leaked)


def _poison() -> None:
    sys.exit(3)


def _hang() -> None:
    while True:
        time.sleep(60)


def _fail() -> None:
    raise ValueError("as it was told to")


def _unserialisable() -> object:
    return object()
