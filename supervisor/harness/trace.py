"""The trace of a simulated world: what happened, when, to whom, in the words that faults and reports use.

Owns the record of lifecycle events; they are those of the event log of a real cluster (`transport.event_log`), as
which a trace can be written. An event is noted where it happens, before it has consequences, so that whoever listens (a
fault that is anchored to it, an invariant) can still change them. Recording is cheap: a tuple. Texts, the hash and the
timeline are made of it when somebody asks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from ...transport.event_log import FORMAT, Event, Facts, Kind, line_of

__all__ = ["Event", "Facts", "Kind", "Listener", "Trace"]


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

    def write(self, path: Path, *, at_rest: bool = False) -> None:
        """Write it as an event log, as `greenroom check-log` reads it. `at_rest`: the world has come to rest.

        Raises OSError.
        """
        end: Facts = {"closed": "the world is over", **({"unsettled": 0} if at_rest else {})}
        last = self.events[-1].at if self.events else 0
        with path.open("wb") as file:
            file.write(line_of(Event(0, Kind.LOG, "world", {"format": FORMAT, "whole": True})))
            file.writelines(line_of(event) for event in self.events)
            file.write(line_of(Event(last, Kind.LOG, "world", end)))
