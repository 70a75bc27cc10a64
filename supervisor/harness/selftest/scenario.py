"""The generic scenario of the self-test: clients send tasks of all kinds into a small cluster in which things go wrong.

Owns what is drawn (`Work`), and the trial: one world with every invariant watching, through chaos until it is at rest.
It looks for nothing in particular: each switch must be caught by this one scenario.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from hypothesis import strategies as st

from ....transport.broker.settings import BrokerSettings
from ....transport.message import TERMINAL, Flag
from ....transport.verbs import ChildKind, Durability
from ..broker_process import COMMIT_TIME
from ..child_process import ChildProcess
from ..client import SECOND
from ..drawing import Plan, Schedule, anchors_of, plans
from ..faults import Anchor, Fault, What, every
from ..injector import Injector
from ..invariants import Violated, Watch
from ..invariants.base import Invariant
from ..routed import RoutedClient
from ..trace import Event, Kind
from ..world import World
from .shop import Shop
from .themes import COUNTS, DEADLY, DURABILITIES, LONG, QUICK, SAFE, SLOW_COMMIT, THEMES, Theme

OPERATIONS_MAX: Final = 6
#: How long faults may go on, in simulated time.
CHAOS: Final = 120 * SECOND
#: What is at rest stays so: seconds after which it is judged again.
AFTERWARDS: Final = 20
#: What a mailbox holds in some of the worlds.
SMALL: Final = 4
#: Kinds of fault that are drawn also without the others: what several of a kind do together is rare otherwise.
GROUPS: Final = (
    (What.KILL_CHILD, What.CHILD_EXITS, What.KILL_NODE, What.DROP),
    (What.KILL_BROKER, What.POWER_LOSS, What.DISK_FULL, What.SYNC_FAILS, What.SLOW_SYNC),
    (What.PAUSE_CHILD, What.PAUSE_NODE, What.PAUSE_BROKER, What.PAUSE_HOST),
    (What.DROP, What.CUT, What.FREEZE, What.HOLD_UP, What.SLOW_LINK, What.PARTITION),
)
#: Tasks, together and each group without the others, for the same reason.
TASKS: Final = (SAFE, DEADLY, QUICK, LONG)
SAME_ID: Final = "the one for {}"
#: How many times as often as one theme all others together are drawn.
MIXED: Final = 4


class Send(msgspec.Struct, frozen=True):
    """One operation: `count` calls of a task at once, after some time has passed."""

    task: str
    count: int = 1
    client: int = 0
    after: float = 0.0
    countdown: float = 0.0
    expires: float = 0.0
    same_id: bool = False


class Work(msgspec.Struct, frozen=True):
    """What happens in one trial."""

    plan: Plan
    sends: tuple[Send, ...]
    pool: str = "prefork"
    small: bool = False
    durability: Durability = Durability.DISK
    commit_time: int = COMMIT_TIME
    #: What an operator does with the dead letters when all is at rest: "redrive", "purge", or nothing.
    letters: str = ""

    def size(self) -> tuple[int, int, int]:
        """Return how much there is of it: faults, tasks, deviations."""
        plan = self.plan
        return len(plan.faults), sum(send.count for send in self.sends), len(plan.turns) + bool(plan.jitter)


def _sends(tasks: Sequence[str], counts: Sequence[int] = COUNTS) -> st.SearchStrategy[Send]:
    plain = st.builds(
        Send,
        task=st.sampled_from(tasks),
        count=st.sampled_from(counts),
        client=st.integers(0, 1),
        after=st.sampled_from((0.0, 0.0, 0.02, 1.0, 6.0)),
    )
    timed = st.builds(
        Send,
        task=st.sampled_from(("early", "late")),
        count=st.integers(1, 3),
        client=st.integers(0, 1),
        after=st.sampled_from((0.0, 0.02, 1.0)),
        countdown=st.sampled_from((0.0, 0.5, 3.0)),
        expires=st.sampled_from((0.0, 1.0, 5.0)),
        same_id=st.booleans(),
    )
    return st.one_of(plain, plain, timed)


def _workloads(tasks: Sequence[str], counts: Sequence[int] = COUNTS) -> st.SearchStrategy[tuple[Send, ...]]:
    return st.lists(_sends(tasks, counts), min_size=1, max_size=OPERATIONS_MAX).map(tuple)


def _plans(kinds: Sequence[What]) -> st.SearchStrategy[Plan]:
    return plans(clients=2, workers=(1, 2), children=(1, 2), faults=kinds)


def _calm_but_for_one(theme: Theme) -> st.SearchStrategy[Plan]:
    """Draw plans in which one thing goes wrong, at one of the theme's moments."""
    pairs = st.sampled_from([(what, kind) for what in theme.faults for kind in theme.moments or anchors_of(what)])
    forces = st.tuples(st.sampled_from(theme.nths), st.integers(0, 3), st.sampled_from(theme.seconds))
    sizes = plans(clients=2, workers=theme.workers, children=(1, 2))

    @st.composite
    def plan(draw: st.DrawFn) -> Plan:
        what, kind = draw(pairs)
        nth, which, seconds = draw(forces)
        return msgspec.structs.replace(draw(sizes), faults=(Fault(what, Anchor(kind, nth), which, seconds),))

    return plan()


def _works(
    plan: st.SearchStrategy[Plan],
    sends: st.SearchStrategy[tuple[Send, ...]],
    pools: Sequence[str],
    commit_times: Sequence[int],
    durabilities: Sequence[Durability] = DURABILITIES,
) -> st.SearchStrategy[Work]:
    return st.builds(
        Work,
        plan=plan,
        sends=sends,
        pool=st.sampled_from(pools),
        small=st.sampled_from((False, False, False, True)),
        durability=st.sampled_from(durabilities),
        commit_time=st.sampled_from(commit_times),
        letters=st.sampled_from(("", "", "redrive", "purge")),
    )


def of_theme(theme: Theme) -> st.SearchStrategy[Work]:
    """Draw what happens in a trial of this theme: half of them have one fault, all if the theme names its moment."""
    plan = _plans(theme.faults)
    if theme.moments:
        plan = _calm_but_for_one(theme)
    elif theme.faults:
        plan = st.one_of(_calm_but_for_one(theme), plan)
    return _works(plan, _workloads(theme.tasks, theme.counts), theme.pools, theme.commit_times, theme.durabilities)


def works() -> st.SearchStrategy[Work]:
    """Draw what happens in a trial: of a theme, or of kinds and tasks that have nothing to do with each other."""
    mixed = _works(
        st.one_of([_plans(kinds) for kinds in (every(), *GROUPS)]),
        st.one_of([_workloads(tasks) for tasks in (tuple(itertools.chain(*TASKS)), *TASKS)]),
        ("prefork", "threads"),
        (COMMIT_TIME, SLOW_COMMIT),
    )
    return st.one_of([*MIXED * [mixed], *map(of_theme, THEMES)])


class Stored(Invariant):
    """What the table of invariants has no own name for: the end of each task is there to be read."""

    name = "RESULT"
    sentence = "When all is at rest, every confirmed task whose result is kept has one that is terminal."

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[str, None] = {}
        self._confirmed: dict[str, None] = {}
        #: How each message came to its end.
        self.ends: dict[str, str] = {}

    def on_event(self, event: Event) -> None:
        """Take down who was confirmed."""
        facts = event.facts
        if event.kind is Kind.PUBLISH:
            for id, flags in zip(facts["ids"], facts["flags"], strict=True):
                if not flags & Flag.IGNORE_RESULT:
                    self._kept[id] = None
        elif event.kind is Kind.CONFIRM and "error" not in facts:
            self._confirmed.update(dict.fromkeys(id for id in facts["ids"] if id in self._kept))

    def at_rest(self, world: World) -> None:
        """Ask the store."""
        ids = [id for id in self._confirmed if id not in self.excused and self.ends.get(id) != "purged"]
        rows = world.broker.store.read_results(ids, 0)
        ended = {row.id for row in rows if row.state in TERMINAL}
        for id in ids:
            self.premises += 1
            if id not in ended:
                self.violated(f"{id} was confirmed, everything is at rest, and it has no result")


class Strength(Invariant):
    """SUP, as far as there is a part of it: the children of a node."""

    name = "SUP"
    sentence = "A node has as many ordinary children as it shall have, and no more."

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self._wanted = wanted

    def at_rest(self, world: World) -> None:
        """Count them."""
        for node in world.nodes:
            # One that is still coming up has none yet.
            if node.is_serving and node.ready:
                self.premises += 1
                count = sum(is_ordinary(child) for child in node.children.values())
                if count != self._wanted:
                    self.violated(f"{node.lane} has {count} children, and {self._wanted} are wanted")


class Holder(Invariant):
    """FENCE, as far as there is a part of it: who has lost a message does not start it."""

    name = "FENCE"
    sentence = "A body is taken to be started only where its message was handed out last."

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        #: When each position was handed out, and to whom.
        self._handed: dict[int, list[tuple[int, str]]] = {}

    def on_event(self, event: Event) -> None:
        """Compare each start with the latest delivery before the child has taken it: it may be stopped after that."""
        facts = event.facts
        if event.kind is Kind.DELIVER:
            self._handed.setdefault(facts["position"], []).append((event.at, facts["to"]))
        elif event.kind is Kind.STARTED:
            self.premises += 1
            child = self._world.process(event.lane)
            position = facts["position"]
            taken = child.taken_at(position) if isinstance(child, ChildProcess) else 0
            at = taken - self._world.trace.began
            holders = [to for handed, to in self._handed.get(position, ()) if handed <= at]
            if not holders or holders[-1] != event.lane:
                self.violated(f"{facts['id']} starts on {event.lane}, and {holders[-1:] or 'nobody'} has it", event)


def is_ordinary(child: ChildProcess) -> bool:
    """Whether this child lives and is one of those that a node always has."""
    return child.alive and child.kind == ChildKind.POOL


class Trial:
    """One world. `run` raises Violated when a promise is broken."""

    def __init__(self, shop: Shop, work: Work) -> None:
        self.work = work
        #: Faults that happened.
        self.happened: list[Fault] = []
        #: The hash of all that happened, when it is over.
        self.digest = ""
        self._shop = shop

    def run(self) -> None:
        """Build the world, let it happen, and judge it."""
        work, shop = self.work, self._shop
        plan = work.plan
        shop.begin()
        schedule = Schedule(plan.turns, plan.jitter)
        slots = 2 if work.pool == "threads" else 1
        settings = BrokerSettings(durability=work.durability)
        if work.small:
            settings = msgspec.structs.replace(settings, mailbox_max_messages=SMALL)
        world = World(
            shop.app,
            nodes=plan.nodes,
            children=1 if slots > 1 else plan.children,
            slots=slots,
            clients=plan.clients,
            pool=work.pool,
            settings=settings,
            choose=schedule,
            seed=plan.jitter,
            commit_time=work.commit_time,
        )
        factory = shop.app.client_factory
        try:
            watch = Watch(world)
            stored = Stored()
            stored.ends = watch.ledger.referee.ends
            own = [stored, Strength(1 if slots > 1 else plan.children), Holder(world)]
            for invariant in own:
                invariant.excused = watch.ledger.facts.excused
                world.trace.listen(invariant.on_event)
            routed = RoutedClient(world)

            def link_of(_app: object, routed: RoutedClient = routed) -> RoutedClient:
                return routed

            shop.app.client_factory = link_of
            with world.realm.inside():
                world.start()
                injector = Injector(world, plan.faults)
                self.happened = injector.done
                schedule.begin()
                for send in work.sends:
                    self._send(world, routed, send)
                world.clockwork.run(world.at_rest, CHAOS)
                injector.disarm()
                watch.settle()
                self._tidy(world)
                watch.settle()
                world.run_for(AFTERWARDS)
            watch.check()
            watch.at_rest()
            for invariant in own:
                invariant.at_rest(world)
        finally:
            shop.app.client_factory = factory
            self.digest = world.trace.digest()
            world.close()

    def _tidy(self, world: World) -> None:
        """Let somebody look after the dead letters."""
        if self.work.letters == "redrive":
            world.operator.redrive()
        elif self.work.letters == "purge":
            world.operator.purge_dead()
        world.run_for(1)

    def _send(self, world: World, routed: RoutedClient, send: Send) -> None:
        if send.after:
            world.run_for(send.after)
        question = self._shop.questions.get(send.task)
        if question is not None:
            for _ in range(send.count):
                with routed.speaking_as(send.client):
                    question.ask()
            return
        options: dict[str, Any] = {}
        if send.countdown:
            options["countdown"] = send.countdown
        if send.expires:
            options["expires"] = send.expires
        if send.same_id:
            options["task_id"] = SAME_ID.format(send.task)
        task = self._shop.tasks[send.task]
        for _ in range(send.count):
            with routed.speaking_as(send.client):
                task.apply_async((), **options)


def attempt(shop: Shop, work: Work) -> tuple[str, Sequence[Fault]]:
    """Run a trial; return by what it was caught, empty if by nothing, and the faults that happened.

    A failure that no invariant has named is caught under the name of its error.
    """
    trial = Trial(shop, work)
    try:
        trial.run()
    except Violated as violation:
        return violation.invariant, trial.happened
    except Exception as error:
        return type(error).__name__, trial.happened
    return "", trial.happened
