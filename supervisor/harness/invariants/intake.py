"""Promises about what a broker must not rest on: frames that are none, words of nobody, a disk that has failed."""

from __future__ import annotations

from typing import Any

from ....transport.store.base import Store
from ....transport.store.records import Recovered
from ....transport.verbs import Applied, Confirm, Deliver, FromBroker
from ..observer import Observer
from ..world import World
from .base import Invariant


class Wire(Invariant, Observer):
    """WIRE."""

    name = "WIRE"
    sentence = "What a broker rejects changes nothing: no message, no lease, no count, no record."
    by_events = False

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None
        self._before: list[Any] = []

    def doubted(self) -> None:
        """Remember how things are."""
        self._before = self._state()

    def refused(self) -> None:
        """Nothing has changed."""
        self.premises += 1
        after = self._state()
        for before, now in zip(self._before, after, strict=True):
            if before != now:
                self.violated(f"a broker has rejected what came, and where it had {before} it has {now}")

    def _state(self) -> list[Any]:
        """What messages there are, where, and who has them. Links are no part of it: a peer that is rejected is cut."""
        core = None if self.world is None else self.world.broker.core
        if core is None:
            return []
        desk = core.broker.desk
        mailboxes = [
            (box.name, box.depth, box.ready, box.scheduled, box.acquired, box.started, box.dead)
            for box in desk.mailboxes.values()
        ]
        held = [(session.id, list(session.held)) for session in desk.sessions.values() if session.held]
        numbers = [(id, publishing.applied) for id, publishing in sorted(desk.publishing.items())]
        counts = desk.counts
        return [
            mailboxes,
            held,
            numbers,
            desk.next_position,
            (counts.accepted, counts.settled, counts.redelivered, counts.refused),
            list(desk.revoked),
        ]


class Disk(Invariant, Observer):
    """D29."""

    name = "D29"
    sentence = "A broker whose store has failed confirms nothing and hands nothing out, until the store is opened anew."
    by_events = False

    def __init__(self) -> None:
        super().__init__()
        self._has_failed = False

    def failed(self) -> None:
        """From now on nothing may be said that rests on the store, also of what it had before.

        The failure is the next thing that the broker learns, and its next life says again what was committed.
        """
        self.premises += 1
        self._has_failed = True

    def opened(self, recovered: Recovered, store: Store) -> None:
        """It is known again what it holds."""
        self._has_failed = False

    def said(self, session: str, verb: FromBroker) -> None:
        """Judge what is said after it has failed."""
        if self._has_failed and isinstance(verb, (Confirm, Deliver, Applied)):
            self.violated(f"the store has failed, and the broker says {type(verb).__name__} to {session}")
