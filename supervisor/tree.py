"""One supervisor, as a machine: it starts its children, restarts what ends, gives up, and stops them.

Owns every decision about the children of one supervisor; a tree is one machine for each. It is told what
happened (`events`) and answers with what to do; it never starts, stops or waits for anything itself.

The supervisor is

    stopped -> starting -> running -> stopping -> stopped

* *starting*: the children are started one after another, in the order of the spec; a dynamic supervisor's
  all at once. If one does not come up, those that did are stopped in reverse and the start has failed. What
  ends meanwhile is judged once all are up.
* *running*: an ended child is judged by its restart type. Each restart is an *attempt* that must pass the
  window (`intensity`), after the delay of the child's backoff. An attempt restarts the child's group: the
  living members are stopped, last first, then all are started in order. With a delay, the members are
  stopped at once and the attempt is made when it is over. A start that fails in an attempt leaves those
  before it up and is the next attempt, made at a `Tick`, never in the same step, so that a request to stop
  can come between. An end before the group in the meantime makes a larger group of it; one after it, of a
  child started by request, is taken along.
* *stopping*: because it was asked to, gave up, or a significant child ended. Children are stopped one by
  one, last first, each within its own budget and then killed; a dynamic supervisor's at once, under the
  longest of their budgets. Nothing is started any more.

Requests for single children (`requests`) wait while a group is being restarted or the supervisor starts,
at most `REQUESTS_WAITING_MAX` of them; otherwise they go on beside the rest.

What can never happen: two incarnations of a child at once; a supervisor that has ended before its children
have; a child started by a supervisor that stops; more attempts within a period than the intensity allows;
a monitor that fires twice. Reports about an incarnation that is gone are ignored, since runners race; one
about an incarnation that was never started raises `IllegalMove` and changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from ..transport.clock import MICROSECONDS, Now
from ..transport.errors import GreenroomError
from .events import (
    AddChild,
    ChildDown,
    ChildExited,
    ChildFailedToStart,
    ChildStarted,
    DeleteChild,
    Demonitor,
    KillRequested,
    Monitor,
    MonitorRefused,
    RemoveChild,
    RestartChild,
    StartSupervisor,
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
from .intensity import RestartWindow
from .monitors import MONITORS_MAX
from .moves import Moves
from .reasons import KILLED, NO_SUCH_CHILD, SHUTDOWN, ExitReason, failed_to_start, intensity_exceeded
from .requests import REQUESTS_WAITING_MAX, Request, Requests
from .roster import Child, ChildState, Fate
from .spec import Supervisor
from .strategy import comes_back, group, stops_the_supervisor
from .view import ChildView, SupervisorView


class IllegalMove(GreenroomError, RuntimeError):
    """Raised when a supervisor is told what cannot be true in its state; nothing has changed."""


class Phase(StrEnum):
    """What a supervisor is doing."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


class SupervisorMachine:
    """Decide for one supervisor what is started, restarted and stopped, and when."""

    def __init__(self, spec: Supervisor) -> None:
        self.spec = spec
        self._phase = Phase.STOPPED
        self._moves = Moves()
        self._roster = self._moves.roster
        self._requests = Requests(spec, self._moves)
        self._window = RestartWindow(spec.intensity, spec.period_microseconds)
        self._grouped = spec.strategy != "one_for_one"
        #: What is under way: to be stopped, from the end; then to be started, from the beginning.
        self._stops: list[str] = []
        self._starts: deque[str] = deque()
        #: The child whose delay the next attempt of a group waits for.
        self._pivot: str | None = None
        #: Ended before all were up: name, reason, draw.
        self._ended_early: list[tuple[str, ExitReason, float]] = []
        self._waiting_requests: deque[Request] = deque()
        self._reason = SHUTDOWN
        self._failed_to_start = False
        self._announced: int | None = None
        self._roster.reset(spec.children)
        self._handlers: dict[type[SupervisorEvent], Callable[[Any, int], None]] = {
            StartSupervisor: self._start,
            StopRequested: self._stop_requested,
            KillRequested: self._kill_requested,
            Tick: self._tick,
            ChildStarted: self._child_started,
            ChildFailedToStart: self._child_gone,
            ChildExited: self._child_gone,
            AddChild: self._request,
            TerminateChild: self._request,
            RestartChild: self._request,
            DeleteChild: self._request,
            RemoveChild: self._request,
            Monitor: self._monitor,
            Demonitor: self._demonitor,
        }

    def apply(self, event: SupervisorEvent, now: Now) -> list[SupervisorEffect]:
        """Take one event; return what is to be done, in order.

        Raises `IllegalMove`, with nothing changed, if the event cannot be true.
        """
        self._handlers[type(event)](event, now.boot)
        due = self._roster.next_due()
        if due != self._announced:
            self._announced = due
            if due is not None:
                self._moves.effects.append(WakeAt(due))
        return self._moves.take_effects()

    @property
    def phase(self) -> Phase:
        """What the supervisor is doing."""
        return self._phase

    def child(self, name: str) -> ChildView | None:
        """Return what one child is doing, or None if there is none of this name."""
        child = self._roster.get(name)
        return None if child is None else _view(child)

    def view(self, now: Now) -> SupervisorView:
        """Return what the supervisor and its children are doing."""
        return SupervisorView(
            state=self._phase,
            strategy=self.spec.strategy,
            restarts=self._window.count(now.boot),
            intensity=self.spec.intensity,
            period_seconds=self.spec.period,
            children=tuple(_view(child) for child in self._roster),
        )

    # ---- the life of the supervisor ----

    def _start(self, _: StartSupervisor, now: int) -> None:
        if self._phase is not Phase.STOPPED:
            raise IllegalMove(f"a supervisor can be started when it is stopped; this one is {self._phase}")
        self._phase = Phase.STARTING
        self._failed_to_start = False
        self._window = RestartWindow(self.spec.intensity, self.spec.period_microseconds)
        self._roster.reset(self.spec.children)
        for child in self._roster:
            child.state = ChildState.WAITING
            if self.spec.dynamic:
                self._moves.begin(child, now)
        self._starts = deque(self._roster.names())
        self._advance(now)

    def _started(self, now: int) -> None:
        """All children are up: say so, then judge those that have ended since they were."""
        self._phase = Phase.RUNNING
        self._moves.effects.append(SupervisorStarted())
        ended_early, self._ended_early = self._ended_early, []
        for name, reason, jitter in ended_early:
            child = self._roster.get(name)
            # A group restart, or the end of the supervisor, may have taken care of it by now.
            if child is not None and child.state is ChildState.ENDED:
                self._child_ended(child, reason, jitter, now)

    def _stop_requested(self, event: StopRequested, now: int) -> None:
        if self._phase in (Phase.STARTING, Phase.RUNNING):
            self._stop_all(event.reason, now)
            self._advance(now)

    def _kill_requested(self, _: KillRequested, now: int) -> None:
        if self._phase is Phase.STOPPED:
            return
        for child in reversed(self._roster):
            if child.alive:
                self._moves.kill(child)
        if self._phase is not Phase.STOPPING:
            self._stop_all(KILLED, now)
        self._reason = KILLED
        self._advance(now)

    def _stop_all(self, reason: ExitReason, now: int) -> None:
        """Begin to stop; what lives is stopped by `_advance`, what waits is down for good."""
        self._phase = Phase.STOPPING
        self._reason = reason
        self._pivot = None
        self._starts.clear()
        self._ended_early.clear()
        self._stops = [child.spec.name for child in self._roster if child.alive]
        for child in reversed(self._roster):
            if child.alive:
                child.fate = Fate.STAYS
            else:
                self._moves.settle(child)
        while self._waiting_requests:
            self._refuse_now(self._waiting_requests.popleft())
        if self.spec.dynamic:
            self._stop_at_once(now)

    def _stop_at_once(self, now: int) -> None:
        """Ask all to stop under one timer, the longest budget among them."""
        living = [child for child in self._roster if child.alive and child.state is not ChildState.STOPPING]
        budgets = [child.spec.shutdown_microseconds for child in living]
        limited = [budget for budget in budgets if budget is not None]
        longest = max(limited, default=0) if len(limited) == len(budgets) else None
        for child in reversed(living):
            self._moves.stop(child, now, 0 if child.spec.shutdown_microseconds == 0 else longest)

    def _stopped(self) -> None:
        """All children are gone."""
        self._phase = Phase.STOPPED
        ended = SupervisorFailedToStart if self._failed_to_start else SupervisorExited
        self._moves.effects.append(ended(self._reason))

    # ---- what is under way ----

    def _advance(self, now: int) -> None:
        """Take the next step of what is under way, as far as it goes without waiting."""
        while not self._stops_wait(now):
            if self._phase is Phase.STOPPING:
                self._stopped()
            if self._phase is Phase.STOPPED or self._starts_wait(now):
                return
            if self._phase is Phase.STARTING:
                self._started(now)
            elif self._waiting_requests:
                self._fulfil(self._waiting_requests.popleft(), now)
            else:
                return

    def _stops_wait(self, now: int) -> bool:
        """Stop the last that is to be stopped; return whether one is still there."""
        while self._stops:
            child = self._roster.get(self._stops[-1])
            if child is not None and child.alive:
                if child.state is not ChildState.STOPPING:
                    self._moves.stop(child, now, child.spec.shutdown_microseconds)
                return True
            self._stops.pop()
        return False

    def _starts_wait(self, now: int) -> bool:
        """Start the first that is to be started; return whether one is not up yet."""
        while self._starts:
            child = self._roster.get(self._starts[0])
            if child is not None and child.state is ChildState.WAITING:
                # It may have a delay of its own, from a failure before this restart of its group.
                if child.due is None or child.due <= now:
                    self._moves.begin(child, now)
                return True
            # One whose start timed out is being killed; its end is a failed start.
            if child is not None and child.alive and child.state is not ChildState.RUNNING:
                return True
            self._starts.popleft()
        return False

    def _tick(self, _: Tick, now: int) -> None:
        self._announced = None
        while (child := self._roster.take_due(now)) is not None:
            if child.state is ChildState.WAITING:
                if not self._grouped or child.spec.name == self._pivot:
                    self._attempt(child, now)
            elif child.state is ChildState.STARTING:
                child.timed_out = True
                self._moves.report("start_timed_out", child, KILLED)
                self._moves.kill(child)
            else:
                self._moves.report("killed", child, KILLED)
                self._moves.kill(child)
        self._advance(now)

    # ---- what happens to children ----

    def _current(self, event: ChildStarted | ChildExited | ChildFailedToStart) -> Child | None:
        """Return the child that a report is about, or None if that incarnation is gone already."""
        child = self._roster.get(event.name)
        if child is None or event.incarnation < child.incarnation:
            return None
        if event.incarnation > child.incarnation:
            raise IllegalMove(
                f"child {event.name!r} was reported as incarnation {event.incarnation}; "
                f"the latest that was started is {child.incarnation}"
            )
        return child if child.alive else None

    def _child_started(self, event: ChildStarted, now: int) -> None:
        child = self._current(event)
        if child is not None and child.state is ChildState.STARTING:
            self._moves.came_up(child, now)
            self._advance(now)

    def _child_gone(self, event: ChildExited | ChildFailedToStart, now: int) -> None:
        child = self._current(event)
        if child is None:
            return
        before, reason = child.state, event.reason
        if child.timed_out:
            reason = failed_to_start(f"it was not up within {child.spec.start_timeout} s")
        self._moves.gone(child, reason)
        if child.fate is not None:
            if before is not ChildState.STOPPING:
                self._moves.report("ended", child, reason)
            elif reason.abnormal and not child.killed:
                self._moves.report("stopped_badly", child, reason)
            self._moves.stopped(child)
        elif before is ChildState.RUNNING:
            if self._phase is Phase.STARTING:
                child.state = ChildState.ENDED
                self._ended_early.append((event.name, reason, event.jitter))
            else:
                self._child_ended(child, reason, event.jitter, now)
        else:
            self._child_failed_to_start(child, reason, event.jitter, now)
        self._advance(now)

    def _child_ended(self, child: Child, reason: ExitReason, jitter: float, now: int) -> None:
        """A child that was up has ended by itself."""
        self._moves.report("ended", child, reason)
        if comes_back(child.spec.restart, reason):
            self._restart(child, jitter, now)
            return
        if child.spec.restart == "temporary":
            self._moves.delete(child)
        else:
            self._moves.settle(child)
        if child.spec.significant:
            others_left = any(other.spec.significant and other.state is not ChildState.IDLE for other in self._roster)
            if stops_the_supervisor(self.spec.auto_shutdown, others_left):
                self._stop_all(SHUTDOWN, now)

    def _child_failed_to_start(self, child: Child, reason: ExitReason, jitter: float, now: int) -> None:
        """A child that was not yet up is gone."""
        self._moves.report("failed_to_start", child, reason)
        name = child.spec.name
        if child.start_request is not None:
            self._moves.refuse(child.start_request, f"child {name!r} did not start: {reason}")
            child.start_request = None
            if child.added_by_request:
                self._moves.delete(child)
            else:
                self._moves.settle(child)
        elif self._phase is Phase.STARTING:
            self._failed_to_start = True
            self._stop_all(failed_to_start(f"child {name!r}: {reason}"), now)
        else:
            self._retry(child, jitter, now)

    # ---- restarts ----

    def _restart(self, child: Child, jitter: float, now: int) -> None:
        """Restart a child that ended, with its group: at once, or after its delay."""
        delay = self._put_back(child, jitter, now)
        if self._grouped:
            # They do not run on without the one that they may depend on, however long the delay.
            members = self._doom_group(child)
            if self._pivot is not None and self._pivot not in members:
                return  # one before it waits already, and takes it along
            self._pivot = child.spec.name
            self._starts.clear()
        if delay == 0:
            self._attempt(child, now)

    def _retry(self, child: Child, jitter: float, now: int) -> None:
        """Restart a child whose start failed, at a `Tick`; those that are up stay so until then."""
        delay = self._put_back(child, jitter, now)
        self._roster.set_due(child, now + delay)
        if self._grouped:
            self._pivot = child.spec.name
            self._starts.clear()

    def _put_back(self, child: Child, jitter: float, now: int) -> int:
        """Let a child wait for its next start; return the delay until then."""
        child.state = ChildState.WAITING
        delay = child.failures.failed(child.spec.backoff, now, jitter)
        self._roster.set_due(child, now + delay if delay else None)
        return delay

    def _attempt(self, child: Child, now: int) -> None:
        """Count a restart attempt, and make it or give up."""
        if not self._window.attempt(now):
            self._give_up(child, now)
            return
        self._moves.report("restarting", child, child.last_reason)
        if not self._grouped:
            self._moves.begin(child, now)
            return
        self._pivot = None
        names = self._doom_group(child)
        for member in map(self._roster.get, names):
            if member is not None and not member.alive:
                member.state = ChildState.WAITING
        self._starts = deque(names)

    def _doom_group(self, child: Child) -> list[str]:
        """Let the living members of a child's group be stopped; return all of its members."""
        names = group(self.spec.strategy, self._roster.names(), child.spec.name)
        self._stops = []
        for member in map(self._roster.get, names):
            if member is not None and member.alive:
                self._moves.doom(member)
                self._stops.append(member.spec.name)
        return names

    def _give_up(self, child: Child, now: int) -> None:
        seconds = self._window.period / MICROSECONDS
        reason = intensity_exceeded(
            f"more than {self._window.intensity} restarts in {seconds:g} s; "
            f"the last was of child {child.spec.name!r}: {child.last_reason}"
        )
        self._moves.report("gave_up", child, reason)
        self._stop_all(reason, now)

    # ---- requests and monitors ----

    def _request(self, event: Request, now: int) -> None:
        if self._phase in (Phase.STOPPED, Phase.STOPPING):
            self._refuse_now(event)
        elif self._phase is Phase.RUNNING and not self._stops and not self._starts:
            self._fulfil(event, now)
        elif len(self._waiting_requests) < REQUESTS_WAITING_MAX:
            self._waiting_requests.append(event)
        else:
            self._moves.refuse(
                event.request,
                f"{REQUESTS_WAITING_MAX} requests wait for this supervisor, which is busy; ask again later",
            )

    def _fulfil(self, request: Request, now: int) -> None:
        self._requests.apply(request, now)
        if self._pivot is None:
            return
        pivot = self._roster.get(self._pivot)
        if pivot is not None and pivot.state is ChildState.WAITING:
            return
        # The child that its group waited for was terminated; the next one must not wait for ever.
        self._pivot = None
        for child in self._roster:
            if child.state is ChildState.WAITING:
                self._pivot = child.spec.name
                self._roster.set_due(child, max(now, child.due or now))
                return

    def _refuse_now(self, request: Request) -> None:
        self._moves.refuse(request.request, f"the supervisor is {self._phase}; its children cannot be changed")

    def _monitor(self, event: Monitor, _: int) -> None:
        if event.monitor in self._moves.monitors:
            raise IllegalMove(f"monitor {event.monitor} is registered already; numbers must differ")
        child = self._roster.get(event.name)
        if child is None or event.incarnation not in (None, child.incarnation):
            down = ChildDown((event.monitor,), event.name, 0, NO_SUCH_CHILD)
            self._moves.effects.append(down)
        elif child.alive or (event.incarnation is None and child.state is not ChildState.IDLE):
            if not self._moves.monitors.add(event.monitor, event.name, event.incarnation):
                error = f"{MONITORS_MAX} monitors watch the children of this supervisor, its limit"
                self._moves.effects.append(MonitorRefused(event.monitor, error))
        else:
            down = ChildDown((event.monitor,), event.name, child.incarnation, child.last_reason)
            self._moves.effects.append(down)

    def _demonitor(self, event: Demonitor, _: int) -> None:
        self._moves.monitors.remove(event.monitor)


def _view(child: Child) -> ChildView:
    return ChildView(
        name=child.spec.name,
        state=child.state,
        incarnation=child.incarnation,
        restart=child.spec.restart,
        failures=child.failures.in_a_row,
        last_reason=child.last_reason,
    )
