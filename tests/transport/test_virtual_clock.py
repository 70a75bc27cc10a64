"""Virtual time and its agenda."""

from __future__ import annotations

import pytest

from greenroom.transport.clock import Clock, Now
from greenroom.transport.sim.clock import BOOT_START, WALL_START, Agenda, VirtualClock


def test_time_passes_on_both_clocks_when_it_is_told_to() -> None:
    clock = VirtualClock()
    reader: Clock = clock
    assert reader() == Now(BOOT_START, WALL_START)
    assert clock.advance(5) == Now(BOOT_START + 5, WALL_START + 5)
    assert clock.advance_to(BOOT_START + 9) == Now(BOOT_START + 9, WALL_START + 9)
    assert clock.advance_to(BOOT_START) == Now(BOOT_START + 9, WALL_START + 9)


def test_the_wall_clock_may_step_and_boot_time_may_not_go_back() -> None:
    clock = VirtualClock(boot=100, wall=1_000)
    assert clock.step_wall(-300) == Now(100, 700)
    with pytest.raises(ValueError, match="cannot go back by 1"):
        clock.advance(-1)
    assert clock() == Now(100, 700)


def test_what_is_due_comes_by_time_and_then_in_the_order_of_entry() -> None:
    agenda: Agenda[str] = Agenda()
    assert agenda.next_at == 0
    for boot, what in ((20, "c"), (10, "a"), (10, "b"), (30, "d")):
        agenda.enter(boot, what)
    assert agenda.next_at == 10
    assert agenda.take_due(9) == []
    assert agenda.take_due(20) == ["a", "b", "c"]
    assert agenda.take_due(20) == []
    assert agenda.next_at == 30
