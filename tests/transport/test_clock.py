"""The clock that drivers read."""

# Values and classes of every kind pass through here untyped, and some privates are looked at.
# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false

from __future__ import annotations

import time

from greenroom.transport import clock
from greenroom.transport.clock import Clock, Now, system_now


def test_wall_time_counts_microseconds_from_the_epoch() -> None:
    before = time.time_ns() // 1_000
    now = system_now()
    assert before <= now.wall <= time.time_ns() // 1_000
    assert (type(now.boot), type(now.wall)) == (int, int)


def test_boot_time_never_goes_back() -> None:
    reader: Clock = system_now
    readings = [reader().boot for _ in range(1_000)]
    assert readings == sorted(readings)


def test_a_platform_without_a_boot_clock_falls_back_to_the_monotonic_one() -> None:
    before = time.monotonic_ns()
    assert before <= clock._read_boot_clock(None) <= time.monotonic_ns()


def test_an_instant_is_compared_and_taken_apart_like_a_tuple() -> None:
    boot, wall = Now(1, 2)
    assert (boot, wall) == (1, 2)
    assert Now(1, 2) < Now(1, 3)
