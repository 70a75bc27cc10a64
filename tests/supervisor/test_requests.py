"""Children added, stopped, started and dropped while their supervisor runs."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest

from greenroom.supervisor.events import (
    AddChild,
    ChildExited,
    ChildFailedToStart,
    ChildStarted,
    DeleteChild,
    KillChild,
    RemoveChild,
    Replied,
    RestartChild,
    StartChild,
    StartSupervisor,
    StopChild,
    StopRequested,
    SupervisorEffect,
    SupervisorEvent,
    TerminateChild,
    Tick,
)
from greenroom.supervisor.reasons import NORMAL, SHUTDOWN, ExitReason, crashed, failed_to_start
from greenroom.supervisor.requests import REQUESTS_WAITING_MAX
from greenroom.supervisor.spec import Backoff, ChildSpec, Supervisor
from greenroom.supervisor.tree import SupervisorMachine
from greenroom.transport.clock import Now

BOOM = crashed("boom")


def nothing() -> None:
    """Stand for what a child runs."""


def child(name: str, **options: Any) -> ChildSpec:
    return ChildSpec(nothing, name=name, **options)


class Play:
    """A running machine, what it did last, and the answers that it gave."""

    def __init__(self, *children: ChildSpec, **options: Any) -> None:
        self.machine = SupervisorMachine(Supervisor(children, **options))
        self.replies: dict[int, str | None] = {}
        self.incarnations: dict[int, int] = {}
        self.tell(StartSupervisor())
        for spec in children:
            self.up(spec.name)

    def tell(self, event: SupervisorEvent, boot: int = 0) -> list[SupervisorEffect]:
        effects = self.machine.apply(event, Now(boot, 0))
        for effect in effects:
            if isinstance(effect, Replied):
                assert effect.request not in self.replies, "answered twice"
                self.replies[effect.request] = effect.error
                self.incarnations[effect.request] = effect.incarnation
        return effects

    def up(self, name: str) -> list[SupervisorEffect]:
        return self.tell(ChildStarted(name, self.incarnation(name)))

    def end(self, name: str, reason: ExitReason = SHUTDOWN) -> list[SupervisorEffect]:
        return self.tell(ChildExited(name, self.incarnation(name), reason))

    def fail(self, name: str) -> list[SupervisorEffect]:
        return self.tell(ChildFailedToStart(name, self.incarnation(name), failed_to_start("no port")))

    def incarnation(self, name: str) -> int:
        view = self.machine.child(name)
        assert view is not None
        return view.incarnation

    def state(self, name: str) -> str | None:
        view = self.machine.child(name)
        return None if view is None else str(view.state)


Kind = TypeVar("Kind", StartChild, StopChild, KillChild)


def names(kind: type[Kind], effects: list[SupervisorEffect]) -> list[str]:
    return [effect.name for effect in effects if isinstance(effect, kind)]


def test_an_added_child_is_answered_for_when_it_is_up() -> None:
    play = Play(dynamic=True)
    assert names(StartChild, play.tell(AddChild(1, child("a")))) == ["a"]
    assert play.replies == {}
    play.up("a")
    assert play.replies == {1: None}
    assert play.incarnations == {1: 1}


def test_a_child_that_does_not_come_up_is_not_added() -> None:
    play = Play()
    play.tell(AddChild(1, child("a")))
    play.fail("a")
    assert "child 'a' did not start: failed to start (no port)" in (play.replies[1] or "")
    assert play.state("a") is None


def test_an_added_child_is_restarted_like_any_other() -> None:
    play = Play()
    play.tell(AddChild(1, child("a")))
    play.up("a")
    assert names(StartChild, play.end("a", BOOM)) == ["a"]


def test_a_name_can_be_taken_once() -> None:
    play = Play(child("a"))
    play.tell(AddChild(1, child("a")))
    assert "there is a child 'a' already (running)" in (play.replies[1] or "")


def test_a_child_that_breaks_the_rules_of_the_supervisor_is_refused_in_words() -> None:
    play = Play()
    play.tell(AddChild(1, child("a", restart="temporary", significant=True)))
    assert "auto_shutdown='never'" in (play.replies[1] or "")


def test_children_max_is_a_limit() -> None:
    play = Play(child("a"), children_max=2)
    play.tell(AddChild(1, child("b")))
    play.up("b")
    play.tell(AddChild(2, child("c")))
    assert play.replies[1] is None
    assert "there are 2 children, children_max" in (play.replies[2] or "")
    play.tell(RemoveChild(3, "b"))
    play.end("b")
    assert names(StartChild, play.tell(AddChild(4, child("c")))) == ["c"]


def test_terminate_keeps_the_spec_and_restart_starts_it_again() -> None:
    play = Play(child("a"))
    assert names(StopChild, play.tell(TerminateChild(1, "a"))) == ["a"]
    play.end("a")
    assert (play.replies[1], play.state("a")) == (None, "idle")
    assert names(StartChild, play.tell(RestartChild(2, "a"))) == ["a"]
    play.up("a")
    assert (play.replies[2], play.incarnations[2]) == (None, 2)


def test_terminate_drops_a_temporary_child() -> None:
    play = Play(child("a", restart="temporary"))
    play.tell(TerminateChild(1, "a"))
    play.end("a")
    assert play.state("a") is None


def test_a_restart_that_fails_leaves_the_child_as_it_was() -> None:
    play = Play(child("a"))
    play.tell(TerminateChild(1, "a"))
    play.end("a")
    play.tell(RestartChild(2, "a"))
    play.fail("a")
    assert "did not start" in (play.replies[2] or "")
    assert play.state("a") == "idle"
    assert names(StartChild, play.tell(Tick())) == []


def test_a_terminated_child_that_ends_abnormally_is_not_restarted() -> None:
    play = Play(child("a"))
    play.tell(TerminateChild(1, "a"))
    assert names(StartChild, play.end("a", BOOM)) == []
    assert play.replies == {1: None}


def test_a_terminated_child_is_killed_after_its_budget() -> None:
    play = Play(child("a", shutdown=2.0))
    play.tell(TerminateChild(1, "a"))
    assert names(KillChild, play.tell(Tick(), 2_000_000)) == ["a"]


def test_terminate_cancels_a_restart_that_waits() -> None:
    play = Play(child("a", backoff=Backoff(5, 5)))
    play.end("a", BOOM)
    assert play.state("a") == "waiting"
    play.tell(TerminateChild(1, "a"))
    assert (play.replies[1], play.state("a")) == (None, "idle")
    assert names(StartChild, play.tell(Tick(), 10_000_000)) == []


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
def test_members_do_not_wait_for_ever_for_a_pivot_that_was_terminated(strategy: str) -> None:
    play = Play(child("a", backoff=Backoff(5, 5)), child("b"), child("c"), strategy=strategy)
    play.end("a", BOOM)
    play.end("c")
    play.end("b")
    play.tell(TerminateChild(1, "a"))
    effects = play.tell(Tick(), 1)
    expected = ["a"] if strategy == "one_for_all" else ["b"]  # one_for_all starts whoever has a spec
    assert names(StartChild, effects) == expected


def test_remove_stops_and_drops() -> None:
    play = Play(child("a"))
    assert names(StopChild, play.tell(RemoveChild(1, "a"))) == ["a"]
    assert play.replies == {}
    play.end("a")
    assert (play.replies, play.state("a")) == ({1: None}, None)


def test_remove_drops_a_child_that_does_not_run() -> None:
    play = Play(child("a", restart="transient"))
    play.end("a", NORMAL)
    play.tell(RemoveChild(1, "a"))
    assert (play.replies, play.state("a")) == ({1: None}, None)


def test_two_who_stop_the_same_child_are_both_answered() -> None:
    play = Play(child("a"))
    play.tell(TerminateChild(1, "a"))
    assert names(StopChild, play.tell(RemoveChild(2, "a"))) == []
    play.end("a")
    assert (play.replies, play.state("a")) == ({1: None, 2: None}, None)


def test_a_child_that_is_being_removed_is_dropped_whoever_else_stops_it() -> None:
    play = Play(child("a"), child("b"), strategy="one_for_all")
    play.tell(RemoveChild(1, "b"))
    play.tell(TerminateChild(2, "b"))
    play.end("a", BOOM)
    assert names(StartChild, play.end("b")) == ["a"]
    assert play.state("b") is None


def test_a_child_that_is_being_terminated_starts_again_with_its_group() -> None:
    play = Play(child("a"), child("b"), strategy="one_for_all")
    play.tell(TerminateChild(1, "b"))
    play.end("a", BOOM)
    assert names(StartChild, play.end("b")) == ["a"]
    assert names(StartChild, play.up("a")) == ["b"]


def test_a_removal_holds_against_a_later_termination() -> None:
    play = Play(child("a"))
    play.tell(RemoveChild(1, "a"))
    play.tell(TerminateChild(2, "a"))
    play.end("a")
    assert play.state("a") is None


def test_a_child_that_is_removed_while_it_starts_answers_both_requests() -> None:
    play = Play()
    play.tell(AddChild(1, child("a")))
    play.tell(TerminateChild(2, "a"))
    play.end("a")
    assert play.replies[1] is not None
    assert play.replies[2] is None
    assert play.state("a") is None


@pytest.mark.parametrize("state", ["running", "waiting", "stopping"])
def test_delete_and_restart_are_refused_unless_the_child_is_idle(state: str) -> None:
    play = Play(child("a", backoff=Backoff(5, 5)))
    if state == "waiting":
        play.end("a", BOOM)
    elif state == "stopping":
        play.tell(TerminateChild(9, "a"))
    play.tell(DeleteChild(1, "a"))
    play.tell(RestartChild(2, "a"))
    assert f"child 'a' is {state}" in (play.replies[1] or "")
    assert f"child 'a' is {state}" in (play.replies[2] or "")
    assert play.state("a") == state


def test_delete_drops_an_idle_child() -> None:
    play = Play(child("a", restart="transient"))
    play.end("a", NORMAL)
    play.tell(DeleteChild(1, "a"))
    assert (play.replies, play.state("a")) == ({1: None}, None)


@pytest.mark.parametrize("kind", [TerminateChild, RestartChild, DeleteChild, RemoveChild])
def test_a_request_for_nobody_is_refused(kind: type[Any]) -> None:
    play = Play()
    play.tell(kind(1, "a"))
    assert "no child 'a'" in (play.replies[1] or "")


def test_requests_wait_while_a_group_is_restarted() -> None:
    play = Play(child("a"), child("b"), strategy="one_for_all")
    play.end("a", BOOM)
    assert play.tell(AddChild(1, child("c"))) == []
    assert play.tell(TerminateChild(2, "b")) == []
    play.end("b")
    play.up("a")
    effects = play.up("b")
    assert names(StartChild, effects) == ["c"]
    assert names(StopChild, effects) == ["b"]


def test_an_added_child_that_a_group_restart_catches_while_it_starts_is_not_added() -> None:
    play = Play(child("a"), strategy="one_for_all")
    play.tell(AddChild(1, child("b")))
    assert names(StopChild, play.end("a", BOOM)) == ["b"]
    assert names(StartChild, play.end("b")) == ["a"]
    assert "stopped before it was up" in (play.replies[1] or "")
    assert play.state("b") is None


def test_a_supervisor_that_stops_refuses_what_waits_and_what_comes() -> None:
    play = Play(child("a"), child("b"), strategy="one_for_all")
    play.end("a", BOOM)
    play.tell(AddChild(1, child("c")))
    play.tell(StopRequested())
    play.tell(AddChild(2, child("d")))
    assert "supervisor is stopping" in (play.replies[1] or "")
    assert "supervisor is stopping" in (play.replies[2] or "")


def test_the_requests_that_wait_for_a_supervisor_have_a_limit() -> None:
    play = Play(child("a"), child("b"), strategy="one_for_all")
    play.end("a", BOOM)
    for number in range(REQUESTS_WAITING_MAX):
        play.tell(DeleteChild(number, "a"))
    assert play.replies == {}
    play.tell(DeleteChild(-1, "a"))
    assert "requests wait for this supervisor" in (play.replies[-1] or "")


def test_the_requests_that_wait_for_a_child_to_stop_have_a_limit() -> None:
    play = Play(child("a"))
    for number in range(REQUESTS_WAITING_MAX):
        play.tell(TerminateChild(number, "a"))
    assert play.replies == {}
    play.tell(TerminateChild(-1, "a"))
    assert "requests wait for child 'a'" in (play.replies[-1] or "")
