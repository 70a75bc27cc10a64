"""A child's witness: when bodies start and end, as events of the log.

A start is written after the page has it and before the body runs; an end before anybody is told of it. Each is a write
of its own, so that it is there whatever becomes of the process.
"""

from __future__ import annotations

from ...transport.event_log import EventLog, Kind
from ...transport.message import Kind as MessageKind
from ...transport.message import Outcome, State
from .events import Held


class BodyWitness:
    """Writes down the bodies of one child. Whoever owns the station calls it."""

    def __init__(self, log: EventLog, lane: str) -> None:
        self._log = log
        self._lane = lane
        #: Id and task of what runs, by position.
        self._running: dict[int, tuple[str, str]] = {}

    def started(self, held: Held) -> None:
        """This body is about to run."""
        delivery = held.delivery
        envelope = delivery.envelope
        self._running[delivery.position] = envelope.id, envelope.name
        self._log.note(
            Kind.STARTED,
            self._lane,
            id=envelope.id,
            task=envelope.name,
            position=delivery.position,
            delivery=delivery.deliveries,
            flags=envelope.flags,
            of=MessageKind(envelope.kind).name,
        )
        self._log.flush()

    def finished(self, outcome: Outcome) -> None:
        """This became of a body."""
        position = outcome.position
        id, task = self._running.pop(position, ("", ""))
        if id:
            self._log.note(Kind.RAN, self._lane, id=id, task=task, position=position, state=State(outcome.state).name)
            self._log.flush()
