"""The starts of one pool that failed: how many are too many, and how long the next one waits.

Owns the two windows (of children that ended before they were ready, and of spawners) and the delay of the next fork.
What counts as a failed start is `machine`'s to say.
"""

from __future__ import annotations

from ..backoff import Failures
from ..intensity import RestartWindow
from .limits import PoolLimits


class Starts:
    """What is known of the starts of a pool. Times are boot microseconds."""

    __slots__ = ("_failures", "_limits", "_shown", "_spawners", "_window", "any_ready", "not_before")

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self._window = RestartWindow(limits.start_failures_max, limits.start_failures_period)
        self._spawners = RestartWindow(limits.spawner_deaths_max, limits.start_failures_period)
        self._failures = Failures()
        self._shown: dict[str, None] = {}
        #: Whether any child was ever ready, so that the application can be loaded.
        self.any_ready = False
        #: No fork before this time.
        self.not_before = 0

    def came_up(self, now: int) -> None:
        """A child is ready."""
        self.any_ready = True
        self._failures.came_up(now)

    def failed(self, now: int) -> bool:
        """A child did not get ready, by its own fault; return whether the pool may go on."""
        self.not_before = now + self._failures.failed(self._limits.start_backoff, now, 0.0)
        # Those who came up before do not make the next one that fails the first of its row.
        self._failures.starts_again()
        return self._window.attempt(now)

    def was_killed(self, now: int) -> None:
        """A child that was not ready was killed from outside, which says nothing of the application."""
        self.not_before = now + self._limits.killed_delay

    def spawner_died(self, now: int) -> bool:
        """A spawner ended by itself; return whether the pool may go on."""
        return self._spawners.attempt(now)

    def is_news(self, reason: str) -> bool:
        """Tell whether this reason for not starting was not shown before, and note that it is now."""
        known = reason in self._shown
        self._shown[reason] = None
        return not known
