"""How long to wait before the next restart of one child.

Owns the count of a child's failures in a row. A failed start is a failure like a crash. The delay is
min(max, min * 2 ** failures) * (1 + draw * jitter); the draw comes from outside, so that the same events
always give the same delays. The count is forgotten when the child has been up for `reset_after`: time
spent waiting or starting does not count, or a long delay would forgive the failure that caused it.
"""

from __future__ import annotations

from .spec import Backoff

#: Doubling more often than this passes any maximum that can be written in seconds.
_DOUBLINGS_MAX = 62


class Failures:
    """The failures in a row of one child, and the delay that follows from them."""

    __slots__ = ("_up_since", "in_a_row")

    def __init__(self) -> None:
        self.in_a_row = 0
        self._up_since: int | None = None

    def came_up(self, now: int) -> None:
        """Note that the child is up since `now` (boot microseconds)."""
        self._up_since = now

    def starts_again(self) -> None:
        """Note that the child is being started, for whatever reason, and not yet up."""
        self._up_since = None

    def healthy_at(self, backoff: Backoff) -> int | None:
        """Return when the child will have been up for so long that its failures are forgotten; None: it is not up."""
        return None if self._up_since is None else self._up_since + backoff.reset_after_microseconds

    def failed(self, backoff: Backoff | None, now: int, draw: float) -> int:
        """Count a failure and return the microseconds until the next start; `draw` is from 0 to 1."""
        if backoff is None:
            return 0
        if self._up_since is not None and now - self._up_since >= backoff.reset_after_microseconds:
            self.in_a_row = 0
        delay = min(backoff.max_microseconds, backoff.min_microseconds << min(self.in_a_row, _DOUBLINGS_MAX))
        self.in_a_row += 1
        return round(delay * (1 + min(max(draw, 0.0), 1.0) * backoff.jitter))
