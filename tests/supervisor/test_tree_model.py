"""The supervisor machine against a model that does everything at once.

Where every start and stop is answered immediately, a supervisor is a simple recursive program: `Model` is
that program, written straight from rules S1 to S7, S9 and S10. The machine must start, stop and kill the
same incarnations in the same order, end with the same reason, and keep the same children alive (S13 b, c).
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from greenroom.supervisor import events
from greenroom.supervisor.reasons import NORMAL, SHUTDOWN, ExitReason, crashed, failed_to_start
from greenroom.supervisor.spec import AutoShutdown, ChildSpec, RestartType, Strategy, Supervisor
from greenroom.supervisor.tree import SupervisorMachine
from greenroom.transport.clock import Now

SECOND = 1_000_000
NAMES = ("a", "b", "c", "d", "e")

Act = tuple[Literal["start", "stop", "kill"], str, int]


def nothing() -> None:
    """Stand for what a child runs."""


class World:
    """What both sides share: which starts fail, and who ignores a request to stop."""

    def __init__(self) -> None:
        self.failing: dict[str, int] = {}
        self.stubborn: dict[str, bool] = {}

    def starts(self, name: str) -> bool:
        left = self.failing.get(name, 0)
        self.failing[name] = max(left - 1, 0)
        return left == 0

    def copy(self) -> World:
        other = World()
        other.failing, other.stubborn = dict(self.failing), dict(self.stubborn)
        return other


class Model:
    """A supervisor whose children start and stop at once."""

    def __init__(self, spec: Supervisor, world: World) -> None:
        self.spec, self.world = spec, world
        self.acts: list[Act] = []
        self.now = 0
        self.children: dict[str, ChildSpec] = {}
        self.alive: dict[str, int] = {}
        self.incarnations: dict[str, int] = {}
        self.deleted = 0
        self.attempts: list[int] = []
        self.outcome = "stopped"

    def start(self) -> None:
        kept = {child.name: self.incarnations.get(child.name, self.deleted) for child in self.spec.children}
        gone = [number for name, number in self.incarnations.items() if name not in kept]
        self.deleted = max([self.deleted, *gone])
        self.children = {child.name: child for child in self.spec.children}
        self.incarnations, self.attempts = kept, []
        for name in self.children:
            if not self.start_child(name):
                self.stop_all("failed_to_start")
                return
        self.outcome = "running"

    def start_child(self, name: str) -> bool:
        self.incarnations[name] += 1
        self.acts.append(("start", name, self.incarnations[name]))
        if self.world.starts(name):
            self.alive[name] = self.incarnations[name]
            return True
        return False

    def stop_child(self, name: str) -> None:
        incarnation, shutdown = self.alive.pop(name), self.children[name].shutdown
        if shutdown == "brutal_kill":
            self.acts.append(("kill", name, incarnation))
            return
        self.acts.append(("stop", name, incarnation))
        if self.world.stubborn.get(name, False):
            self.now += round(float(shutdown) * SECOND)
            self.acts.append(("kill", name, incarnation))

    def stop_all(self, outcome: str) -> None:
        for name in reversed(list(self.children)):
            if name in self.alive:
                self.stop_child(name)
        self.outcome = outcome

    def delete(self, name: str) -> None:
        del self.children[name]
        self.deleted = max(self.deleted, self.incarnations.pop(name))

    def ended(self, name: str, reason: ExitReason) -> None:
        spec = self.children[name]
        del self.alive[name]
        if spec.restart == "permanent" or (spec.restart == "transient" and reason.abnormal):
            self.restart(name)
            return
        if spec.restart == "temporary":
            self.delete(name)
        if spec.significant:
            left = [other for other in self.alive if self.children[other].significant]
            if self.spec.auto_shutdown == "any_significant" or not left:
                self.stop_all("shutdown")

    def restart(self, name: str) -> None:
        period = self.spec.period_microseconds
        self.attempts = [attempt for attempt in self.attempts if attempt >= self.now - period] + [self.now]
        if len(self.attempts) > self.spec.intensity:
            self.stop_all("intensity_exceeded")
            return
        names = list(self.children)
        place = names.index(name)
        affected = {"one_for_one": [name], "one_for_all": names, "rest_for_one": names[place:]}
        members = affected[self.spec.strategy]
        for member in reversed(members):
            if member in self.alive:
                self.stop_child(member)
                if self.children[member].restart == "temporary":
                    self.delete(member)
        for member in members:
            if member in self.children and not self.start_child(member):
                self.restart(member)
                return

    def add(self, spec: ChildSpec) -> bool:
        if spec.name in self.children:
            return False
        self.children[spec.name] = spec
        self.incarnations[spec.name] = self.deleted
        if self.start_child(spec.name):
            return True
        self.delete(spec.name)
        return False

    def change(self, verb: str, name: str) -> bool:
        if name not in self.children:
            return False
        if verb == "restart":
            return name not in self.alive and self.start_child(name)
        if name in self.alive:
            if verb == "delete":
                return False
            self.stop_child(name)
            if self.children[name].restart == "temporary":
                verb = "remove"
        if verb in ("delete", "remove"):
            self.delete(name)
        return True


class Subject:
    """The machine, with everything that it asks for answered at once."""

    def __init__(self, spec: Supervisor, world: World) -> None:
        self.machine, self.world = SupervisorMachine(spec), world
        self.acts: list[Act] = []
        self.now = 0
        self.wake: int | None = None
        self.alive: dict[str, int] = {}
        self.outcome = "stopped"
        self.replies: dict[int, bool] = {}
        self.attempts: list[int] = []
        self.specs: dict[str, ChildSpec] = {}

    def tell(self, event: events.SupervisorEvent) -> None:
        told = deque([event])
        while True:
            while told:
                for effect in self.machine.apply(told.popleft(), Now(self.now, 0)):
                    told.extend(self.answer(effect))
            awaited = [name for name in self.alive if self.view_state(name) == "stopping"]
            if awaited:
                assert self.wake is not None
                self.now = max(self.now, self.wake)
            elif self.wake is None or self.wake > self.now:
                return
            self.wake = None
            told.append(events.Tick())

    def view_state(self, name: str) -> str:
        child = self.machine.child(name)
        return "" if child is None else child.state

    def answer(self, effect: events.SupervisorEffect) -> list[events.SupervisorEvent]:
        match effect:
            case events.StartChild(name, incarnation, spec):
                assert name not in self.alive
                self.specs[name] = spec
                self.acts.append(("start", name, incarnation))
                if not self.world.starts(name):
                    return [events.ChildFailedToStart(name, incarnation, failed_to_start("no"))]
                self.alive[name] = incarnation
                return [events.ChildStarted(name, incarnation)]
            case events.StopChild(name, incarnation):
                self.acts.append(("stop", name, incarnation))
                if not self.world.stubborn.get(name, False):
                    del self.alive[name]
                    return [events.ChildExited(name, incarnation, SHUTDOWN)]
            case events.KillChild(name, incarnation):
                self.acts.append(("kill", name, incarnation))
                del self.alive[name]
                return [events.ChildExited(name, incarnation, ExitReason("killed"))]
            case events.WakeAt(boot):
                self.wake = boot
            case events.SupervisorStarted():
                self.outcome = "running"
            case events.SupervisorExited(reason) | events.SupervisorFailedToStart(reason):
                self.outcome = reason.kind
            case events.Replied(request, _, error):
                assert request not in self.replies
                self.replies[request] = error is None
            case events.Reported("restarting"):
                self.attempts.append(self.now)
            case _:
                pass
        return []


restarts: st.SearchStrategy[RestartType] = st.sampled_from(["permanent", "transient", "temporary"])
strategies: st.SearchStrategy[Strategy] = st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"])
autos: st.SearchStrategy[AutoShutdown] = st.sampled_from(["never", "any_significant", "all_significant"])


@st.composite
def children(draw: st.DrawFn, name: str, auto: AutoShutdown) -> ChildSpec:
    restart = draw(restarts)
    return ChildSpec(
        nothing,
        name=name,
        restart=restart,
        shutdown=draw(st.sampled_from([1.0, 2.5, "brutal_kill"])),
        significant=auto != "never" and restart != "permanent" and draw(st.booleans()),
    )


class AgainstTheModel(RuleBasedStateMachine):
    @initialize(strategy=strategies, auto=autos, intensity=st.integers(0, 4), data=st.data())
    def begin(self, strategy: Strategy, auto: AutoShutdown, intensity: int, data: st.DataObject) -> None:
        count = data.draw(st.integers(0, 4), label="count")
        specs = [data.draw(children(name, auto), label=name) for name in NAMES[:count]]
        spec = Supervisor(specs, strategy=strategy, intensity=intensity, auto_shutdown=auto)
        world = World()
        self.subject, self.model = Subject(spec, world), Model(spec, world.copy())
        self.auto: AutoShutdown = auto
        self.requests = 0

    @precondition(lambda self: self.model.outcome != "running")
    @rule()
    def start(self) -> None:
        self.subject.attempts.clear()
        self.model.start()
        self.subject.tell(events.StartSupervisor())

    @rule(name=st.sampled_from(NAMES), times=st.integers(0, 4))
    def fail_the_next_starts(self, name: str, times: int) -> None:
        self.subject.world.failing[name] = self.model.world.failing[name] = times

    @rule(name=st.sampled_from(NAMES), stubborn=st.booleans())
    def ignore_requests_to_stop(self, name: str, stubborn: bool) -> None:
        self.subject.world.stubborn[name] = self.model.world.stubborn[name] = stubborn

    @precondition(lambda self: self.model.alive)
    @rule(index=st.integers(0, 9), reason=st.sampled_from([NORMAL, SHUTDOWN, crashed("boom"), crashed("bang")]))
    def end_a_child(self, index: int, reason: ExitReason) -> None:
        name = list(self.model.alive)[index % len(self.model.alive)]
        incarnation = self.subject.alive.pop(name)
        self.model.ended(name, reason)
        self.subject.tell(events.ChildExited(name, incarnation, reason))

    @rule(seconds=st.sampled_from([0.5, 2.0, 5.0, 6.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.model.now += round(seconds * SECOND)
        self.subject.now += round(seconds * SECOND)
        self.subject.tell(events.Tick())

    @precondition(lambda self: self.model.outcome == "running")
    @rule()
    def stop(self) -> None:
        self.model.stop_all("shutdown")
        self.subject.tell(events.StopRequested())

    @precondition(lambda self: self.model.outcome == "running")
    @rule(name=st.sampled_from(NAMES), data=st.data())
    def add(self, name: str, data: st.DataObject) -> None:
        spec = data.draw(children(name, self.auto))
        self.requests += 1
        expected = self.model.add(spec)
        self.subject.tell(events.AddChild(self.requests, spec))
        assert self.subject.replies[self.requests] == expected

    @precondition(lambda self: self.model.outcome == "running")
    @rule(name=st.sampled_from(NAMES), verb=st.sampled_from(["terminate", "restart", "delete", "remove"]))
    def change(self, name: str, verb: str) -> None:
        self.requests += 1
        number = self.requests
        expected = self.model.change(verb, name)
        kinds: dict[str, events.SupervisorEvent] = {
            "terminate": events.TerminateChild(number, name),
            "restart": events.RestartChild(number, name),
            "delete": events.DeleteChild(number, name),
            "remove": events.RemoveChild(number, name),
        }
        self.subject.tell(kinds[verb])
        assert self.subject.replies[number] == expected

    @invariant()
    def they_agree(self) -> None:
        if not hasattr(self, "model"):
            return
        assert self.subject.acts == self.model.acts
        assert self.subject.alive == self.model.alive
        assert self.subject.outcome == self.model.outcome
        assert self.subject.now == self.model.now
        views = self.subject.machine.view(Now(self.model.now, 0)).children
        assert [view.name for view in views] == (list(self.model.children) or [view.name for view in views])
        running = {view.name: view.incarnation for view in views if view.state == "running"}
        assert running == self.model.alive

    @invariant()
    def s13a_no_window_holds_more_restarts_than_the_intensity(self) -> None:
        if not hasattr(self, "model"):
            return
        spec, attempts = self.model.spec, self.subject.attempts
        for last in attempts:
            recent = [attempt for attempt in attempts if last - spec.period_microseconds <= attempt <= last]
            assert len(recent) <= spec.intensity


AgainstTheModel.TestCase.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)
TestAgainstTheModel = AgainstTheModel.TestCase
