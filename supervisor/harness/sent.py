"""A task that a test has sent into a simulated cluster: what became of it, as the test sees it.

Its answers cost no simulated time where they can be read at the broker: from its store, and from the trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from ...actors.results.meta import PENDING, Meta, read_known
from ...actors.results.result import AsyncResult
from ...transport.errors import StoreError
from ...transport.verbs import Known
from .counted import Counted
from .trace import Event, Kind
from .world import World

R_co = TypeVar("R_co", covariant=True)


class Sent(Counted, Generic[R_co]):
    """One task that was sent."""

    def __init__(self, world: World, result: AsyncResult[R_co]) -> None:
        self.result_of = result
        self._world = world

    def __repr__(self) -> str:
        return f"<sent {self.name or 'task'} {self.id}>"

    @property
    def id(self) -> str:
        """The id of the message."""
        return self.result_of.id

    @property
    def name(self) -> str | None:
        """The task's name."""
        return self.result_of.name

    @property
    def state(self) -> str:
        """PENDING (or unknown), STARTED, RETRY, SUCCESS, FAILURE, REVOKED, as `AsyncResult.state`."""
        return self._meta().state

    @property
    def result(self) -> Any:
        """What the task returned, or the exception that it raised; None until then."""
        return self._meta().value

    def get(self, timeout: float | None = None, *, propagate: bool = True) -> Any:
        """Let the world go on until there is a result; return it, or raise what the task raised (`propagate` off:
        return that as well). After `timeout` simulated seconds raise TimeoutError; then nobody waits any more."""
        try:
            return self.result_of.get(timeout, propagate)
        except TimeoutError:
            # A call that was refused has no result, ever, and a world that waits for one is never at rest.
            for client in self._world.clients:
                client.forget(self.id)
            raise

    @property
    def accepted(self) -> bool:
        """Whether its client knows that a broker has it."""
        return any(
            event.kind is Kind.CONFIRM and self.id in event.facts["ids"] and "error" not in event.facts
            for event in self._world.trace.events
        )

    @property
    def refused(self) -> str:
        """The name of the error with which its client learned that no broker has it; empty: it was not."""
        for event in self._world.trace.events:
            if event.kind is Kind.CONFIRM and self.id in event.facts["ids"] and "error" in event.facts:
                return str(event.facts["error"])
        return ""

    @property
    def result_writes(self) -> int:
        """How often a result that is there to stay was stored."""
        return self._count(Kind.STORED)

    def _events(self) -> Sequence[Event]:
        return self._world.trace.events

    def _meta(self) -> Meta:
        broker = self._world.broker
        if not broker.is_up:
            return PENDING
        try:
            rows = broker.bare_store.read_results([self.id], broker.now.wall)
        except StoreError:
            return PENDING
        return next((read_known(Known(row.id, row.state, row.blob), self.result_of.app) for row in rows), PENDING)
