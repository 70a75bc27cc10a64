"""The rules of supervision, each in a play of a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import pytest

from greenroom.supervisor.events import (
    AddChild,
    ChildExited,
    ChildFailedToStart,
    ChildStarted,
    KillChild,
    KillRequested,
    Reported,
    RestartChild,
    StartChild,
    StartSupervisor,
    StopChild,
    StopRequested,
    SupervisorEffect,
    SupervisorEvent,
    SupervisorExited,
    SupervisorFailedToStart,
    SupervisorStarted,
    TerminateChild,
    Tick,
    WakeAt,
)
from greenroom.supervisor.reasons import KILLED, NORMAL, SHUTDOWN, ExitReason, crashed, failed_to_start
from greenroom.supervisor.spec import Backoff, ChildSpec, Supervisor
from greenroom.supervisor.tree import IllegalMove, SupervisorMachine
from greenroom.transport.clock import Now

SECOND = 1_000_000
BOOM = crashed("boom")
Kind = TypeVar("Kind")


def nothing() -> None:
    """Stand for what a child runs."""


def child(name: str, **options: Any) -> ChildSpec:
    return ChildSpec(nothing, name=name, **options)


class Play:
    """A machine and what it did; children come up at once unless told otherwise."""

    def __init__(self, children: Sequence[ChildSpec], **options: Any) -> None:
        self.machine = SupervisorMachine(Supervisor(children, **options))
        self.now = 0

    def tell(self, *told: SupervisorEvent) -> list[SupervisorEffect]:
        effects: list[SupervisorEffect] = []
        for event in told:
            effects += self.machine.apply(event, Now(self.now, 0))
        return effects

    def after(self, seconds: float) -> list[SupervisorEffect]:
        self.now += round(seconds * SECOND)
        return self.tell(Tick())

    def start(self) -> Play:
        """Start all, each of them up as soon as it was asked to."""
        self.come_up(self.tell(StartSupervisor()))
        return self

    def come_up(self, effects: list[SupervisorEffect]) -> list[str]:
        """Let what is started come up, and what that starts too; return the names in order."""
        started: list[str] = []
        while starts := [effect for effect in effects if isinstance(effect, StartChild)]:
            effects = []
            for start in starts:
                started.append(start.name)
                effects += self.tell(ChildStarted(start.name, start.incarnation))
        return started

    def crash(self, name: str, reason: ExitReason = BOOM) -> list[SupervisorEffect]:
        return self.tell(ChildExited(name, self.incarnation(name), reason))

    def obey(self, name: str) -> list[SupervisorEffect]:
        return self.crash(name, SHUTDOWN)

    def fail(self, name: str) -> list[SupervisorEffect]:
        return self.tell(ChildFailedToStart(name, self.incarnation(name), failed_to_start("no port")))

    def incarnation(self, name: str) -> int:
        view = self.machine.child(name)
        assert view is not None
        return view.incarnation

    def states(self) -> dict[str, str]:
        return {view.name: str(view.state) for view in self.machine.view(Now(self.now, 0)).children}


def acts(effects: list[SupervisorEffect]) -> list[str]:
    """Say what was done to which child, such as `start a1`."""
    words = {StartChild: "start", StopChild: "stop", KillChild: "kill"}
    return [
        f"{words[type(effect)]} {effect.name}{effect.incarnation}"
        for effect in effects
        if isinstance(effect, StartChild | StopChild | KillChild)
    ]


def of(kind: type[Kind], effects: list[SupervisorEffect]) -> list[Kind]:
    return [effect for effect in effects if isinstance(effect, kind)]


ABC = [child("a"), child("b"), child("c")]


# ---- the first start ----


def test_children_start_one_after_another_in_the_order_of_the_spec() -> None:
    play = Play(ABC)
    assert acts(play.tell(StartSupervisor())) == ["start a1"]
    assert acts(play.tell(ChildStarted("a", 1))) == ["start b1"]
    assert acts(play.tell(ChildStarted("b", 1))) == ["start c1"]
    assert of(SupervisorStarted, play.tell(ChildStarted("c", 1)))


def test_a_supervisor_without_children_is_up_at_once() -> None:
    play = Play([])
    assert play.tell(StartSupervisor()) == [SupervisorStarted()]
    assert play.tell(StopRequested()) == [SupervisorExited(SHUTDOWN)]


def test_s6_a_failure_at_the_first_start_stops_those_that_are_up_in_reverse() -> None:
    play = Play(ABC)
    play.tell(StartSupervisor(), ChildStarted("a", 1), ChildStarted("b", 1))
    assert acts(play.fail("c")) == ["stop b1"]
    assert acts(play.obey("b")) == ["stop a1"]
    (failed,) = of(SupervisorFailedToStart, play.obey("a"))
    assert failed.reason == failed_to_start("child 'c': failed to start (no port)")


def test_a_child_that_ends_before_all_are_up_is_judged_when_they_are() -> None:
    play = Play(ABC)
    play.tell(StartSupervisor(), ChildStarted("a", 1), ChildStarted("b", 1))
    assert acts(play.crash("a")) == []
    effects = play.tell(ChildStarted("c", 1))
    assert of(SupervisorStarted, effects)
    assert acts(effects) == ["start a2"]


def test_s6_those_that_ended_early_are_not_stopped_again_when_the_start_fails() -> None:
    play = Play(ABC)
    play.tell(StartSupervisor(), ChildStarted("a", 1), ChildStarted("b", 1))
    play.crash("b")
    assert acts(play.fail("c")) == ["stop a1"]
    assert of(SupervisorFailedToStart, play.obey("a"))


def test_two_children_that_ended_early_are_one_restart_of_their_group() -> None:
    play = Play(ABC, strategy="one_for_all", intensity=1)
    play.tell(StartSupervisor(), ChildStarted("a", 1), ChildStarted("b", 1))
    play.crash("a")
    play.crash("b")
    effects = play.tell(ChildStarted("c", 1))
    assert acts(effects) == ["stop c1"]
    assert play.come_up(play.obey("c")) == ["a", "b", "c"]


def test_a_start_that_takes_too_long_is_killed_and_has_failed() -> None:
    play = Play([child("a", start_timeout=2.0)])
    assert WakeAt(2 * SECOND) in play.tell(StartSupervisor())
    assert acts(play.after(1.9)) == []
    assert acts(play.after(0.1)) == ["kill a1"]
    (failed,) = of(SupervisorFailedToStart, play.crash("a", KILLED))
    assert "not up within 2.0 s" in failed.reason.text


def test_a_child_that_comes_up_while_it_is_killed_for_being_late_has_failed_all_the_same() -> None:
    play = Play([child("a", start_timeout=2.0)])
    play.tell(StartSupervisor())
    play.after(2)
    assert play.tell(ChildStarted("a", 1)) == []
    assert of(SupervisorFailedToStart, play.crash("a", KILLED))


# ---- restarts ----


def test_s4_s10_a_crashed_child_is_restarted_alone_and_as_the_next_incarnation() -> None:
    play = Play(ABC).start()
    assert acts(play.crash("b")) == ["start b2"]
    assert play.states() == {"a": "running", "b": "starting", "c": "running"}


def test_s4_a_finished_transient_child_keeps_its_spec_and_a_temporary_one_does_not() -> None:
    play = Play([child("a", restart="transient"), child("b", restart="temporary")]).start()
    assert acts(play.crash("a", NORMAL)) == []
    assert acts(play.crash("b")) == []
    assert play.states() == {"a": "idle"}


def test_s5_rest_for_one_stops_those_after_it_in_reverse_and_starts_from_it_on() -> None:
    play = Play([*ABC, child("d")], strategy="rest_for_one").start()
    assert acts(play.crash("b")) == ["stop d1"]
    assert acts(play.obey("d")) == ["stop c1"]
    assert acts(play.obey("c")) == ["start b2"]
    assert acts(play.tell(ChildStarted("b", 2))) == ["start c2"]
    assert acts(play.tell(ChildStarted("c", 2))) == ["start d2"]
    assert play.incarnation("a") == 1


def test_s5_one_for_all_stops_and_starts_everybody() -> None:
    play = Play(ABC, strategy="one_for_all").start()
    assert acts(play.crash("b")) == ["stop c1"]
    assert acts(play.obey("c")) == ["stop a1"]
    assert play.come_up(play.obey("a")) == ["a", "b", "c"]


def test_s4_a_temporary_child_is_dropped_by_the_restart_of_its_group() -> None:
    play = Play([child("a"), child("b", restart="temporary"), child("c")], strategy="one_for_all").start()
    play.crash("a")
    play.obey("c")
    assert acts(play.obey("b")) == ["start a2"]
    assert play.come_up(play.tell(ChildStarted("a", 2))) == ["c"]
    assert list(play.states()) == ["a", "c"]


def test_a_finished_transient_child_is_started_again_with_its_group() -> None:
    play = Play([child("a"), child("b", restart="transient")], strategy="one_for_all").start()
    play.crash("b", NORMAL)
    assert play.come_up(play.crash("a")) == ["a", "b"]


def test_a_member_that_ends_by_itself_before_its_turn_to_stop_counts_as_stopped() -> None:
    play = Play(ABC, strategy="one_for_all", intensity=1).start()
    play.crash("a")
    assert acts(play.crash("b")) == []
    assert play.come_up(play.obey("c")) == ["a", "b", "c"]


def test_s6_those_before_a_failed_start_stay_up_and_the_retry_begins_with_it() -> None:
    play = Play(ABC, strategy="rest_for_one", intensity=3).start()
    play.crash("a")
    play.obey("c")
    play.obey("b")
    play.tell(ChildStarted("a", 2))
    assert acts(play.fail("b")) == []
    assert play.states() == {"a": "running", "b": "waiting", "c": "waiting"}
    assert acts(play.after(0)) == ["start b3"]
    assert acts(play.tell(ChildStarted("b", 3))) == ["start c2"]
    assert play.incarnation("a") == 2


def test_s6_under_one_for_all_the_retry_restarts_those_that_stayed_up_too() -> None:
    play = Play(ABC, strategy="one_for_all", intensity=3).start()
    play.crash("c")
    play.obey("b")
    play.obey("a")
    play.tell(ChildStarted("a", 2))
    play.fail("b")
    assert play.states() == {"a": "running", "b": "waiting", "c": "waiting"}
    assert acts(play.after(0)) == ["stop a2"]
    assert play.come_up(play.obey("a")) == ["a", "b", "c"]


def test_a_crash_before_the_group_makes_a_larger_group_of_it() -> None:
    play = Play(ABC, strategy="rest_for_one", intensity=3).start()
    assert acts(play.crash("b")) == ["stop c1"]
    assert acts(play.crash("a")) == []
    assert play.come_up(play.obey("c")) == ["a", "b", "c"]
    assert play.machine.view(Now(play.now, 0)).restarts == 2


def test_a_crash_of_one_that_is_up_again_begins_the_restart_of_its_group_anew() -> None:
    play = Play(ABC, strategy="one_for_all", intensity=3).start()
    play.crash("a")
    play.obey("c")
    play.obey("b")
    assert acts(play.tell(ChildStarted("a", 2))) == ["start b2"]
    assert acts(play.crash("a")) == ["stop b2"]
    assert play.come_up(play.obey("b")) == ["a", "b", "c"]


def test_s2_a_failed_restart_is_tried_again_at_a_tick_so_that_a_stop_can_come_between() -> None:
    play = Play([child("a")], intensity=3).start()
    play.crash("a")
    effects = play.fail("a")
    assert acts(effects) == []
    assert WakeAt(play.now) in effects
    assert of(SupervisorExited, play.tell(StopRequested())) == [SupervisorExited(SHUTDOWN)]


def test_s2_failed_restarts_count() -> None:
    play = Play([child("a")], intensity=2).start()
    play.crash("a")
    play.fail("a")
    assert acts(play.after(0)) == ["start a3"]
    play.fail("a")
    (exited,) = of(SupervisorExited, play.after(0))
    assert exited.reason.kind == "intensity_exceeded"


def test_s2_an_exit_before_the_child_was_up_is_a_failed_start_even_if_normal() -> None:
    play = Play([child("a", restart="transient")], intensity=3).start()
    play.crash("a")
    assert acts(play.crash("a", NORMAL)) == []
    assert acts(play.after(0)) == ["start a3"]


# ---- giving up ----


def test_s1_s3_the_second_restart_within_five_seconds_stops_all_in_reverse() -> None:
    play = Play(ABC).start()
    play.come_up(play.crash("b"))
    play.after(5)
    assert acts(play.crash("b")) == ["stop c1"]
    assert acts(play.obey("c")) == ["stop a1"]
    (exited,) = of(SupervisorExited, play.obey("a"))
    assert exited.reason.kind == "intensity_exceeded"
    assert exited.reason.abnormal
    assert "child 'b': crashed (boom)" in exited.reason.text


def test_s1_a_restart_just_after_the_period_is_allowed() -> None:
    play = Play(ABC).start()
    play.come_up(play.crash("b"))
    play.after(5.000001)
    assert acts(play.crash("b")) == ["start b3"]


def test_s1_the_restart_of_a_group_counts_once() -> None:
    play = Play(ABC, strategy="one_for_all", intensity=1).start()
    play.crash("a")
    play.obey("c")
    play.come_up(play.obey("b"))
    assert play.machine.view(Now(play.now, 0)).restarts == 1


def test_s3_a_subtree_that_gave_up_is_restarted_even_as_a_transient_child() -> None:
    inner, outer = Play([child("a")], intensity=0).start(), Play([child("sub", restart="transient")]).start()
    (exited,) = of(SupervisorExited, inner.crash("a"))
    assert acts(outer.crash("sub", exited.reason)) == ["start sub2"]


def test_s10_a_restarted_supervisor_counts_incarnations_on_and_restarts_from_none() -> None:
    play = Play([child("a")], intensity=0).start()
    assert of(SupervisorExited, play.crash("a"))
    assert acts(play.tell(StartSupervisor())) == ["start a2"]
    play.tell(ChildStarted("a", 2))
    assert play.machine.view(Now(play.now, 0)).restarts == 0


# ---- backoff ----


def test_s8_a_restart_waits_for_its_backoff_and_counts_when_it_is_made() -> None:
    play = Play([child("a", backoff=Backoff(1, 8, jitter=0.5))]).start()
    effects = play.tell(ChildExited("a", 1, BOOM, jitter=1.0))
    assert acts(effects) == []
    assert WakeAt(1_500_000) in effects
    assert play.machine.view(Now(play.now, 0)).restarts == 0
    assert acts(play.after(1.4)) == []
    assert acts(play.after(0.1)) == ["start a2"]


def test_s8_members_are_stopped_at_once_and_wait_with_the_one_that_is_delayed() -> None:
    play = Play([child("a"), child("b", backoff=Backoff(2, 2, jitter=0))], strategy="one_for_all").start()
    assert acts(play.crash("b")) == ["stop a1"]
    assert acts(play.obey("a")) == []
    assert play.come_up(play.after(2)) == ["a", "b"]


def test_s8_the_delay_of_one_child_holds_up_no_other() -> None:
    play = Play([child("a", backoff=Backoff(10, 10)), child("b")], intensity=5).start()
    play.crash("a")
    assert acts(play.crash("b")) == ["start b2"]


def test_s8_a_delay_is_kept_when_a_larger_group_takes_the_child_in() -> None:
    spec = [child("a"), child("b", backoff=Backoff(10, 10, jitter=0))]
    play = Play(spec, strategy="rest_for_one", intensity=5).start()
    play.crash("b")
    assert acts(play.crash("a")) == ["start a2"]
    assert acts(play.tell(ChildStarted("a", 2))) == []
    assert acts(play.after(10)) == ["start b2"]
    play.tell(ChildStarted("b", 2))
    assert play.machine.view(Now(play.now, 0)).restarts == 0  # there was one attempt, 10 s ago


def test_s8_a_child_that_was_up_for_long_enough_starts_from_the_shortest_delay() -> None:
    play = Play([child("a", backoff=Backoff(1, 3, jitter=0))]).start()
    play.crash("a")
    play.come_up(play.after(1))
    play.after(2)
    assert WakeAt(play.now + SECOND) in play.crash("a")


def test_s8_a_failed_start_after_a_long_life_does_not_forget_the_crash_before_it() -> None:
    spec = [child("a", backoff=Backoff(1, 3, jitter=0)), child("b")]
    play = Play(spec, strategy="one_for_all", intensity=5).start()
    play.crash("a")
    play.obey("b")
    play.come_up(play.after(1))
    play.after(100)
    play.crash("b")
    play.obey("a")
    assert WakeAt(play.now + 2 * SECOND) in play.fail("a")


def test_a_child_that_crashes_after_one_that_waits_is_taken_along() -> None:
    spec = [child("a", backoff=Backoff(5, 5, jitter=0)), child("b"), child("c")]
    play = Play(spec, strategy="rest_for_one", intensity=5).start()
    play.crash("a")
    play.obey("c")
    play.obey("b")
    play.tell(AddChild(1, child("d")), AddChild(2, child("e")))
    play.tell(ChildStarted("d", 1), ChildStarted("e", 1))
    assert acts(play.crash("d")) == ["stop e1"]
    assert acts(play.obey("e")) == []
    assert play.come_up(play.after(5)) == ["a", "b", "c", "d", "e"]


def test_a_child_whose_start_timed_out_once_is_judged_afresh_afterwards() -> None:
    play = Play([child("a", start_timeout=2.0)], intensity=5).start()
    play.crash("a")
    play.after(2)
    play.crash("a", KILLED)
    play.come_up(play.after(0))
    assert of(Reported, play.crash("a"))[0] == Reported("ended", "a", 3, BOOM)


def test_a_stop_cancels_a_restart_that_waits() -> None:
    play = Play([child("a", backoff=Backoff(10, 10))]).start()
    play.crash("a")
    assert of(SupervisorExited, play.tell(StopRequested()))
    assert acts(play.after(20)) == []


# ---- stopping ----


def test_s7_children_stop_one_by_one_last_first() -> None:
    play = Play(ABC).start()
    assert acts(play.tell(StopRequested())) == ["stop c1"]
    assert acts(play.obey("c")) == ["stop b1"]
    assert acts(play.obey("b")) == ["stop a1"]
    assert of(SupervisorExited, play.obey("a")) == [SupervisorExited(SHUTDOWN)]


def test_s7_a_child_that_does_not_stop_within_its_budget_is_killed() -> None:
    play = Play([child("a", shutdown=2.0)]).start()
    play.tell(StopRequested())
    assert acts(play.after(1.999999)) == []
    assert acts(play.after(0.000001)) == ["kill a1"]
    assert of(SupervisorExited, play.crash("a", KILLED))


def test_s7_brutal_kill_does_not_ask() -> None:
    play = Play([child("a", shutdown="brutal_kill")]).start()
    assert acts(play.tell(StopRequested())) == ["kill a1"]
    assert of(Reported, play.crash("a", KILLED)) == []


def test_s7_an_infinite_budget_never_ends() -> None:
    play = Play([child("a", shutdown="infinity")]).start()
    assert acts(play.tell(StopRequested())) == ["stop a1"]
    assert acts(play.after(1_000_000)) == []


def test_s7_an_abnormal_end_at_shutdown_is_reported_and_not_restarted() -> None:
    play = Play([child("a")]).start()
    play.tell(StopRequested())
    effects = play.crash("a")
    assert of(Reported, effects) == [Reported("stopped_badly", "a", 1, BOOM)]
    assert acts(effects) == []


def test_s7_dynamic_children_stop_at_once_under_one_timer() -> None:
    spec = [child("a", shutdown=1.0), child("b", shutdown=3.0), child("c", shutdown="brutal_kill")]
    play = Play(spec, dynamic=True).start()
    assert acts(play.tell(StopRequested())) == ["kill c1", "stop b1", "stop a1"]
    assert acts(play.after(2.9)) == []
    assert sorted(acts(play.after(0.1))) == ["kill a1", "kill b1"]


def test_s7_one_dynamic_child_without_a_limit_takes_it_from_all() -> None:
    play = Play([child("a", shutdown=1.0), child("b", shutdown="infinity")], dynamic=True).start()
    assert acts(play.tell(StopRequested())) == ["stop b1", "stop a1"]
    assert acts(play.after(1_000_000)) == []


def test_dynamic_children_start_at_once() -> None:
    play = Play(ABC, dynamic=True)
    assert acts(play.tell(StartSupervisor())) == ["start a1", "start b1", "start c1"]
    play.tell(ChildStarted("c", 1), ChildStarted("a", 1))
    assert of(SupervisorStarted, play.tell(ChildStarted("b", 1)))


def test_a_stop_during_the_first_start_stops_the_one_that_starts_too() -> None:
    play = Play(ABC)
    play.tell(StartSupervisor(), ChildStarted("a", 1))
    assert acts(play.tell(StopRequested())) == ["stop b1"]
    assert acts(play.tell(ChildStarted("b", 1))) == []
    assert acts(play.obey("b")) == ["stop a1"]
    assert of(SupervisorExited, play.obey("a")) == [SupervisorExited(SHUTDOWN)]


def test_a_stop_during_the_restart_of_a_group_starts_nothing_more() -> None:
    play = Play(ABC, strategy="one_for_all").start()
    play.crash("a")
    play.tell(StopRequested())
    assert acts(play.obey("c")) == ["stop b1"]
    assert of(SupervisorExited, play.obey("b")) == [SupervisorExited(SHUTDOWN)]


def test_a_kill_takes_everybody_at_once() -> None:
    play = Play(ABC).start()
    assert acts(play.tell(KillRequested())) == ["kill c1", "kill b1", "kill a1"]
    play.crash("a", KILLED)
    play.crash("b", KILLED)
    assert of(SupervisorExited, play.crash("c", KILLED)) == [SupervisorExited(KILLED)]


def test_a_kill_hurries_a_stop() -> None:
    play = Play([child("a", shutdown="infinity"), child("b", shutdown="infinity")]).start()
    play.tell(StopRequested())
    assert acts(play.tell(KillRequested())) == ["kill b1", "kill a1"]
    play.crash("b", KILLED)
    assert of(SupervisorExited, play.crash("a", KILLED)) == [SupervisorExited(KILLED)]


# ---- auto shutdown ----


def significant(name: str) -> ChildSpec:
    return child(name, restart="transient", significant=True)


def test_s9_any_significant_child_that_ends_for_good_stops_the_supervisor() -> None:
    play = Play([significant("a"), significant("b"), child("c")], auto_shutdown="any_significant").start()
    assert acts(play.crash("a")) == ["start a2"]
    play.tell(ChildStarted("a", 2))
    assert acts(play.crash("a", NORMAL)) == ["stop c1"]
    play.obey("c")
    assert of(SupervisorExited, play.obey("b")) == [SupervisorExited(SHUTDOWN)]


def test_s9_all_significant_waits_for_the_last_of_them() -> None:
    play = Play([significant("a"), significant("b"), child("c")], auto_shutdown="all_significant").start()
    assert acts(play.crash("a", NORMAL)) == []
    assert acts(play.crash("b", NORMAL)) == ["stop c1"]


def test_s9_a_significant_child_that_the_supervisor_stopped_does_not_count() -> None:
    play = Play([significant("a"), child("b")], auto_shutdown="any_significant").start()
    play.tell(TerminateChild(1, "a"))
    play.obey("a")
    assert play.states() == {"a": "idle", "b": "running"}


def test_s9_a_significant_temporary_child_counts_however_it_ended() -> None:
    spec = [child("a", restart="temporary", significant=True)]
    play = Play(spec, auto_shutdown="any_significant").start()
    assert of(SupervisorExited, play.crash("a")) == [SupervisorExited(SHUTDOWN)]


# ---- what cannot be ----


def test_starting_twice_raises_and_changes_nothing() -> None:
    play = Play(ABC).start()
    before = play.machine.view(Now(0, 0))
    with pytest.raises(IllegalMove, match="this one is running"):
        play.tell(StartSupervisor())
    assert play.machine.view(Now(0, 0)) == before
    assert play.tell(Tick()) == []


def test_a_report_about_an_incarnation_never_started_raises_and_changes_nothing() -> None:
    play = Play(ABC).start()
    before = play.machine.view(Now(0, 0))
    with pytest.raises(IllegalMove, match="incarnation 2; the latest that was started is 1"):
        play.tell(ChildExited("a", 2, BOOM))
    assert play.machine.view(Now(0, 0)) == before


def test_s10_a_deadline_of_an_old_incarnation_does_not_reach_the_new_one() -> None:
    play = Play([child("a", shutdown=2.0, start_timeout=50.0)]).start()
    play.tell(TerminateChild(1, "a"))
    play.obey("a")
    assert acts(play.tell(RestartChild(2, "a"))) == ["start a2"]
    play.tell(ChildStarted("a", 2))
    assert acts(play.after(100)) == []


def test_the_machine_says_when_it_wants_to_be_woken_and_only_when_that_changes() -> None:
    play = Play([child("a"), child("b", start_timeout=10.0)])
    assert of(WakeAt, play.tell(StartSupervisor())) == [WakeAt(60 * SECOND)]
    assert of(WakeAt, play.tell(ChildStarted("a", 1))) == [WakeAt(10 * SECOND)]
    assert of(WakeAt, play.tell(ChildStarted("b", 1))) == []
    assert of(WakeAt, play.tell(Tick())) == []
