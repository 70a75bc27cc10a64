"""A host's clocks: each goes wrong by itself, and who sleeps on them wakes at the right time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from greenroom.supervisor.harness.clocks import HostClock
from greenroom.transport.sim.clock import BOOT_START, WALL_START, VirtualClock


def test_the_wall_clock_steps_and_stands_still_apart_from_boot_time() -> None:
    true = VirtualClock()
    host = HostClock(true)
    assert host() == true()
    host.step(-3)
    true.advance(10)
    assert host() == (BOOT_START + 10, WALL_START + 7)
    host.stop()
    true.advance(10)
    assert host() == (BOOT_START + 20, WALL_START + 7)
    host.go_right()
    assert host() == (BOOT_START + 20, WALL_START + 17)


def test_a_drift_moves_both_clocks_and_boot_time_never_goes_back() -> None:
    true = VirtualClock()
    host = HostClock(true)
    host.drift(100_000)
    true.advance(1_000)
    assert host() == (BOOT_START + 1_100, WALL_START + 1_100)
    host.go_right()
    true.advance(1_000)
    assert host().boot == BOOT_START + 2_100


@given(st.integers(-200_000, 200_000), st.integers(0, 10**9), st.integers(0, 10**9))
def test_who_sleeps_until_a_time_finds_it_there_and_was_not_kept_longer(pace: int, before: int, ahead: int) -> None:
    true = VirtualClock()
    host = HostClock(true)
    host.drift(pace)
    true.advance(before)
    until = host().boot + ahead
    true.advance_to(host.true(until))
    assert until <= host().boot <= until + 2
