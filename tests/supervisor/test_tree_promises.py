"""What a supervisor promises however slowly and in whatever order its children answer.

Starts, stops and ends are reported late, in any order, or not before a kill. `Checks` watches every effect
and knows nothing of the machine but its events and effects; each of its methods is one promise.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from greenroom.supervisor import events
from greenroom.supervisor.reasons import KILLED, NORMAL, SHUTDOWN, ExitReason, crashed, failed_to_start
from greenroom.supervisor.spec import AutoShutdown, Backoff, ChildSpec, RestartType, Strategy, Supervisor
from greenroom.supervisor.tree import SupervisorMachine
from greenroom.transport.clock import Now

SECOND = 1_000_000
NAMES = ("a", "b", "c", "d", "e", "f")
ENDS = (NORMAL, SHUTDOWN, crashed("boom"), crashed(signal=11), crashed("again"))
#: Without Phase.explain, which traces every line and takes minutes here.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)


def nothing() -> None:
    """Stand for what a child runs."""


@dataclass
class Body:
    """One incarnation as the world sees it."""

    spec: ChildSpec
    incarnation: int
    up: bool = False
    up_too_late: bool = False
    asked_at: int | None = None
    kill_due: int | None = None
    killed: bool = False
    started_at: int = 0
    by_request: bool = False


class Checks:
    """The world around the machine, and the promises."""

    def __init__(self, spec: Supervisor) -> None:
        self.spec, self.machine = spec, SupervisorMachine(spec)
        self.now = 0
        self.wake: int | None = None
        self.order: list[str] = []
        self.bodies: dict[str, Body] = {}
        self.last_incarnation: dict[str, int] = {}
        self.attempts: list[int] = []
        self.phase = "stopped"
        self.stop_asked_at = 0
        self.stop_budget: int | None = 0
        self.killing = False
        self.requests: dict[int, str] = {}
        self.stopping_by_request: dict[str, None] = {}
        self.monitors: dict[int, tuple[str, int | None]] = {}
        self.numbers = 0
        self.gave_up = False
        self.significant_ended = False

    def tell(self, event: events.SupervisorEvent) -> None:
        if isinstance(event, events.Tick):
            self.wake = None
        for effect in self.machine.apply(event, Now(self.now, 0)):
            self.see(effect)
        if self.machine.phase == "stopping" and self.phase in ("starting", "running"):
            assert self.significant_ended, "a supervisor stops for a reason"
            self.phase = "stopping"
        if self.phase != "starting":  # there, it is judged once all are up
            self.significant_ended = False
        self.always()

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    # ---- one promise an effect ----

    def see(self, effect: events.SupervisorEffect) -> None:
        match effect:
            case events.StartChild():
                self.see_start(effect)
            case events.StopChild():
                self.see_stop(effect)
            case events.KillChild():
                self.see_kill(effect)
            case events.ChildDown():
                self.see_down(effect)
            case events.Replied():
                name = self.requests.pop(effect.request)
                self.stopping_by_request.pop(name, None)
            case events.Reported():
                self.see_report(effect)
            case events.SupervisorStarted():
                assert self.phase == "starting"
                self.phase = "running"
            case events.SupervisorExited() | events.SupervisorFailedToStart():
                self.see_the_end(effect)
            case events.WakeAt():
                self.wake = effect.boot
            case events.MonitorRefused():
                raise AssertionError(effect)

    def see_start(self, effect: events.StartChild) -> None:
        name = effect.name
        assert self.phase in ("starting", "running"), "nothing starts in a supervisor that stops"
        assert name not in self.bodies, "never two incarnations at once"
        before = self.last_incarnation.get(name, 0)
        assert effect.incarnation > before, "an incarnation is never used again"
        self.last_incarnation[name] = effect.incarnation
        requested = name in self.requests.values()
        if name not in self.order:
            self.order.append(name)
        if not requested and not self.spec.dynamic:
            place = self.order.index(name)
            if self.spec.strategy != "one_for_one" or self.phase == "starting":
                for other in self.order[:place]:
                    body = self.bodies.get(other)
                    assert body is None or body.up or body.by_request, f"{name} starts before {other} is up"
            if self.spec.strategy != "one_for_one":
                for other in self.order[place + 1 :]:
                    assert other not in self.bodies, f"{name} starts while {other}, which comes after it, lives"
        body = Body(effect.spec, effect.incarnation, started_at=self.now, by_request=requested)
        self.bodies[name] = body
        limit = effect.spec.start_timeout_microseconds
        body.kill_due = None if limit is None else self.now + limit

    def see_stop(self, effect: events.StopChild) -> None:
        name, body = effect.name, self.bodies[effect.name]
        assert effect.incarnation == body.incarnation
        assert body.asked_at is None
        assert not body.killed
        assert body.spec.shutdown != "brutal_kill"
        if name not in self.stopping_by_request:
            alone = self.spec.strategy == "one_for_one" and self.phase == "running"
            assert not alone or self.significant_ended, "one for one stops nobody else"
            if not self.spec.dynamic:
                later = self.order[self.order.index(name) + 1 :]
                assert not [other for other in later if other in self.bodies], "the last started stops first"
                assert effect.budget == body.spec.shutdown_microseconds
        body.asked_at = self.now
        body.kill_due = None if effect.budget is None else self.now + effect.budget

    def see_kill(self, effect: events.KillChild) -> None:
        body = self.bodies[effect.name]
        assert effect.incarnation == body.incarnation
        assert not body.killed, "one kill is enough"
        overdue = body.kill_due is not None and body.kill_due <= self.now
        assert self.killing or overdue or body.spec.shutdown == "brutal_kill", "nobody is killed too early"
        body.killed = True

    def see_down(self, effect: events.ChildDown) -> None:
        for monitor in effect.monitors:
            name, incarnation = self.monitors.pop(monitor)  # a KeyError is a monitor that fired twice
            assert name == effect.name
            body = self.bodies.get(name)
            child = self.machine.child(name)
            if incarnation is not None:
                assert body is None or body.incarnation != incarnation
            else:
                assert child is None or child.state == "idle", "a restart is not the death of a name"

    def see_report(self, effect: events.Reported) -> None:
        period = self.spec.period_microseconds
        recent = [attempt for attempt in self.attempts if self.now - period <= attempt]
        if effect.kind == "restarting":
            self.attempts.append(self.now)
            assert len(recent) < self.spec.intensity, "S13 a: no window holds more restarts than the intensity"
        elif effect.kind == "gave_up":
            assert len(recent) == self.spec.intensity, "it gives up at the one too many, not before"
            self.gave_up = True
            self.note_stop()

    def see_the_end(self, effect: events.SupervisorExited | events.SupervisorFailedToStart) -> None:
        assert not self.bodies, "a supervisor outlives its children"
        assert not self.requests, "every request is answered"
        assert not self.monitors, "every monitor has fired"
        assert self.phase != "stopped"
        if self.gave_up and not self.killing:
            assert effect.reason.kind == "intensity_exceeded"
            assert effect.reason.abnormal
        self.phase, self.killing, self.gave_up = "stopped", False, False
        self.order, self.attempts, self.wake = [], [], None

    def always(self) -> None:
        """What holds after every step."""
        views = self.machine.view(Now(self.now, 0)).children
        alive = {view.name: view.incarnation for view in views if view.state in ALIVE}
        assert alive == {name: body.incarnation for name, body in self.bodies.items()}
        running = [view.name for view in views if view.state == "running"]
        assert running == [view.name for view in views if view.name in self.bodies and self.plain(view.name)]
        for name, body in self.bodies.items():
            if body.killed or body.kill_due is None or (body.up and body.asked_at is None):
                continue
            assert self.wake is not None, f"{name} would never be killed"
            assert self.wake <= body.kill_due
        if [view for view in views if view.state == "waiting"] and not self.bodies:
            assert self.wake is not None, "what waits for nobody waits for a time"

    def plain(self, name: str) -> bool:
        body = self.bodies[name]
        return body.up and body.asked_at is None and not body.killed

    def note_stop(self) -> None:
        if self.phase in ("starting", "running"):
            self.phase = "stopping"

    # ---- what the world does ----

    def end(self, name: str, reason: ExitReason, *, failed: bool = False, jitter: float = 0.0) -> None:
        body = self.bodies.pop(name)
        pinned = [key for key, target in self.monitors.items() if target == (name, body.incarnation)]
        self.significant_ended |= body.spec.significant
        kind = events.ChildFailedToStart if failed else events.ChildExited
        if self.phase == "starting" and (body.up_too_late or not body.up):
            self.note_stop()
        self.tell(kind(name, body.incarnation, reason, jitter))
        assert not [key for key in pinned if key in self.monitors], "a pinned monitor fires at the end"

    def stop(self) -> None:
        self.note_stop()
        self.stop_asked_at = self.now
        self.tell(events.StopRequested())

    def run_out(self) -> None:
        """Answer nothing but kills until the supervisor has stopped."""
        for _ in range(1000):
            if self.phase == "stopped":
                return
            killed = [name for name, body in self.bodies.items() if body.killed]
            if killed:
                self.end(killed[0], KILLED)
            else:
                assert self.wake is not None, "it would never end"
                self.now = max(self.now, self.wake)
                self.tell(events.Tick())
        raise AssertionError("it does not end")


ALIVE = ("starting", "running", "stopping")

restarts: st.SearchStrategy[RestartType] = st.sampled_from(["permanent", "transient", "temporary"])
strategies: st.SearchStrategy[Strategy] = st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"])
autos: st.SearchStrategy[AutoShutdown] = st.sampled_from(["never", "never", "any_significant", "all_significant"])
backoffs = st.sampled_from([None, None, Backoff(0.5, 4), Backoff(1, 60, jitter=0)])
indexes = st.integers(0, 11)


@st.composite
def children(draw: st.DrawFn, name: str, auto: AutoShutdown) -> ChildSpec:
    restart = draw(restarts)
    return ChildSpec(
        nothing,
        name=name,
        restart=restart,
        shutdown=draw(st.sampled_from([1.0, 2.5, "brutal_kill"])),
        backoff=draw(backoffs),
        start_timeout=draw(st.sampled_from([3.0, 60.0])),
        significant=auto != "never" and restart != "permanent" and draw(st.booleans()),
    )


class Promises(RuleBasedStateMachine):
    checks: Checks | None = None

    @initialize(strategy=strategies, auto=autos, intensity=st.integers(0, 6), dynamic=st.booleans(), data=st.data())
    def begin(self, strategy: Strategy, auto: AutoShutdown, intensity: int, dynamic: bool, data: st.DataObject) -> None:
        count = data.draw(st.integers(0, 5), label="count")
        specs = [data.draw(children(name, auto), label=name) for name in NAMES[:count]]
        dynamic = dynamic and strategy == "one_for_one"
        self.auto: AutoShutdown = auto
        self.checks = Checks(
            Supervisor(specs, strategy=strategy, intensity=intensity, auto_shutdown=auto, dynamic=dynamic)
        )

    @property
    def world(self) -> Checks:
        assert self.checks is not None
        return self.checks

    def pick(self, names: list[str], index: int) -> str | None:
        return names[index % len(names)] if names else None

    @precondition(lambda self: self.checks is not None and self.checks.phase == "stopped")
    @rule()
    def start(self) -> None:
        self.world.phase = "starting"
        self.world.order = [child.name for child in self.world.spec.children]
        self.world.tell(events.StartSupervisor())

    @rule(index=indexes)
    def a_child_comes_up(self, index: int) -> None:
        name = self.pick([name for name, body in self.world.bodies.items() if not body.up], index)
        if name is not None:
            body = self.world.bodies[name]
            body.up, body.up_too_late = True, body.killed
            if body.asked_at is None and not body.killed:
                body.kill_due = None
            body.by_request = False
            self.world.tell(events.ChildStarted(name, body.incarnation))

    @rule()
    def all_children_come_up(self) -> None:
        for _ in range(20):
            if all(body.up for body in self.world.bodies.values()):
                return
            self.a_child_comes_up(0)

    @rule(index=indexes, jitter=st.floats(0, 1))
    def a_child_fails_to_start(self, index: int, jitter: float) -> None:
        name = self.pick([name for name, body in self.world.bodies.items() if not body.up], index)
        if name is not None:
            self.world.end(name, failed_to_start("no port"), failed=True, jitter=jitter)

    @rule(index=indexes, reason=st.sampled_from(ENDS), jitter=st.floats(0, 1))
    def a_child_ends(self, index: int, reason: ExitReason, jitter: float) -> None:
        name = self.pick(list(self.world.bodies), index)
        if name is not None:
            self.world.end(name, reason, jitter=jitter)

    @rule(index=indexes)
    def a_child_obeys(self, index: int) -> None:
        asked = [name for name, body in self.world.bodies.items() if body.asked_at is not None]
        name = self.pick(asked, index)
        if name is not None:
            self.world.end(name, SHUTDOWN)

    @rule(index=indexes)
    def a_killed_child_is_gone(self, index: int) -> None:
        name = self.pick([name for name, body in self.world.bodies.items() if body.killed], index)
        if name is not None:
            self.world.end(name, KILLED)

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.7, 3.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.now += round(seconds * SECOND)
        self.world.tell(events.Tick())

    @rule()
    def time_passes_until_the_machine_wants_to_be_woken(self) -> None:
        if self.world.wake is not None:
            self.world.now = max(self.world.now, self.world.wake)
            self.world.tell(events.Tick())

    @precondition(lambda self: self.checks is not None and self.checks.phase in ("starting", "running"))
    @rule()
    def stop(self) -> None:
        self.world.stop()

    @precondition(lambda self: self.checks is not None and self.checks.phase in ("starting", "running"))
    @rule()
    def s13d_a_stop_ends_within_the_sum_of_the_budgets(self) -> None:
        budgets = [body.spec.shutdown_microseconds or 0 for body in self.world.bodies.values()]
        before = self.world.now
        self.world.stop()
        self.world.run_out()
        allowed = max(budgets, default=0) if self.world.spec.dynamic else sum(budgets)
        assert self.world.now - before <= allowed

    @rule()
    def kill(self) -> None:
        if self.world.phase != "stopped":
            self.world.killing = True
            self.world.note_stop()
            self.world.tell(events.KillRequested())
            assert all(body.killed for body in self.world.bodies.values())

    @precondition(lambda self: self.checks is not None and self.checks.phase == "running")
    @rule(name=st.sampled_from(NAMES), data=st.data())
    def add(self, name: str, data: st.DataObject) -> None:
        if name not in self.world.requests.values():
            number = self.world.number()
            self.world.requests[number] = name
            self.world.tell(events.AddChild(number, data.draw(children(name, self.auto))))
            self.note_order()

    @precondition(lambda self: self.checks is not None and self.checks.phase == "running")
    @rule(name=st.sampled_from(NAMES), verb=st.integers(0, 3))
    def change(self, name: str, verb: int) -> None:
        if name in self.world.requests.values():
            return
        number = self.world.number()
        self.world.requests[number] = name
        if verb < 2:
            self.world.stopping_by_request[name] = None
        kinds = (events.TerminateChild, events.RemoveChild, events.RestartChild, events.DeleteChild)
        self.world.tell(kinds[verb](number, name))

    def note_order(self) -> None:
        """Children that were added come last; the names are those of the view."""
        views = self.world.machine.view(Now(self.world.now, 0)).children
        self.world.order = [view.name for view in views]

    @rule(name=st.sampled_from(NAMES), back=st.integers(-1, 2), pinned=st.booleans())
    def monitor(self, name: str, back: int, pinned: bool) -> None:
        number = self.world.number()
        incarnation = max(self.world.last_incarnation.get(name, 0) - back, 0) if pinned else None
        self.world.monitors[number] = (name, incarnation)
        self.world.tell(events.Monitor(number, name, incarnation))
        body = self.world.bodies.get(name)
        if pinned:
            assert (number in self.world.monitors) == (body is not None and body.incarnation == incarnation)
        elif body is not None:
            assert number in self.world.monitors

    @rule(index=indexes)
    def demonitor(self, index: int) -> None:
        numbers = list(self.world.monitors)
        if numbers:
            number = numbers[index % len(numbers)]
            del self.world.monitors[number]
            self.world.tell(events.Demonitor(number))

    @rule(index=indexes, kind=st.integers(0, 2))
    def a_late_report_about_an_old_incarnation_changes_nothing(self, index: int, kind: int) -> None:
        name = self.pick(list(self.world.last_incarnation), index)
        if name is None:
            return
        body = self.world.bodies.get(name)
        old = self.world.last_incarnation[name] - (1 if body else 0)
        reports: tuple[events.SupervisorEvent, ...] = (
            events.ChildStarted(name, old),
            events.ChildExited(name, old, crashed("late")),
            events.ChildFailedToStart(name, old, failed_to_start("late")),
        )
        if old > 0:
            assert self.world.machine.apply(reports[kind], Now(self.world.now, 0)) == []

    @invariant()
    def the_order_is_that_of_the_view(self) -> None:
        if self.checks is not None and self.checks.phase != "stopped":
            self.note_order()

    def teardown(self) -> None:
        """S13 b: left alone, with all starts succeeding, everything that should run does."""
        if self.checks is None or self.world.phase == "stopped":
            return
        world = self.world
        for _ in range(500):
            obeying = [name for name, body in world.bodies.items() if body.asked_at is not None or body.killed]
            if obeying:
                world.end(obeying[0], SHUTDOWN)
            elif not all(body.up for body in world.bodies.values()):
                self.all_children_come_up()
            elif world.wake is not None and world.phase != "stopped":
                world.now = max(world.now, world.wake)
                world.tell(events.Tick())
            else:
                break
        assert world.phase in ("running", "stopped")
        assert not world.requests
        views = world.machine.view(Now(world.now, 0)).children
        assert all(view.state in ("running", "idle") for view in views)


Promises.TestCase.settings = settings(max_examples=250, stateful_step_count=50, deadline=None, phases=PHASES)
TestPromises = Promises.TestCase
