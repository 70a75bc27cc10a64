"""The seam between a tree of supervisors and what its children really are.

Owns `Runner`, which whoever can run children of one kind implements (processes of a pool, threads, actors),
and `ChildRun`, through which a runner reports. A runner decides nothing about restarts; it starts, stops
and kills what it is told to, and says what became of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from .events import ChildExited, ChildFailedToStart, ChildStarted, SupervisorEvent
from .reasons import ExitReason
from .spec import ChildSpec


class ChildRun:
    """One incarnation of one child, as its runner knows it. Its methods may be called by any thread.

    `path` is unique in the tree: the names from the root's children down, joined by "/".
    """

    __slots__ = ("_post", "incarnation", "path", "spec")

    def __init__(self, path: str, spec: ChildSpec, incarnation: int, post: Callable[[SupervisorEvent], None]) -> None:
        """Report by `post`, which must be safe to call from any thread."""
        self.path = path
        self.spec = spec
        self.incarnation = incarnation
        self._post = post

    def started(self) -> None:
        """Report that the child is up."""
        self._post(ChildStarted(self.spec.name, self.incarnation))

    def failed_to_start(self, reason: ExitReason) -> None:
        """Report that it did not come up, and that nothing of it is left."""
        # The draw for the jitter of a backoff: machines draw nothing themselves.
        self._post(ChildFailedToStart(self.spec.name, self.incarnation, reason, random.random()))

    def exited(self, reason: ExitReason) -> None:
        """Report that it ended, and that nothing of it is left."""
        self._post(ChildExited(self.spec.name, self.incarnation, reason, random.random()))


class Runner(Protocol):
    """Runs children of one kind. It is called by the driver's thread, so nothing here may wait."""

    def start(self, run: ChildRun) -> None:
        """Start a child: `run.started`, `run.failed_to_start` or `run.exited` follows.

        An exception counts as a failed start.
        """
        ...

    def stop(self, run: ChildRun, reason: ExitReason, budget_seconds: float | None) -> None:
        """Ask a child, which may still be starting, to stop: `run.exited` follows.

        It is killed after `budget_seconds`; None means never.
        """
        ...

    def kill(self, run: ChildRun) -> None:
        """End a child by force: `run.exited` must follow, the supervisor waits for it without limit."""
        ...
