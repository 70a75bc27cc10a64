"""The two clocks, read in one place.

Owns `Now`, the instant that every machine is given, and `system_now`, the only reader of the
platform's clocks for it. A machine never calls a clock: its driver does, through a `Clock`, and a
simulated world hands in its own.

Two clocks, because each is wrong for the other's work. *Boot time* never steps and, where the
platform offers it, also counts while the machine sleeps: silence, leases and time limits are measured
by it, and it means nothing on another machine or after a reboot. *Wall time* means the same everywhere
but may step: due dates and anything that is stored or shown are told in it.
"""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

MICROSECONDS = 1_000_000
"""Microseconds in a second; every duration inside a machine is an integer number of them."""


class Now(NamedTuple):
    """One instant on both clocks, in integer microseconds.

    `boot` counts from an arbitrary start on this machine, `wall` from the Unix epoch.
    """

    boot: int
    wall: int


class Clock(Protocol):
    """Whatever tells a driver the time: `system_now`, or the clock of a simulated world."""

    def __call__(self) -> Now:
        """Return the present instant."""
        ...


# Looked up by name, because the constant is absent on platforms without this clock (macOS, Windows);
# their monotonic clock may stand still while the machine sleeps.
_BOOT_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def _read_boot_clock(clock: int | None) -> int:
    """Return nanoseconds of the clock with this id, or of the monotonic clock where there is none."""
    if clock is None:
        return time.monotonic_ns()
    return time.clock_gettime_ns(clock)


def system_now() -> Now:
    """Return the present instant by the platform's clocks."""
    return Now(_read_boot_clock(_BOOT_CLOCK) // 1_000, time.time_ns() // 1_000)


def boot_now() -> int:
    """Return the present boot time alone, in microseconds: for a hot loop that needs no other."""
    return (time.monotonic_ns() if _BOOT_CLOCK is None else time.clock_gettime_ns(_BOOT_CLOCK)) // 1_000


def wall_now() -> int:
    """Return the present wall time alone, in microseconds."""
    return time.time_ns() // 1_000
