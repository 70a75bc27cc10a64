"""Runs a tree of supervisors for real: one thread, one queue, a deadline to wait for.

Owns the thread, the clock, the draws for jitter and the wiring between a supervisor and its parent: a child
whose target is a `Supervisor` becomes a machine of its own, and its start and end are told to the parent's
machine as those of any child. All other children are run by a `Runner`, handed in. It decides nothing.

A child is addressed by its path: the names from the root's children down, joined by "/".
"""

from __future__ import annotations

import functools
import itertools
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import msgspec

from ..transport.clock import MICROSECONDS, Clock, system_now
from ..transport.errors import GreenroomError
from .events import (
    AddChild,
    ChildDown,
    ChildExited,
    ChildFailedToStart,
    DeleteChild,
    Demonitor,
    KillChild,
    KillRequested,
    Monitor,
    MonitorRefused,
    RemoveChild,
    Replied,
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
from .reasons import NO_SUCH_CHILD, ExitReason, crashed, failed_to_start
from .requests import Request
from .runner import ChildRun, Runner
from .spec import ChildSpec, Supervisor
from .tree import SupervisorMachine
from .view import SupervisorView

#: The queue waits on a clock that stands still while the machine sleeps; boot time does not. After a sleep
#: a deadline is late by at most this.
LONGEST_WAIT_SECONDS = 1.0

_log = logging.getLogger("greenroom.supervisor")


class StartFailed(GreenroomError):
    """Raised when a tree of supervisors did not come up; `reason` tells which child and why."""

    def __init__(self, reason: ExitReason) -> None:
        self.reason = reason
        super().__init__(f"the supervisor did not start: {reason}")


class RequestRefused(GreenroomError):
    """Raised when a supervisor does not do what was asked for one of its children."""


class SupervisorDriver:
    """Run one supervisor, with all the supervisors below it, in a thread of its own."""

    def __init__(
        self,
        spec: Supervisor,
        runner_for: Callable[[ChildSpec], Runner],
        *,
        name: str = "supervisor",
        clock: Clock = system_now,
        on_report: Callable[[str, Reported], None] | None = None,
    ) -> None:
        """Prepare to run `spec`; `runner_for` says who runs a child.

        `on_report` is called by the driver's thread with the path of a child and what happened to it, by
        default it is logged.
        """
        self._runner_for = runner_for
        self._clock = clock
        self._on_report = on_report or _log_report
        self._events: queue.SimpleQueue[tuple[str, SupervisorEvent]] = queue.SimpleQueue()
        #: Machines by the path of their supervisor; the root's is "".
        self._machines = {"": SupervisorMachine(spec)}
        self._wakes: dict[str, int] = {}
        #: Who runs the latest incarnation of a child; nobody runs a supervisor but this driver.
        self._runs: dict[str, tuple[Runner | None, ChildRun]] = {}
        self._numbers = itertools.count(1)
        #: Guards the machines, the replies, the monitors and the end against callers in other threads.
        self._lock = threading.Lock()
        self._replies: dict[int, Future[int]] = {}
        self._monitors: dict[int, tuple[str, Callable[[ChildDown], None]]] = {}
        self._root_reason: ExitReason | None = None
        self._up: Future[None] = Future()
        self._down: Future[ExitReason] = Future()
        self._actions: dict[type[SupervisorEffect], Callable[[str, Any], None]] = {
            StartChild: self._start_child,
            StopChild: self._stop_child,
            KillChild: self._kill_child,
            ChildDown: self._tell_monitors,
            MonitorRefused: self._monitor_refused,
            Replied: self._reply,
            SupervisorStarted: self._supervisor_started,
            SupervisorFailedToStart: self._supervisor_failed,
            SupervisorExited: self._supervisor_exited,
            Reported: self._report,
            WakeAt: self._wake_at,
        }
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    # ---- the life of the tree ----

    def start(self, timeout: float | None = None) -> None:
        """Start all children and return when they are up.

        Raises `StartFailed` if one does not come up, `TimeoutError` after `timeout` seconds.
        """
        self._thread.start()
        self.post(StartSupervisor())
        self._up.result(timeout)

    def stop(self, timeout: float | None = None) -> ExitReason:
        """Stop all children, each within its budget, and return why the root ended.

        Raises `TimeoutError` after `timeout` seconds; the stop goes on.
        """
        self.post(StopRequested())
        return self._down.result(timeout)

    def kill(self) -> None:
        """Kill all children; `wait` tells when they are gone."""
        self.post(KillRequested())

    def wait(self, timeout: float | None = None) -> ExitReason:
        """Wait until the root has ended, and return why.

        Raises `TimeoutError` after `timeout` seconds.
        """
        return self._down.result(timeout)

    def post(self, event: SupervisorEvent, path: str = "") -> None:
        """Tell the supervisor at `path` that something happened; from any thread, never waits."""
        self._events.put((path, event))

    def view(self, path: str = "") -> SupervisorView | None:
        """Return what the supervisor at `path` and its children are doing, or None if there is none."""
        with self._lock:
            machine = self._machines.get(path)
            return None if machine is None else machine.view(self._clock())

    # ---- children, each answered by a future that holds an incarnation or raises RequestRefused ----

    def add_child(self, spec: ChildSpec, under: str = "") -> Future[int]:
        """Add a child to the supervisor at `under`; done when it is up."""
        return self._ask(under, lambda number: AddChild(number, spec))

    def terminate_child(self, path: str) -> Future[int]:
        """Stop a child and keep its spec; done when it is gone."""
        parent, name = _split(path)
        return self._ask(parent, lambda number: TerminateChild(number, name))

    def restart_child(self, path: str) -> Future[int]:
        """Start a child that finished or was terminated; done when it is up."""
        parent, name = _split(path)
        return self._ask(parent, lambda number: RestartChild(number, name))

    def delete_child(self, path: str) -> Future[int]:
        """Drop the spec of a child that does not run."""
        parent, name = _split(path)
        return self._ask(parent, lambda number: DeleteChild(number, name))

    def remove_child(self, path: str) -> Future[int]:
        """Stop a child, if it runs, and drop its spec; done when it is gone."""
        parent, name = _split(path)
        return self._ask(parent, lambda number: RemoveChild(number, name))

    def monitor(self, path: str, callback: Callable[[ChildDown], None], *, incarnation: int | None = None) -> int:
        """Call `callback` once, in the driver's thread, when a child is down for good, or, with
        `incarnation`, when that one has ended; soon if it is so already. Return a number for `demonitor`.
        """
        parent, name = _split(path)
        number = next(self._numbers)
        with self._lock:
            ended = self._down.done()
            if not ended:
                self._monitors[number] = (name, callback)
                self.post(Monitor(number, name, incarnation), parent)
        if ended:
            callback(ChildDown((number,), name, 0, NO_SUCH_CHILD))
        return number

    def demonitor(self, path: str, number: int) -> None:
        """Forget a monitor of the child at `path`; it fires no more."""
        with self._lock:
            self._monitors.pop(number, None)
        self.post(Demonitor(number), _split(path)[0])

    def _ask(self, path: str, request: Callable[[int], Request]) -> Future[int]:
        number = next(self._numbers)
        future: Future[int] = Future()
        future.set_running_or_notify_cancel()  # what was asked cannot be taken back
        with self._lock:
            if self._down.done():
                future.set_exception(RequestRefused("the supervisor has ended; start it again"))
            else:
                self._replies[number] = future
                self.post(request(number), path)
        return future

    # ---- the thread ----

    def _run(self) -> None:
        reason = crashed("its driver failed; the log tells why")
        try:
            while self._root_reason is None:
                self._step()
            reason = self._root_reason
        except BaseException:
            # Whoever waits for the tree learns of it by the reason, and the log of why. It is not raised
            # again: there is nobody above in this thread.
            _log.critical("the driver of a supervisor failed; its children run unwatched", exc_info=True)
        finally:
            self._end(reason)

    def _step(self) -> None:
        """Wait; apply the events that came; then wake the machines that are due."""
        try:
            path, event = self._events.get(timeout=self._wait_seconds())
        except queue.Empty:
            pass
        else:
            # Only what is here by now: a flood of events must not hold up the deadlines.
            waiting = self._events.qsize()
            self._apply(path, event)
            for _ in range(waiting):
                self._apply(*self._events.get())
        boot = self._clock().boot
        for path in [path for path, due in self._wakes.items() if due <= boot]:
            del self._wakes[path]
            self._apply(path, Tick())

    def _wait_seconds(self) -> float | None:
        due = min(self._wakes.values(), default=None)
        if due is None:
            return None
        return min(max(due - self._clock().boot, 0) / MICROSECONDS, LONGEST_WAIT_SECONDS)

    def _apply(self, path: str, event: SupervisorEvent) -> None:
        machine = self._machines.get(path)
        if machine is None:
            self._answer_for_nobody(path, event)
            return
        with self._lock:
            effects = machine.apply(event, self._clock())
        for effect in effects:
            self._actions[type(effect)](path, effect)
        if isinstance(event, ChildExited | ChildFailedToStart | DeleteChild | RemoveChild):
            self._forget(machine, _join(path, event.name), event.name)

    def _answer_for_nobody(self, path: str, event: SupervisorEvent) -> None:
        if isinstance(event, Monitor):
            self._tell_monitors(path, ChildDown((event.monitor,), event.name, 0, NO_SUCH_CHILD))
        elif isinstance(event, Request):
            self._reply(path, Replied(event.request, 0, f"there is no supervisor at {path!r}"))

    def _forget(self, parent: SupervisorMachine, path: str, name: str) -> None:
        """Drop what is kept of a child whose spec was dropped."""
        if parent.child(name) is not None:
            return
        self._runs.pop(path, None)
        self._wakes.pop(path, None)
        with self._lock:
            self._machines.pop(path, None)

    def _end(self, reason: ExitReason) -> None:
        """The root has ended: let go of everybody who waits."""
        with self._lock:
            self._down.set_result(reason)
            replies, self._replies = self._replies, {}
            monitors, self._monitors = self._monitors, {}
        if not self._up.done():
            self._up.set_exception(StartFailed(reason))
        for future in replies.values():
            future.set_exception(RequestRefused(f"the supervisor has ended: {reason}"))
        for number, (name, callback) in monitors.items():
            _call(callback, ChildDown((number,), name, 0, NO_SUCH_CHILD))

    # ---- effects ----

    def _start_child(self, path: str, effect: StartChild) -> None:
        spec, place = effect.spec, _join(path, effect.name)
        run = ChildRun(place, spec, effect.incarnation, functools.partial(self.post, path=path))
        if isinstance(spec.target, Supervisor):
            self._runs[place] = (None, run)
            if place not in self._machines:
                with self._lock:
                    self._machines[place] = SupervisorMachine(spec.target)
            # A restarted one keeps its machine, and by that the incarnations of its children.
            self.post(StartSupervisor(), place)
            return
        try:
            runner = self._runner_for(spec)
            self._runs[place] = (runner, run)
            runner.start(run)
        except Exception as error:
            # The supervisor above learns of it, and with that whoever watches the child.
            _log.exception("the runner of child %r failed to start it", place)
            run.failed_to_start(failed_to_start(f"{type(error).__name__}: {error}"))

    def _stop_child(self, path: str, effect: StopChild) -> None:
        place = _join(path, effect.name)
        runner, run = self._runs[place]
        if runner is None:
            self.post(StopRequested(effect.reason), place)
            return
        budget = None if effect.budget is None else effect.budget / MICROSECONDS
        try:
            runner.stop(run, effect.reason, budget)
        except Exception:
            # Nobody but the log needs to know: the child is killed when its budget has run out.
            _log.exception("the runner of child %r failed to stop it", place)

    def _kill_child(self, path: str, effect: KillChild) -> None:
        place = _join(path, effect.name)
        runner, run = self._runs[place]
        if runner is None:
            self.post(KillRequested(), place)
            return
        try:
            runner.kill(run)
        except Exception:
            # Only the log learns of it: a child that cannot be killed must not be started twice.
            _log.exception("the runner of child %r failed to kill it; its supervisor waits for it", place)

    def _supervisor_started(self, path: str, _: SupervisorStarted) -> None:
        if path:
            self._runs[path][1].started()
        else:
            self._up.set_result(None)

    def _supervisor_failed(self, path: str, effect: SupervisorFailedToStart) -> None:
        if path:
            self._runs[path][1].failed_to_start(effect.reason)
        else:
            self._root_reason = effect.reason

    def _supervisor_exited(self, path: str, effect: SupervisorExited) -> None:
        if path:
            self._runs[path][1].exited(effect.reason)
        else:
            self._root_reason = effect.reason

    def _reply(self, _: str, effect: Replied) -> None:
        with self._lock:
            future = self._replies.pop(effect.request)
        if effect.error is None:
            future.set_result(effect.incarnation)
        else:
            future.set_exception(RequestRefused(effect.error))

    def _tell_monitors(self, _: str, effect: ChildDown) -> None:
        for number in effect.monitors:
            with self._lock:
                watcher = self._monitors.pop(number, None)
            if watcher is not None:
                _call(watcher[1], msgspec.structs.replace(effect, monitors=(number,)))

    def _monitor_refused(self, path: str, effect: MonitorRefused) -> None:
        with self._lock:
            self._monitors.pop(effect.monitor, None)
        _log.error("a monitor under %r was refused: %s", path, effect.error)

    def _report(self, path: str, effect: Reported) -> None:
        _call(functools.partial(self._on_report, _join(path, effect.name)), effect)

    def _wake_at(self, path: str, effect: WakeAt) -> None:
        self._wakes[path] = effect.boot


def _call(callback: Callable[[Any], None], argument: object) -> None:
    try:
        callback(argument)
    except Exception:
        # A callback of the user must not take the tree down; its author learns of it by the log.
        _log.exception("a callback of the supervisor failed")


def _log_report(path: str, report: Reported) -> None:
    level = logging.INFO if report.kind == "ended" and not report.reason.abnormal else logging.WARNING
    words = report.kind.replace("_", " ")
    _log.log(level, "child %s (incarnation %d) %s: %s", path, report.incarnation, words, report.reason)


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _split(path: str) -> tuple[str, str]:
    parent, _, name = path.rpartition("/")
    return parent, name
