"""Children that are threads."""

from __future__ import annotations

import threading
from typing import Any

from greenroom.supervisor.driver import SupervisorDriver
from greenroom.supervisor.events import ChildDown
from greenroom.supervisor.reasons import KILLED, NORMAL, SHUTDOWN
from greenroom.supervisor.spec import ChildSpec, Supervisor
from greenroom.supervisor.threads import ThreadChild, ThreadRunner

DEADLINE = 20.0


def serve(child: ThreadChild, *seen: threading.Event) -> None:
    child.started()
    for event in seen:
        event.set()
    child.stopping.wait(DEADLINE)


def driver(*children: ChildSpec, **options: Any) -> SupervisorDriver:
    runner = ThreadRunner()
    made = SupervisorDriver(Supervisor(children, **options), lambda spec: runner)
    made.start(DEADLINE)
    return made


def down(tree: SupervisorDriver, path: str) -> tuple[threading.Event, list[ChildDown]]:
    """Watch one incarnation; return what is set and filled when it is down."""
    happened, told = threading.Event(), list[ChildDown]()

    def watch(effect: ChildDown) -> None:
        told.append(effect)
        happened.set()

    tree.monitor(path, watch, incarnation=1)
    return happened, told


def test_a_thread_runs_its_target_with_its_arguments_until_it_is_asked_to_stop() -> None:
    seen = threading.Event()
    tree = driver(ChildSpec(serve, seen))
    assert seen.wait(DEADLINE)
    happened, told = down(tree, "serve")
    assert tree.stop(DEADLINE) == SHUTDOWN
    assert happened.wait(DEADLINE)
    assert told[0].reason == SHUTDOWN


def test_an_exception_is_a_crash_and_a_return_is_not() -> None:
    go = threading.Event()

    def end(child: ThreadChild, *, error: bool) -> None:
        child.started()
        go.wait(DEADLINE)
        if error:
            raise ValueError("boom")

    tree = driver(
        ChildSpec(end, name="a", restart="temporary", kwargs={"error": True}),
        ChildSpec(end, name="b", restart="temporary", kwargs={"error": False}),
    )
    (a, told_a), (b, told_b) = down(tree, "a"), down(tree, "b")
    go.set()
    assert a.wait(DEADLINE)
    assert b.wait(DEADLINE)
    assert told_a[0].reason.text == "ValueError: boom"
    assert told_b[0].reason == NORMAL
    tree.stop(DEADLINE)


def test_s7_a_thread_that_does_not_stop_within_its_budget_is_abandoned() -> None:
    free = threading.Event()

    def stuck(child: ThreadChild) -> None:
        child.started()
        free.wait(DEADLINE)

    tree = driver(ChildSpec(stuck, shutdown=0.01))
    happened, told = down(tree, "stuck")
    assert tree.stop(DEADLINE) == SHUTDOWN
    assert happened.wait(DEADLINE)
    assert told[0].reason == KILLED
    free.set()


def test_an_abandoned_thread_is_heard_no_more() -> None:
    free, over = threading.Event(), threading.Event()

    def late(child: ThreadChild) -> None:
        free.wait(DEADLINE)
        child.started()
        over.set()

    tree = driver(ChildSpec(serve))
    added = tree.add_child(ChildSpec(late, shutdown=0.01))
    tree.terminate_child("late").result(DEADLINE)
    assert added.exception(DEADLINE) is not None
    free.set()
    assert over.wait(DEADLINE)
    view = tree.view()
    assert view is not None
    assert [child.name for child in view.children] == ["serve"]
    tree.stop(DEADLINE)
