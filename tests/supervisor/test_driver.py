"""A tree that really runs: one thread drives it, a runner of the test plays the children."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from greenroom.supervisor.driver import RequestRefused, StartFailed, SupervisorDriver
from greenroom.supervisor.events import ChildDown, Reported
from greenroom.supervisor.reasons import KILLED, NO_SUCH_CHILD, NORMAL, SHUTDOWN, ExitReason, crashed
from greenroom.supervisor.runner import ChildRun
from greenroom.supervisor.spec import ChildSpec, Supervisor
from greenroom.transport.clock import Now, system_now

DEADLINE = 20.0
BOOM = crashed("boom")


def nothing() -> None:
    """Stand for what a child runs."""


def child(name: str, **options: Any) -> ChildSpec:
    return ChildSpec(nothing, name=name, **options)


class Stage:
    """A runner whose children come up and obey at once, unless they are named here."""

    def __init__(self) -> None:
        self.acts: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.runs: dict[str, ChildRun] = {}
        self.slow: list[str] = []
        self.raising: list[str] = []
        self.stubborn: list[str] = []

    def start(self, run: ChildRun) -> None:
        self.runs[run.path] = run
        self.acts.put(f"start {run.path}{run.incarnation}")
        if run.path in self.raising:
            raise OSError("no port")
        if run.path not in self.slow:
            run.started()

    def stop(self, run: ChildRun, reason: ExitReason, budget_seconds: float | None) -> None:
        self.acts.put(f"stop {run.path}{run.incarnation}")
        if run.path in self.raising:
            raise OSError("no pipe")
        if run.path not in self.stubborn:
            run.exited(reason)

    def kill(self, run: ChildRun) -> None:
        self.acts.put(f"kill {run.path}{run.incarnation}")
        run.exited(KILLED)

    def seen(self, count: int) -> list[str]:
        """Return the next acts, waiting for them."""
        return [self.acts.get(timeout=DEADLINE) for _ in range(count)]


class Tree:
    """A driver over a stage, started and in the end stopped."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.drivers: list[SupervisorDriver] = []
        self.reports: queue.SimpleQueue[tuple[str, Reported]] = queue.SimpleQueue()

    def driver(self, *children: ChildSpec, **options: Any) -> SupervisorDriver:
        driver = SupervisorDriver(
            Supervisor(children, **options),
            lambda spec: self.stage,
            on_report=lambda path, report: self.reports.put((path, report)),
        )
        self.drivers.append(driver)
        return driver

    def started(self, *children: ChildSpec, **options: Any) -> SupervisorDriver:
        driver = self.driver(*children, **options)
        driver.start(DEADLINE)
        return driver

    def report(self) -> tuple[str, str]:
        path, report = self.reports.get(timeout=DEADLINE)
        return path, report.kind


@pytest.fixture
def tree() -> Iterator[Tree]:
    made = Tree()
    yield made
    for driver in made.drivers:
        driver.kill()


def inner(*children: ChildSpec, **options: Any) -> ChildSpec:
    return ChildSpec(Supervisor(children, **options), name="sub")


def test_children_come_up_in_order_and_stop_in_reverse(tree: Tree) -> None:
    driver = tree.started(child("a"), inner(child("x"), child("y")), child("b"))
    assert tree.stage.seen(4) == ["start a1", "start sub/x1", "start sub/y1", "start b1"]
    assert driver.stop(DEADLINE) == SHUTDOWN
    assert tree.stage.seen(4) == ["stop b1", "stop sub/y1", "stop sub/x1", "stop a1"]
    assert driver.wait(0) == SHUTDOWN


def test_a_crashed_child_is_started_again(tree: Tree) -> None:
    tree.started(child("a"))
    tree.stage.runs["a"].exited(BOOM)
    assert tree.stage.seen(2) == ["start a1", "start a2"]
    assert [tree.report(), tree.report()] == [("a", "ended"), ("a", "restarting")]


def test_s10_a_subtree_that_gave_up_comes_back_and_counts_its_incarnations_on(tree: Tree) -> None:
    driver = tree.started(inner(child("x"), intensity=0))
    tree.stage.runs["sub/x"].exited(BOOM)
    assert tree.stage.seen(2) == ["start sub/x1", "start sub/x2"]
    reports = [tree.report() for _ in range(4)]
    assert reports == [("sub/x", "ended"), ("sub/x", "gave_up"), ("sub", "ended"), ("sub", "restarting")]
    view = driver.view()
    assert view is not None
    assert view.children[0].incarnation == 2


def test_s3_giving_up_escalates_to_the_end_of_the_tree(tree: Tree) -> None:
    driver = tree.started(inner(child("x"), intensity=0), intensity=0)
    tree.stage.runs["sub/x"].exited(BOOM)
    reason = driver.wait(DEADLINE)
    assert reason.kind == "intensity_exceeded"
    assert "child 'sub': intensity exceeded" in reason.text


def test_a_start_that_fails_raises_with_the_reason(tree: Tree) -> None:
    tree.stage.raising.append("sub/y")
    driver = tree.driver(child("a"), inner(child("x"), child("y")))
    with pytest.raises(StartFailed, match=r"child 'y'.*OSError: no port"):
        driver.start(DEADLINE)
    assert tree.stage.seen(5) == ["start a1", "start sub/x1", "start sub/y1", "stop sub/x1", "stop a1"]
    assert driver.wait(0).kind == "failed_to_start"


def test_a_start_that_takes_longer_than_the_caller_waits_goes_on(tree: Tree) -> None:
    tree.stage.slow.append("a")
    driver = tree.driver(child("a"))
    with pytest.raises(TimeoutError):
        driver.start(0.01)
    tree.stage.seen(1)
    tree.stage.runs["a"].started()
    assert driver.add_child(child("b")).result(DEADLINE) == 1


def test_a_child_whose_runner_cannot_stop_it_is_killed_after_its_budget(tree: Tree) -> None:
    driver = tree.started(child("a", shutdown=0.01))
    tree.stage.raising.append("a")
    assert driver.stop(DEADLINE) == SHUTDOWN
    assert tree.stage.seen(3) == ["start a1", "stop a1", "kill a1"]


def test_s7_a_child_that_ignores_the_request_is_killed_after_its_budget(tree: Tree) -> None:
    tree.stage.stubborn.append("sub/x")
    driver = tree.started(inner(child("x", shutdown=0.01)))
    driver.stop(DEADLINE)
    assert tree.stage.seen(3) == ["start sub/x1", "stop sub/x1", "kill sub/x1"]


def test_a_kill_reaches_the_whole_tree(tree: Tree) -> None:
    driver = tree.started(child("a"), inner(child("x")))
    driver.kill()
    assert driver.wait(DEADLINE) == KILLED
    assert sorted(tree.stage.seen(4)) == ["kill a1", "kill sub/x1", "start a1", "start sub/x1"]


def test_children_come_and_go(tree: Tree) -> None:
    driver = tree.started(inner(dynamic=True))
    assert driver.add_child(child("x"), "sub").result(DEADLINE) == 1
    assert driver.terminate_child("sub/x").result(DEADLINE) == 1
    assert driver.restart_child("sub/x").result(DEADLINE) == 2
    assert driver.remove_child("sub/x").result(DEADLINE) == 2
    assert tree.stage.seen(4) == ["start sub/x1", "stop sub/x1", "start sub/x2", "stop sub/x2"]
    view = driver.view("sub")
    assert view is not None
    assert view.children == ()


def test_a_whole_supervisor_can_come_and_go(tree: Tree) -> None:
    driver = tree.started()
    driver.add_child(inner(child("x"))).result(DEADLINE)
    driver.terminate_child("sub").result(DEADLINE)
    driver.delete_child("sub").result(DEADLINE)
    assert tree.stage.seen(2) == ["start sub/x1", "stop sub/x1"]
    # The next answer comes after the driver has forgotten it.
    with pytest.raises(RequestRefused, match="no supervisor at 'sub'"):
        driver.remove_child("sub/x").result(DEADLINE)
    assert driver.view("sub") is None


def test_a_request_that_cannot_be_fulfilled_says_why(tree: Tree) -> None:
    driver = tree.started(child("a"))
    with pytest.raises(RequestRefused, match="child 'a' is running"):
        driver.delete_child("a").result(DEADLINE)
    driver.stop(DEADLINE)
    with pytest.raises(RequestRefused, match="has ended"):
        driver.add_child(child("b")).result(DEADLINE)


def test_nobody_waits_for_a_tree_that_has_ended(tree: Tree) -> None:
    tree.stage.slow.append("b")
    driver = tree.started(child("a"))
    waiting = driver.add_child(child("b"))
    driver.kill()
    with pytest.raises(RequestRefused):
        waiting.result(DEADLINE)


def test_s11_a_monitor_is_called_once(tree: Tree) -> None:
    driver = tree.started(inner(child("x", restart="transient")))
    down: Future[ChildDown] = Future()
    driver.monitor("sub/x", down.set_result)
    tree.stage.runs["sub/x"].exited(NORMAL)
    assert down.result(DEADLINE).reason == NORMAL
    gone: Future[ChildDown] = Future()
    driver.monitor("nowhere/x", gone.set_result)
    assert gone.result(DEADLINE).reason == NO_SUCH_CHILD
    driver.stop(DEADLINE)
    late: Future[ChildDown] = Future()
    driver.monitor("sub/x", late.set_result)
    assert late.result(0).reason == NO_SUCH_CHILD


def test_a_forgotten_monitor_is_not_called(tree: Tree) -> None:
    driver = tree.started(child("a", restart="transient"))
    called: list[ChildDown] = []
    driver.demonitor("a", driver.monitor("a", called.append))
    tree.stage.runs["a"].exited(NORMAL)
    driver.stop(DEADLINE)
    assert called == []


def test_a_monitor_that_raises_does_no_harm(tree: Tree) -> None:
    driver = tree.started(child("a", restart="transient"))
    down: Future[ChildDown] = Future()

    def fail(_: ChildDown) -> None:
        raise ValueError("a mistake of the user")

    driver.monitor("a", fail)
    driver.monitor("a", down.set_result)
    tree.stage.runs["a"].exited(NORMAL)
    assert down.result(DEADLINE).name == "a"


def test_a_driver_that_fails_lets_go_of_those_who_wait() -> None:
    broken = threading.Event()

    def clock() -> Now:
        if broken.is_set():
            raise OSError("no clock")
        return system_now()

    stage = Stage()
    driver = SupervisorDriver(Supervisor([child("a")]), lambda spec: stage, clock=clock)
    driver.start(DEADLINE)
    broken.set()
    with pytest.raises(RequestRefused, match="driver failed"):
        driver.add_child(child("b")).result(DEADLINE)
    assert driver.wait(DEADLINE).kind == "crashed"
