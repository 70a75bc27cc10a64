"""How often is too often: the window of recent restarts.

Owns the answer to one question, "may I restart once more?". The window slides: a restart that lies
exactly one period back still counts. It belongs to a supervisor, not to a child, and the restart of a
group is one attempt.
"""

from __future__ import annotations

from collections import deque


class RestartWindow:
    """The times of the latest restart attempts of one supervisor.

    A supervisor that gives up at the one too many leaves at most `intensity` + 1 of them here. Who goes on all the
    same may change `intensity`, and leaves as many as it attempts within a period.
    """

    __slots__ = ("_attempts", "intensity", "period")

    def __init__(self, intensity: int, period: int) -> None:
        """Allow `intensity` attempts within `period` microseconds."""
        self.intensity = intensity
        self.period = period
        self._attempts: deque[int] = deque()

    def attempt(self, now: int) -> bool:
        """Count an attempt at `now` (boot microseconds); return False if it is one too many."""
        while self._attempts and self._attempts[0] < now - self.period:
            self._attempts.popleft()
        self._attempts.append(now)
        return len(self._attempts) <= self.intensity

    def calm_at(self) -> int:
        """Return when there will be no more than `intensity` attempts in the period before; 0: there are not now."""
        surplus = len(self._attempts) - self.intensity
        return self._attempts[surplus - 1] + self.period + 1 if surplus > 0 else 0

    def count(self, now: int) -> int:
        """Return how many attempts lie within the period that ends at `now`."""
        return sum(1 for attempt in self._attempts if attempt >= now - self.period)
