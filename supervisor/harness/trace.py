"""The trace of a simulated world: what happened, when, to whom, in the words that faults and reports use.

Owns the kinds of lifecycle events and their record. An event is noted where it happens, before it has consequences,
so that whoever listens (a fault that is anchored to it, an invariant) can still change them. Recording is cheap: a
tuple. Texts, the hash and the timeline are made of it when somebody asks.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec


class Kind(enum.StrEnum):
    """What can happen. Faults are anchored to these, and `--gr-timeline` shows them."""

    #: A client hands messages to its link.
    PUBLISH = "publish"
    #: A client's call is answered.
    CONFIRM = "confirm"
    #: A client learns of a result.
    RESULT = "result"
    #: The broker hands a message out; `task`, `number` of the delivery.
    DELIVER = "deliver"
    #: A child is about to run a body.
    STARTED = "started"
    #: The body is over, and nobody knows yet.
    RAN = "ran"
    #: A child says what became of deliveries.
    SETTLE = "settle"
    #: A child gives deliveries back.
    RETURN = "return"
    #: The broker tells a child that its settle is on disk.
    APPLIED = "applied"
    #: The broker is about to commit.
    WRITE = "write"
    #: The broker has committed.
    COMMIT = "commit"
    #: A result that is there to stay is on the disk.
    STORED = "result stored"
    #: A message has become a dead letter, on the disk.
    DEAD = "dead"
    #: A node asks for a child.
    FORK = "fork"
    #: A child is ready.
    READY = "ready"
    #: A process has died.
    DEATH = "death"
    #: A node reports the death of a child.
    REPORT = "report"
    #: A link is up.
    ATTACHED = "attached"
    #: A link is gone.
    DETACHED = "detached"
    #: The broker begins, at first or again.
    BROKER_UP = "broker up"
    #: The core has something for the operator.
    NOTICE = "notice"
    #: A fault was done.
    FAULT = "fault"
    #: User code named a moment: `sometimes`, `yield_point`.
    MARK = "mark"
    #: User code did something outside, as its test records it.
    EFFECT = "effect"


Facts = dict[str, Any]


class Event(msgspec.Struct, frozen=True, gc=False):
    """One thing that happened. `at`: microseconds since the world began."""

    at: int
    kind: Kind
    lane: str
    facts: Facts

    def words(self) -> str:
        """Say it in a few words."""
        facts = ", ".join(f"{name} {value}" for name, value in self.facts.items())
        return f"{self.kind} {facts}" if facts else str(self.kind)


Listener = Callable[[Event], object]

#: Facts that differ from run to run without meaning anything would go here; the world's ids do not.
_HASH_BYTES: Final = 8


class Trace:
    """Everything that happened in one world, in order."""

    def __init__(self, began: int, boot: Callable[[], int]) -> None:
        self.events: list[Event] = []
        #: When the world began, in boot time.
        self.began = began
        self._boot = boot
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Call this with each event, as it happens."""
        self._listeners.append(listener)

    def note(self, kind: Kind, lane: str, **facts: Any) -> None:
        """Something happens now."""
        event = Event(self._boot() - self.began, kind, lane, facts)
        self.events.append(event)
        for listener in self._listeners:
            listener(event)

    def note_together(self, happened: Iterable[tuple[Kind, str, Facts]]) -> None:
        """All of this happens at once: each listener hears of all of it before the next one, who may end the turn."""
        at = self._boot() - self.began
        events = [Event(at, kind, lane, facts) for kind, lane, facts in happened]
        self.events += events
        for listener in self._listeners:
            for event in events:
                listener(event)

    def digest(self) -> str:
        """Return a hash of all that happened: equal for two runs that went alike."""
        digest = hashlib.blake2b(digest_size=_HASH_BYTES)
        for event in self.events:
            digest.update(f"{event.at} {event.lane} {event.words()}\n".encode())
        return digest.hexdigest()
