"""The face of one simulated cluster to its test: who there is, what to send, when something goes wrong.

Owns the life of one example: the world is built and up, the application's link leads into it; then the test's own
lines; then chaos until everything is at rest or for CHAOS_SECONDS at most; then no more faults, and everything must
come to rest. Faults of the plan begin when the cluster is up. All of it is judged (`invariants.watch`).

`sim.at("STARTED", task=sent).kill()` strikes at exact moments; names of moments are those of `trace.Kind`, and
Celery's and the protocol's words for them (`MOMENTS`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, TypeVar

from ...actors.app import App
from ...actors.tasks.task import Task
from ...transport.broker.settings import BrokerSettings
from .broker_process import BrokerProcess
from .child_process import ChildProcess
from .client import SECOND
from .clockwork import Process
from .disks import StoreName
from .drawing import Plan, Schedule
from .effects import Effects
from .faults import AWAY_SECONDS, Anchor, Fault, What
from .injector import Injector
from .inv import covered
from .invariants import Watch
from .node_process import NodeProcess
from .options import options
from .realm import current_realm, enter
from .routed import RoutedClient
from .sent import Sent
from .tally import tally
from .trace import Event, Kind, Trace
from .world import World

R = TypeVar("R")

#: How long the faults of a plan may go on, in simulated time.
CHAOS_SECONDS: Final = 120
#: Other words for moments.
MOMENTS: Final[dict[str, Kind]] = {
    "SENT": Kind.PUBLISH,
    "CONFIRMED": Kind.CONFIRM,
    "ACQUIRED": Kind.DELIVER,
    "FINISHED": Kind.RAN,
    "ACK": Kind.APPLIED,
    "RESULT_STORED": Kind.STORED,
}


def moment(name: str) -> Kind:
    """Return the kind of event of this name. Raises ValueError for a name that is none."""
    if name in MOMENTS:
        return MOMENTS[name]
    try:
        return Kind[name.upper().replace(" ", "_")]
    except KeyError:
        known = ", ".join([*Kind.__members__, *MOMENTS])
        raise ValueError(f"there is no moment {name!r}; there are {known}") from None


class Whom:
    """Somebody in the cluster: found when something happens to him, which may be later than he is named."""

    def __init__(self, sim: Sim, find: Callable[[], Process | None], words: str) -> None:
        self._sim = sim
        self._find = find
        self._words = words

    def __repr__(self) -> str:
        return f"<{self._words}>"

    @property
    def process(self) -> Process:
        """Who it is now. Raises LookupError when there is nobody."""
        process = self._find()
        if process is None:
            raise LookupError(f"there is no {self._words} now")
        return process

    @property
    def is_alive(self) -> bool:
        """Whether there is such a process now."""
        return self._find() is not None

    def kill(self) -> None:
        """SIGKILL."""
        self._sim.strike(_KILL[type(self.process)], self.process)

    def pause(self, seconds: float = AWAY_SECONDS) -> None:
        """SIGSTOP, and SIGCONT after so much."""
        self._sim.strike(_PAUSE[type(self.process)], self.process, seconds)

    def cut(self, *, lose: bool = True) -> None:
        """Break its link to the broker; what is underway is lost, or arrives."""
        self._sim.strike(What.DROP if lose else What.CUT, self.process)

    def freeze(self) -> None:
        """Let nothing arrive on its link, until heartbeats tell."""
        self._sim.strike(What.FREEZE, self.process)

    def oom_kill(self, during: str = "task") -> None:
        """Have a child of this worker killed: "now", or during the next "task" that it runs, after all that it did."""
        lane = self.process.lane
        if during == "task":
            self._sim.injector.arm(Fault(What.KILL_CHILD, Anchor(Kind.RAN, lane=lane)))
        elif during == "now":
            child = next((c for c in self._sim.world.children if c.lane == lane or c.lane.startswith(f"{lane}/")), None)
            if child is not None:
                self._sim.strike(What.KILL_CHILD, child)
        else:
            raise ValueError(f"a child is killed during a 'task' or 'now', not {during!r}")


class ClientOf:
    """One client of the cluster: a process that sends."""

    def __init__(self, sim: Sim, number: int) -> None:
        self._sim = sim
        self._number = number

    def send(self, task: Task[..., R], *args: Any, **kwargs: Any) -> Sent[R]:
        """Send a call, without waiting for the broker; return what stands for it."""
        return self.apply_async(task, args, kwargs)

    def apply_async(self, task: Task[..., R], args: Any = (), kwargs: Any = None, **options: Any) -> Sent[R]:
        """Send a call with options, as `Task.apply_async` takes them."""
        with self._sim.routed.speaking_as(self._number):
            return Sent(self._sim.world, task.apply_async(args, kwargs, **options))

    def get(self, sent: Sent[R], timeout: float | None = None, *, propagate: bool = True) -> Any:
        """Wait as this client for the result of a call that any client has sent, as `Sent.get` does."""
        with self._sim.routed.speaking_as(self._number):
            return sent.get(timeout, propagate=propagate)

    def kill(self) -> None:
        """SIGKILL; the next call is made by its next life."""
        process = self._sim.world.clients[self._number].process
        if process.alive:
            self._sim.strike(What.KILL_CLIENT, process)


class Moment:
    """What shall happen at an anchor, one thing after the other."""

    def __init__(self, sim: Sim, anchor: Anchor) -> None:
        self._sim = sim
        self._anchor = anchor

    @property
    def then(self) -> Moment:
        """And at the same moment."""
        return self

    def do(self, action: Callable[[], object], words: str = "something") -> Moment:
        """Call this."""
        self._sim.injector.wait(self._anchor, lambda _: action(), f"{words} at {self._anchor.words()}")
        return self

    def kill(self, whom: Whom | None = None) -> Moment:
        """SIGKILL: to whoever the moment is about, or to somebody else."""
        if whom is None:
            return self._fault(What.KILL_CHILD)
        self._sim.injector.wait(
            self._anchor, lambda _: whom.kill(), f"kill {whom!r} at {self._anchor.words()}", deadly=True
        )
        return self

    def pause(self, whom: Whom, seconds: float = AWAY_SECONDS) -> Moment:
        """SIGSTOP for so long."""
        return self.do(lambda: whom.pause(seconds), f"pause {whom!r}")

    def drop(self, name: str = "") -> Moment:
        """Lose the message that the moment tells of, and its link with it; or the next one of this name."""
        anchor = self._anchor
        if not name or moment(name) is anchor.kind:
            return self._fault(What.DROP)
        later = Fault(What.DROP, Anchor(moment(name), task=anchor.task))
        return self.do(lambda: self._sim.injector.arm(later), f"drop {name}")

    def cut(self) -> Moment:
        """Break the link; what is underway arrives."""
        return self._fault(What.CUT)

    def freeze(self) -> Moment:
        """Let nothing arrive on the link any more, until heartbeats tell."""
        return self._fault(What.FREEZE)

    def fault(self, what: What, seconds: float = AWAY_SECONDS) -> Moment:
        """Let this happen: any of the faults that there are."""
        return self._fault(what, seconds)

    def _fault(self, what: What, seconds: float = AWAY_SECONDS) -> Moment:
        self._sim.injector.arm(Fault(what, self._anchor, seconds=seconds))
        return self


class Sim:
    """One simulated cluster, up and running."""

    def __init__(
        self,
        app: App,
        plan: Plan,
        *,
        store: StoreName = "memory",
        pool: str = "prefork",
        slots: int = 1,
        settings: BrokerSettings | None = None,
        chaos_seconds: float = CHAOS_SECONDS,
        invariants: Sequence[str] | None = None,
    ) -> None:
        """Build it, let it come up, and be in its world until `close`. `simulated` does both.

        `invariants`: the promises that it is judged by (`inv`); None: all. Raises ValueError for one that is none.
        """
        self.app = app
        self.plan = plan
        self.schedule = Schedule(plan.turns, plan.jitter)
        self._chaos = round(chaos_seconds * SECOND)
        self.world = World(
            app,
            nodes=plan.nodes,
            slots=slots,
            children=plan.children,
            clients=plan.clients,
            pool=pool,
            settings=settings,
            choose=self.schedule,
            store=store,
            seed=plan.jitter,
        )
        #: Judges what happens. Made before anything does, and before those who let things go wrong.
        self.watch = Watch(self.world, invariants)
        self.routed = RoutedClient(self.world)
        self._factory_before = app.client_factory
        self._realm_before = current_realm()
        app.client_factory = self._link_of
        try:
            self.world.start()
        except BaseException:
            self.close()
            raise
        self.injector = Injector(self.world, plan.faults)
        self.schedule.begin()
        enter(self.world.realm)

    @property
    def trace(self) -> Trace:
        """Everything that happened."""
        return self.world.trace

    # --- who there is --------------------------------------------------------------------------------------------

    def client(self, number: int = 0) -> ClientOf:
        """Return a client."""
        if not 0 <= number < len(self.world.clients):
            raise IndexError(f"there are {len(self.world.clients)} clients, counted from 0; not {number}")
        return ClientOf(self, number)

    def send(self, task: Task[..., R], *args: Any, **kwargs: Any) -> Sent[R]:
        """Send a call as the first client."""
        return self.client(0).send(task, *args, **kwargs)

    def worker(self, number: int = 0) -> Whom:
        """Return a worker node: of those that live now, counted round."""

        def find() -> Process | None:
            nodes = [node for node in self.world.nodes if node.alive]
            return nodes[number % len(nodes)] if nodes else None

        return Whom(self, find, f"worker {number}")

    @property
    def broker(self) -> Whom:
        """The broker."""
        return Whom(self, lambda: self.world.broker if self.world.broker.alive else None, "broker")

    def child_of(self, sent: Sent[Any]) -> Whom:
        """Return the child that this was handed to last."""
        return Whom(self, lambda: self.world.process(self._lane_of(sent)), f"child of {sent.id}")

    def worker_of(self, sent: Sent[Any]) -> Whom:
        """Return the worker node that this was handed to last."""
        return Whom(self, lambda: self.world.process(self._lane_of(sent).partition("/")[0]), f"worker of {sent.id}")

    def _lane_of(self, sent: Sent[Any]) -> str:
        for event in reversed(self.trace.events):
            if event.kind is Kind.DELIVER and event.facts["id"] == sent.id:
                return str(event.facts["to"])
        return ""

    # --- what happens --------------------------------------------------------------------------------------------

    def at(self, name: str, *, task: Sent[Any] | str = "", nth: int = 1, lane: str = "") -> Moment:
        """Say what shall happen at the `nth` moment of this name: of this task, and on this lane, if they are given.

        `task` is what `send` returned, or the name of a task. Raises ValueError for a name that is none.
        """
        whose = task.id if isinstance(task, Sent) else task
        return Moment(self, Anchor(moment(name), nth, whose, lane))

    def strike(self, what: What, process: Process, seconds: float = AWAY_SECONDS) -> None:
        """Let something happen to this process now."""
        now = Event(0, Kind.FAULT, process.lane, {})
        self.injector.strike(Fault(what, Anchor(Kind.FAULT), seconds=seconds), now)

    def run_for(self, seconds: float) -> None:
        """Let so much simulated time pass."""
        self.world.run_for(seconds)

    def settle(self) -> None:
        """Let the faults happen until all is at rest; then stop them, wait for all to be at rest, and judge it.

        Raises Violated: of QUIESCE, when it never is at rest (NeverAtRest, if that is not judged).
        """
        self.world.clockwork.run(self.world.at_rest, self._chaos)
        self.injector.disarm()
        self.watch.settle()

    def check(self) -> None:
        """Raise the first Violated again, if a promise was broken: user code may have swallowed it."""
        self.watch.check()

    def most_telling(self, error: Exception) -> Exception:
        """Return what a test shall fail with that has raised this: a broken promise of the cluster's, or that."""
        return self.watch.violation or error

    # --- user code -----------------------------------------------------------------------------------------------

    def _link_of(self, _app: App) -> RoutedClient:
        return self.routed

    def effects(self, name: str | None = None) -> Effects:
        """Return what user code has recorded as done (`record`), under one name or under any."""
        return self.world.effects(name)

    def allow(self, *kinds: str) -> AbstractContextManager[None]:
        """Within this, user code may leave the simulation: "open", "socket", "process", "thread".

        Raises ValueError for a kind that there is not.
        """
        return self.world.allow(*kinds)

    def close(self) -> None:
        """Let go of the world; the application's link is what it was before."""
        self.app.client_factory = self._factory_before
        enter(self._realm_before)
        if options().coverage and not self.world.clockwork.closed:
            tally().add(self.injector.done, self.watch.premises(), self.trace.events)
        self.world.close()


@contextmanager
def simulated(app: App, plan: Plan | None = None, *, covers: Sequence[str] = (), **options: Any) -> Generator[Sim]:
    """Have a cluster for a while, and be in its world: time and chance are its own.

    `covers`: invariants that must have had occasion to be broken. `options` are those of `Sim`. Raises Violated when a
    promise was broken, also where user code has swallowed that, and Vacuous.
    """
    covered(covers, options.get("invariants"))
    sim = Sim(app, plan or Plan(), **options)
    try:
        try:
            yield sim
        except Exception as error:
            told = sim.most_telling(error)
            if told is error:
                raise
            raise told from error
        sim.check()
        if covers:
            sim.watch.require(*covers)
    finally:
        sim.close()


_KILL: Final[dict[type[Process], What]] = {
    ChildProcess: What.KILL_CHILD,
    NodeProcess: What.KILL_NODE,
    BrokerProcess: What.KILL_BROKER,
}
_PAUSE: Final[dict[type[Process], What]] = {
    ChildProcess: What.PAUSE_CHILD,
    NodeProcess: What.PAUSE_NODE,
    BrokerProcess: What.PAUSE_BROKER,
}
