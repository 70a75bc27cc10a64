"""Monitors (rule S11): once, and a restart is the death of an incarnation but not of a name."""

from __future__ import annotations

from typing import Any

import pytest

from greenroom.supervisor import monitors
from greenroom.supervisor.events import (
    ChildDown,
    ChildExited,
    ChildStarted,
    Demonitor,
    Monitor,
    MonitorRefused,
    StartSupervisor,
    StopRequested,
    SupervisorEvent,
    TerminateChild,
)
from greenroom.supervisor.reasons import NO_SUCH_CHILD, NORMAL, SHUTDOWN, crashed
from greenroom.supervisor.spec import ChildSpec, Supervisor
from greenroom.supervisor.tree import IllegalMove, SupervisorMachine
from greenroom.transport.clock import Now

BOOM = crashed("boom")


def nothing() -> None:
    """Stand for what a child runs."""


class Play:
    """A running machine with children a and b, and what its monitors were told."""

    def __init__(self, **options: Any) -> None:
        children = [ChildSpec(nothing, name=name, restart="transient") for name in "ab"]
        self.machine = SupervisorMachine(Supervisor(children, **options))
        self.tell(StartSupervisor(), ChildStarted("a", 1), ChildStarted("b", 1))

    def tell(self, *told: SupervisorEvent) -> list[ChildDown]:
        effects = [effect for event in told for effect in self.machine.apply(event, Now(0, 0))]
        return [effect for effect in effects if isinstance(effect, ChildDown)]


def test_s11_a_restart_is_the_death_of_a_pinned_target_only() -> None:
    play = Play()
    play.tell(Monitor(1, "a"), Monitor(2, "a", 1))
    assert play.tell(ChildExited("a", 1, BOOM)) == [ChildDown((2,), "a", 1, BOOM)]


def test_s11_a_name_is_down_when_its_child_has_ended_for_good() -> None:
    play = Play()
    play.tell(Monitor(1, "a"), ChildExited("a", 1, BOOM), ChildStarted("a", 2))
    assert play.tell(ChildExited("a", 2, NORMAL)) == [ChildDown((1,), "a", 2, NORMAL)]


def test_s11_a_monitor_fires_once() -> None:
    play = Play()
    play.tell(Monitor(1, "a"), Monitor(2, "a", 1))
    assert len(play.tell(ChildExited("a", 1, NORMAL))) == 2
    assert play.tell(ChildExited("b", 1, NORMAL), StopRequested()) == []


def test_s11_a_target_that_is_down_already_is_told_at_once() -> None:
    play = Play()
    play.tell(ChildExited("a", 1, NORMAL))
    assert play.tell(Monitor(1, "a")) == [ChildDown((1,), "a", 1, NORMAL)]
    assert play.tell(Monitor(2, "a", 1)) == [ChildDown((2,), "a", 1, NORMAL)]


def test_s11_an_old_incarnation_and_an_unknown_name_are_down_already() -> None:
    play = Play()
    play.tell(ChildExited("a", 1, BOOM), ChildStarted("a", 2))
    assert play.tell(Monitor(1, "a", 1)) == [ChildDown((1,), "a", 0, NO_SUCH_CHILD)]
    assert play.tell(Monitor(2, "x")) == [ChildDown((2,), "x", 0, NO_SUCH_CHILD)]


def test_s11_the_end_of_the_supervisor_is_the_death_of_every_name() -> None:
    play = Play()
    play.tell(Monitor(1, "a"), Monitor(2, "b"), Monitor(3, "a"), StopRequested())
    assert play.tell(ChildExited("b", 1, SHUTDOWN)) == [ChildDown((2,), "b", 1, SHUTDOWN)]
    assert play.tell(ChildExited("a", 1, SHUTDOWN)) == [ChildDown((1, 3), "a", 1, SHUTDOWN)]


def test_s11_a_member_stopped_for_its_group_is_not_down() -> None:
    play = Play(strategy="one_for_all")
    play.tell(Monitor(1, "b"), Monitor(2, "b", 1))
    play.tell(ChildExited("a", 1, BOOM))
    assert play.tell(ChildExited("b", 1, SHUTDOWN)) == [ChildDown((2,), "b", 1, SHUTDOWN)]


def test_s11_a_terminated_child_is_down() -> None:
    play = Play()
    play.tell(Monitor(1, "a"), TerminateChild(1, "a"))
    assert play.tell(ChildExited("a", 1, SHUTDOWN)) == [ChildDown((1,), "a", 1, SHUTDOWN)]


def test_a_name_that_waits_for_its_first_start_can_be_watched() -> None:
    machine = SupervisorMachine(Supervisor([ChildSpec(nothing, name=name) for name in "ab"]))
    machine.apply(StartSupervisor(), Now(0, 0))
    assert machine.apply(Monitor(1, "b"), Now(0, 0)) == []
    assert ChildDown((1,), "b", 0, NO_SUCH_CHILD) in machine.apply(StopRequested(), Now(0, 0))


def test_a_forgotten_monitor_does_not_fire() -> None:
    play = Play()
    play.tell(Monitor(1, "a"), Monitor(2, "a"), Demonitor(1), Demonitor(7))
    assert play.tell(ChildExited("a", 1, NORMAL)) == [ChildDown((2,), "a", 1, NORMAL)]


def test_a_number_in_use_is_an_illegal_move() -> None:
    play = Play()
    play.tell(Monitor(1, "a"))
    with pytest.raises(IllegalMove, match="monitor 1"):
        play.tell(Monitor(1, "b"))
    assert play.tell(ChildExited("b", 1, NORMAL)) == []


def test_monitors_have_a_limit_and_the_one_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitors, "MONITORS_MAX", 2)
    play = Play()
    play.tell(Monitor(1, "a"), Monitor(2, "a", 1))
    (refused,) = play.machine.apply(Monitor(3, "b"), Now(0, 0))
    assert isinstance(refused, MonitorRefused)
    assert play.tell(ChildExited("b", 1, NORMAL)) == []
    play.tell(Demonitor(1))
    assert play.machine.apply(Monitor(3, "a"), Now(0, 0)) == []
