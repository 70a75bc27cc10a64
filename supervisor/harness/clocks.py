"""The clocks of one host: right, until a fault sets them.

Owns what a machine on this host reads as the present, and the way back: which true time the host's own boot time
stands for, for whoever sleeps until then. Wall and boot time go wrong apart from each other: wall time may jump, stand
still and drift; boot time drifts, and never goes back nor jumps (only a host that was stopped finds that time has
passed). After a drift it goes on at the right pace from where it is.
"""

from __future__ import annotations

from typing import Final

from ...transport.clock import Clock, Now

_MILLION: Final = 1_000_000


class HostClock:
    """What a host reads. Keeps `transport.clock.Clock`. All numbers are microseconds, a pace parts in a million."""

    def __init__(self, true: Clock) -> None:
        self._true = true
        #: It was never set: asked often, and answered at once.
        self._is_right = True
        #: What the pace was set at: true boot time, and what the host read then.
        self._since = 0
        self._shown = 0
        self._pace = _MILLION
        self._wall_ahead = 0
        #: What its wall clock shows for as long as it stands still.
        self._wall: int | None = None

    def __call__(self) -> Now:
        """Return the present as this host sees it."""
        now = self._true()
        if self._is_right:
            return now
        boot = self._shown + (now.boot - self._since) * self._pace // _MILLION
        if self._wall is not None:
            return Now(boot, self._wall)
        return Now(boot, now.wall + (boot - now.boot) + self._wall_ahead)

    def true(self, boot: int) -> int:
        """Return the first true boot time at which the host reads at least this."""
        if self._is_right:
            return boot
        return self._since - (self._shown - boot) * _MILLION // self._pace if boot > self._shown else self._since

    def shown(self, boot: int) -> int:
        """Return what the host reads at this true boot time, if nothing is done to it until then."""
        return self._shown + (boot - self._since) * self._pace // _MILLION

    def step(self, microseconds: int) -> None:
        """Set the wall clock ahead, or back by a negative number."""
        self._is_right = False
        self._wall_ahead += microseconds

    def stop(self) -> None:
        """Let the wall clock stand still."""
        if self._wall is None:
            self._wall = self().wall
            self._is_right = False

    def drift(self, parts_in_a_million: int) -> None:
        """From now on both clocks gain so much, or lose it by a negative number; 0: they go at the right pace."""
        self._is_right = False
        now = self._true()
        self._shown = self.shown(now.boot)
        self._since = now.boot
        self._pace = _MILLION + parts_in_a_million

    def go_right(self) -> None:
        """Let both go at the right pace, the wall clock from what it would show without having stood still."""
        if not self._is_right:
            self._wall = None
            self.drift(0)
