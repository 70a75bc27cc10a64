"""What can be done with one child: start it, stop it, kill it, let it go.

Owns the effects of the current step and every move of a single child's state, together with what always
goes with it: the deadline, the monitors that fire, the answers to those who asked. Which child and when is
decided by `tree` and `requests`.
"""

from __future__ import annotations

from .events import (
    ChildDown,
    KillChild,
    Replied,
    Reported,
    ReportKind,
    StartChild,
    StopChild,
    SupervisorEffect,
)
from .monitors import Monitors
from .reasons import SHUTDOWN, ExitReason
from .roster import Child, ChildState, Fate, Roster


class Moves:
    """The children, their monitors, and the effects that the step has had so far, in order."""

    __slots__ = ("effects", "monitors", "roster")

    def __init__(self) -> None:
        self.roster = Roster()
        self.monitors = Monitors()
        self.effects: list[SupervisorEffect] = []

    def take_effects(self) -> list[SupervisorEffect]:
        """Return the effects of this step and begin the next."""
        effects, self.effects = self.effects, []
        return effects

    # ---- up ----

    def begin(self, child: Child, now: int) -> None:
        """Start the next incarnation of a child that does not run."""
        child.incarnation += 1
        child.state = ChildState.STARTING
        child.fate = None
        child.killed = child.timed_out = False
        child.failures.starts_again()
        budget = child.spec.start_timeout_microseconds
        self.roster.set_due(child, None if budget is None else now + budget)
        self.effects.append(StartChild(child.spec.name, child.incarnation, child.spec))

    def came_up(self, child: Child, now: int) -> None:
        """Note that a starting child runs, and answer who asked for it."""
        child.state = ChildState.RUNNING
        child.added_by_request = False
        child.failures.came_up(now)
        self.roster.set_due(child, None)
        if child.start_request is not None:
            self.reply(child.start_request, child.incarnation)
            child.start_request = None

    # ---- down ----

    def doom(self, child: Child) -> None:
        """Mark a living child that is to be stopped for a restart of its group."""
        dropped = child.spec.restart == "temporary" or child.added_by_request or child.fate is Fate.LEAVES
        child.fate = Fate.LEAVES if dropped else Fate.RETURNS

    def stop(self, child: Child, now: int, budget: int | None) -> None:
        """Ask a living child to stop within `budget` microseconds; a budget of 0 kills it."""
        if budget == 0:
            self.kill(child)
            return
        child.state = ChildState.STOPPING
        self.roster.set_due(child, None if budget is None else now + budget)
        self.effects.append(StopChild(child.spec.name, child.incarnation, SHUTDOWN, budget))

    def kill(self, child: Child) -> None:
        """Kill a living child; a second time changes nothing."""
        if child.killed:
            return
        child.killed = True
        child.state = ChildState.STOPPING
        self.roster.set_due(child, None)
        self.effects.append(KillChild(child.spec.name, child.incarnation))

    def gone(self, child: Child, reason: ExitReason) -> None:
        """Note that the incarnation is no more; whoever watched just this one is told."""
        child.state = ChildState.IDLE
        child.last_reason = reason
        self.roster.set_due(child, None)
        self._fire(child, child.incarnation)

    def settle(self, child: Child) -> None:
        """Leave a child that does not run as it is: down for good, as far as the supervisor is concerned."""
        child.state = ChildState.IDLE
        self.roster.set_due(child, None)
        self._fire(child, None)

    def delete(self, child: Child) -> None:
        """Drop a child that does not run, with its spec."""
        self.settle(child)
        self.roster.delete(child.spec.name)

    def stopped(self, child: Child) -> None:
        """Let a child that its supervisor meant to stop meet its fate, and answer who asked for it."""
        for request in child.stop_requests:
            self.reply(request, child.incarnation)
        child.stop_requests.clear()
        if child.start_request is not None:
            name = child.spec.name
            self.refuse(child.start_request, f"child {name!r} was stopped before it was up; ask again")
            child.start_request = None
        fate, child.fate = child.fate, None
        if fate is Fate.LEAVES:
            self.delete(child)
        elif fate is Fate.RETURNS:
            child.state = ChildState.WAITING
        else:
            self.settle(child)

    # ---- words ----

    def reply(self, request: int, incarnation: int) -> None:
        """Answer a request that was fulfilled."""
        self.effects.append(Replied(request, incarnation))

    def refuse(self, request: int, error: str) -> None:
        """Answer a request that was not."""
        self.effects.append(Replied(request, 0, error))

    def report(self, kind: ReportKind, child: Child, reason: ExitReason) -> None:
        """Tell the log and the metrics."""
        self.effects.append(Reported(kind, child.spec.name, child.incarnation, reason))

    def _fire(self, child: Child, incarnation: int | None) -> None:
        watchers = self.monitors.take(child.spec.name, incarnation)
        if watchers:
            self.effects.append(ChildDown(watchers, child.spec.name, child.incarnation, child.last_reason))
