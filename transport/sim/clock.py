"""Virtual time: a clock that moves when it is told to, and the agenda of what is due on it.

Owns the instants of a simulated world. Both clocks start at round numbers far from zero, so that a machine that takes
0 for "not set" is not helped by chance. Boot time only goes forward; wall time may be stepped apart from it, as an
operator or NTP does.
"""

from __future__ import annotations

import heapq
from typing import Final, Generic, TypeVar

from ..clock import MICROSECONDS, Now

BOOT_START: Final = 1_000 * MICROSECONDS
WALL_START: Final = 1_700_000_000 * MICROSECONDS

T = TypeVar("T")


class VirtualClock:
    """A `Clock` that stands still until `advance` or `advance_to`. All numbers are microseconds."""

    def __init__(self, boot: int = BOOT_START, wall: int = WALL_START) -> None:
        self._now = Now(boot, wall)

    def __call__(self) -> Now:
        """Return the present instant."""
        return self._now

    def advance(self, microseconds: int) -> Now:
        """Let so much time pass on both clocks; return the new instant. Raises ValueError if it is negative."""
        if microseconds < 0:
            raise ValueError(f"boot time cannot go back by {-microseconds} microseconds")
        if microseconds:
            self._now = Now(self._now.boot + microseconds, self._now.wall + microseconds)
        return self._now

    def advance_to(self, boot: int) -> Now:
        """Let time pass until this boot time; nothing happens if it is past already."""
        return self.advance(max(0, boot - self._now.boot))

    def step_wall(self, microseconds: int) -> Now:
        """Set the wall clock forward, or back by a negative number, while no time passes."""
        self._now = Now(self._now.boot, self._now.wall + microseconds)
        return self._now


class Agenda(Generic[T]):
    """What is due at which boot time. What is due at the same time comes in the order in which it was entered."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, T]] = []
        self._entered = 0

    def enter(self, boot: int, what: T) -> None:
        """Let `what` be due at this time."""
        self._entered += 1
        heapq.heappush(self._heap, (boot, self._entered, what))

    def take_due(self, boot: int) -> list[T]:
        """Return what is due at this time or was before, in order, and forget it."""
        due: list[T] = []
        while self._heap and self._heap[0][0] <= boot:
            due.append(heapq.heappop(self._heap)[2])
        return due

    @property
    def next_at(self) -> int:
        """When the next is due; 0: nothing is."""
        return self._heap[0][0] if self._heap else 0
