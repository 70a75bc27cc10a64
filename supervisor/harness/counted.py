"""What the events tell of one call, of a simulated cluster as of one of real processes: how often what happened."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from .trace import Event, Kind


class Counted(Protocol):
    """One call, whose cluster remembers its events."""

    @property
    def id(self) -> str:
        """The id of the message."""
        ...

    def _events(self) -> Iterable[Event]: ...

    @property
    def deliveries(self) -> int:
        """How often it was handed to a child."""
        return self._count(Kind.DELIVER)

    @property
    def starts(self) -> int:
        """How often its body was started."""
        return self._count(Kind.STARTED)

    @property
    def is_dead(self) -> bool:
        """Whether it has become a dead letter."""
        return self._count(Kind.DEAD) > 0

    def _count(self, kind: Kind) -> int:
        return sum(event.kind is kind and event.facts.get("id") == self.id for event in self._events())
