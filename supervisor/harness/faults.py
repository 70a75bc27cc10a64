"""What goes wrong in a simulated world, and when: faults anchored to what happens in it.

Owns the kinds of fault (`What`), the anchor that says at which event one happens (`Anchor`), and the injector that
waits for these events and does it. A fault is tied to an event rather than to a time ("at the second DELIVER"), so
that it still means the same when the workload around it shrinks.

Whom it strikes follows from the event: its own child, node or client where the event is one's, the addressee where
the broker speaks to somebody, else `which` counts among those that there are. An event is heard before it has
consequences: a child that is killed at its SETTLE has said nothing; with `DROP` the link breaks under the very message
that the event tells of.

`default()` names what a durable cluster promises to survive. Faults outside of these promises (`OUTSIDE`) are there
for who wants to see a test fail. `NOT_THERE_YET` names what the specification of faults knows and this world does
not have.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from .child_process import ChildProcess
from .client import SECOND
from .clockwork import Process
from .node_process import NodeProcess
from .trace import Event, Kind
from .world import World

#: How long what is stopped, slow or gone stays so, unless the fault says otherwise.
AWAY_SECONDS: Final = 2.0
#: What a slow link adds one way.
SLOW_LINK: Final = 200_000
#: What a slow disk adds to a commit.
SLOW_COMMIT: Final = 300_000


class What(enum.StrEnum):
    """The kinds of fault."""

    #: SIGKILL, or the OOM killer, to a child.
    KILL_CHILD = "kill -9 child"
    #: A child calls os._exit(0).
    CHILD_EXITS = "child exits with 0"
    #: SIGKILL to a whole worker node; another one comes after a while.
    KILL_NODE = "kill -9 node"
    #: SIGKILL to the broker; it is started again after a while.
    KILL_BROKER = "kill -9 broker"
    #: SIGKILL to a client.
    KILL_CLIENT = "kill -9 client"
    #: SIGSTOP, and later SIGCONT. A node that is stopped for long is taken for dead, and goes on afterwards.
    PAUSE_CHILD = "pause child"
    PAUSE_NODE = "pause node"
    PAUSE_BROKER = "pause broker"
    #: A link breaks, and what was underway on it is lost.
    DROP = "drop"
    #: A link breaks, and what was underway arrives.
    CUT = "cut link"
    #: Nothing arrives on a link any more, and nobody knows until the heartbeats tell (half-open).
    FREEZE = "freeze link"
    #: A link is held up for a while, and then everything arrives.
    HOLD_UP = "hold up link"
    #: A link is slow for a while.
    SLOW_LINK = "slow link"
    #: The broker's host loses its power.
    POWER_LOSS = "power loss"
    #: The broker's disk is full for a while.
    DISK_FULL = "disk full"
    #: A sync of the broker's disk fails; the broker stops and is started again.
    SYNC_FAILS = "fsync error"
    #: Commits take long for a while.
    SLOW_SYNC = "slow fsync"
    #: The broker's process ends within a commit (only under the real store).
    DIE_IN_COMMIT = "kill -9 broker in a commit"
    #: A sync answers and does nothing, and later the power is lost (only under the real store).
    SYNC_LIES = "fsync lie"
    #: The wall clock of everybody jumps forward, or back.
    WALL_FORWARD = "wall clock forward"
    WALL_BACK = "wall clock back"


#: What is not promised to be survived.
OUTSIDE: Final = (What.SYNC_LIES,)
#: What `default()` leaves out although nothing that was accepted is lost by it: a client that is killed may have sent
#: or not, and a full disk refuses calls, so that a test must ask what was `accepted` before it asks for results.
NOT_BY_DEFAULT: Final = (What.KILL_CLIENT, What.DISK_FULL, *OUTSIDE)

#: Kinds of fault that the specification names and that need a part which the simulated world does not have.
NOT_THERE_YET: Final[dict[str, str]] = {
    "partition of a host": "the network has links and no hosts: hold up or freeze each link",
    "corrupt byte, truncated frame": "the network carries messages whole",
    "stale identity at reconnect": "links of the simulated network have no identities",
    "EIO on read, bit flip, folder gone": "found at the next start of the broker, which nobody mends here",
    "clock of one host": "all hosts of a world share one clock",
    "rolling upgrade": "there is one version of the code",
    "10,000 mailboxes, stalled subscriber": "workloads are the test's to draw",
    "failover, epoch race": "brokers have no standby yet",
    "PostgreSQL": "there is no such store yet",
}
#: What cannot happen to links over TCP.
CANNOT_BE: Final[dict[str, str]] = {
    "duplicate": "a link carries each message once; doubles come from sending again after DROP and CUT",
    "reorder": "a link carries messages in order; other links overtake it when it is slow",
}


class Anchor(msgspec.Struct, frozen=True):
    """An event: the `nth` of this kind, of this task and lane if they are named.

    `task` is the id of a message or the name of a task.
    """

    kind: Kind
    nth: int = 1
    task: str = ""
    lane: str = ""

    def words(self) -> str:
        """Say when it is."""
        whose = "".join(f" of {name}" for name in (self.task, self.lane) if name)
        return f"{self.kind}{whose} no. {self.nth}" if self.nth != 1 else f"{self.kind}{whose}"


class Fault(msgspec.Struct, frozen=True):
    """One thing that goes wrong, at an anchor. `which` counts among those that it may strike; `seconds` is how long
    it lasts, for those that last."""

    what: What
    at: Anchor
    which: int = 0
    seconds: float = AWAY_SECONDS

    def words(self) -> str:
        """Say what happens and when."""
        return f"{self.what} at {self.at.words()}"


def default() -> tuple[What, ...]:
    """Return every kind that a durable cluster promises to survive and in which each call is accepted in the end."""
    return tuple(what for what in What if what not in NOT_BY_DEFAULT)


def every() -> tuple[What, ...]:
    """Return every kind within what is promised; calls may be refused, or be lost with their client."""
    return tuple(what for what in What if what not in OUTSIDE)


def none() -> tuple[What, ...]:
    """Return no kind: a calm world, in which only the order of things varies."""
    return ()


def deaths() -> tuple[What, ...]:
    """Return those that end a process."""
    return What.KILL_CHILD, What.CHILD_EXITS, What.KILL_NODE, What.KILL_BROKER, What.POWER_LOSS


class Whose:
    """Which messages an event is about, also where it names positions or the number of a settle."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._ids: dict[int, str] = {}
        self._settles: dict[tuple[str, int], list[str]] = {}

    def learn(self, event: Event) -> list[str]:
        """Take down what it tells; return the ids and task names of its messages."""
        facts = event.facts
        ids = [facts["id"]] if "id" in facts else list(facts.get("ids", ()))
        if "task" in facts:
            self._names[facts["id"]] = facts["task"]
        elif event.kind is Kind.PUBLISH:
            self._names |= zip(ids, facts["tasks"], strict=True)
        if "position" in facts and "id" in facts:
            self._ids[facts["position"]] = facts["id"]
        if "positions" in facts:
            ids = [self._ids[position] for position in facts["positions"] if position in self._ids]
        if event.kind is Kind.SETTLE:
            self._settles[event.lane, facts["number"]] = ids
        elif event.kind is Kind.APPLIED:
            ids = self._settles.get((facts["to"], facts["number"]), [])
        return [*ids, *(self._names[id] for id in ids if id in self._names)]


class Waiting:
    """Something that will be done at an anchor, once."""

    def __init__(self, anchor: Anchor, do: Callable[[Event], object], words: str, *, deadly: bool = False) -> None:
        self.anchor = anchor
        self.do = do
        self.words = words
        #: It may end whoever has the turn, and with it this turn.
        self.deadly = deadly
        self.seen = 0


_DEADLY: Final = frozenset(
    (What.KILL_CHILD, What.CHILD_EXITS, What.KILL_NODE, What.KILL_BROKER, What.KILL_CLIENT, What.POWER_LOSS)
)


class Injector:
    """Waits for anchors in the trace of a world, and does what is to be done there.

    Make it after everybody else who listens: a death at an event ends the telling of this event.
    """

    def __init__(self, world: World, faults: Iterable[Fault] = ()) -> None:
        self.world = world
        #: Faults that happened, in order.
        self.done: list[Fault] = []
        self._whose = Whose()
        self._waiting: list[Waiting] = []
        for fault in faults:
            self.arm(fault)
        world.trace.listen(self._hear)

    def arm(self, fault: Fault) -> None:
        """Let this fault wait for its event."""
        self.wait(fault.at, lambda event: self.strike(fault, event), fault.words(), deadly=fault.what in _DEADLY)

    def wait(self, anchor: Anchor, do: Callable[[Event], object], words: str, *, deadly: bool = False) -> None:
        """Do something else at an anchor, once."""
        self._waiting.append(Waiting(anchor, do, words, deadly=deadly))

    def disarm(self) -> list[str]:
        """Forget what has not happened; return what that was, in words."""
        left = [waiting.words for waiting in self._waiting]
        self._waiting = []
        return left

    def _hear(self, event: Event) -> None:
        if event.kind is Kind.FAULT:
            return
        messages = self._whose.learn(event)
        due: list[Waiting] = []
        for waiting in self._waiting:
            anchor = waiting.anchor
            if event.kind is not anchor.kind or (anchor.lane and not _is_of(event, anchor.lane)):
                continue
            if anchor.task and anchor.task not in messages:
                continue
            waiting.seen += 1
            if waiting.seen == anchor.nth:
                due.append(waiting)
        if due:
            self._waiting = [waiting for waiting in self._waiting if waiting not in due]
            # What is deadly goes last: of what stands behind it nothing might be done.
            for waiting in sorted(due, key=lambda waiting: waiting.deadly):
                waiting.do(event)

    # --- what happens --------------------------------------------------------------------------------------------

    def strike(self, fault: Fault, event: Event) -> None:
        """Do it, if there is anybody whom it can strike."""
        world = self.world
        if fault.what in _OF_BROKER:
            if world.broker.alive:
                self._note(fault, world.broker.lane)
                _OF_BROKER[fault.what](world, round(fault.seconds * SECOND))
        elif fault.what in _OF_LINK:
            lane = self._lane_of_link(fault, event)
            if lane:
                self._note(fault, lane)
                _OF_LINK[fault.what](world, lane, round(fault.seconds * SECOND))
        else:
            victim = self._victim(fault, event)
            if victim is not None:
                self._note(fault, victim.lane)
                _OF_PROCESS[fault.what](world, victim, round(fault.seconds * SECOND))

    def _note(self, fault: Fault, lane: str) -> None:
        self.done.append(fault)
        self.world.trace.note(Kind.FAULT, lane, what=str(fault.what), at=fault.at.words())

    def _victim(self, fault: Fault, event: Event) -> Process | None:
        world = self.world
        if fault.what is What.KILL_CLIENT:
            clients = [client.process for client in world.clients if client.process.alive]
            return _of_event(clients, event, fault.which)
        nodes = [node for node in world.nodes if node.alive]
        if fault.what in (What.KILL_NODE, What.PAUSE_NODE):
            return _of_event(nodes, event, fault.which)
        return _of_event(world.children, event, fault.which)

    def _lane_of_link(self, fault: Fault, event: Event) -> str:
        world = self.world
        processes = [*world.children, *world.nodes, *(client.process for client in world.clients)]
        alive = [process for process in processes if process.alive and world.link(process.lane) is not None]
        chosen = _of_event(alive, event, fault.which)
        return "" if chosen is None else chosen.lane


def _is_of(event: Event, lane: str) -> bool:
    """Whether an event is about this lane, or a child of it."""
    return any(name == lane or name.startswith(f"{lane}/") for name in (event.lane, event.facts.get("to", "")))


def _of_event(processes: Sequence[Process], event: Event, which: int) -> Process | None:
    """Whom an event is about: of these the one on its lane, or to whom it speaks, or the parent of either."""
    for lane in (event.lane, event.facts.get("to", "")):
        for process in processes:
            if process.lane == lane:
                return process
        for process in processes:
            if lane.startswith(f"{process.lane}/"):
                return process
    return processes[which % len(processes)] if processes else None


def _kill_child(world: World, victim: Process, away: int) -> None:
    assert isinstance(victim, ChildProcess)
    victim.kill(9)


def _exit_child(world: World, victim: Process, away: int) -> None:
    assert isinstance(victim, ChildProcess)
    victim.exit(0)


def _kill_node(world: World, victim: Process, away: int) -> None:
    assert isinstance(victim, NodeProcess)
    world.clockwork.after(away, world.add_node)
    victim.kill()


def _kill_client(world: World, victim: Process, away: int) -> None:
    for client in world.clients:
        if client.process is victim:
            client.kill()


def _pause(world: World, victim: Process, away: int) -> None:
    victim.pause()

    def go_on() -> None:
        if victim.paused and victim.alive:
            victim.resume()

    world.clockwork.after(away, go_on)


def _kill_broker(world: World, away: int) -> None:
    world.clockwork.after(away, world.restart_broker)
    world.kill_broker()


def _power_loss(world: World, away: int) -> None:
    world.clockwork.after(away, world.restart_broker)
    world.kill_broker(power=True)


def _disk_full(world: World, away: int) -> None:
    world.disk.fill()
    world.clockwork.after(away, world.disk.heal)


def _slow_sync(world: World, away: int) -> None:
    broker = world.broker
    usual = broker.commit_time
    broker.commit_time = usual + SLOW_COMMIT

    def be_quick() -> None:
        broker.commit_time = usual

    world.clockwork.after(away, be_quick)


def _die_in_commit(world: World, away: int) -> None:
    world.disk.stop(0)


def _lie(world: World, away: int) -> None:
    if world.disk.lie():
        world.observed.disk_lied = True
        world.clockwork.after(SECOND // 1_000, lambda: _power_loss(world, away))


def _cut(world: World, lane: str, *, lose: bool) -> None:
    link = world.link(lane)
    if link is not None:
        world.clockwork.network.cut(link, lose_underway=lose)


def _freeze(world: World, lane: str, away: int) -> None:
    link = world.link(lane)
    if link is not None:
        world.clockwork.network.freeze(link)


def _hold_up(world: World, lane: str, away: int) -> None:
    link = world.link(lane)
    if link is not None:
        network = world.clockwork.network
        network.freeze(link)
        world.clockwork.after(away, lambda: network.thaw(link))


def _slow_link(world: World, lane: str, away: int) -> None:
    link = world.link(lane)
    if link is not None:
        network = world.clockwork.network
        network.delay(link, SLOW_LINK)
        world.clockwork.after(away, lambda: network.delay(link, 0))


_OF_PROCESS: Final[dict[What, Callable[[World, Process, int], Any]]] = {
    What.KILL_CHILD: _kill_child,
    What.CHILD_EXITS: _exit_child,
    What.KILL_NODE: _kill_node,
    What.KILL_CLIENT: _kill_client,
    What.PAUSE_CHILD: _pause,
    What.PAUSE_NODE: _pause,
}
_OF_LINK: Final[dict[What, Callable[[World, str, int], Any]]] = {
    What.DROP: lambda world, lane, away: _cut(world, lane, lose=True),
    What.CUT: lambda world, lane, away: _cut(world, lane, lose=False),
    What.FREEZE: _freeze,
    What.HOLD_UP: _hold_up,
    What.SLOW_LINK: _slow_link,
}
_OF_BROKER: Final[dict[What, Callable[[World, int], Any]]] = {
    What.KILL_BROKER: _kill_broker,
    What.PAUSE_BROKER: lambda world, away: _pause(world, world.broker, away),
    What.POWER_LOSS: _power_loss,
    What.DISK_FULL: _disk_full,
    What.SYNC_FAILS: lambda world, away: world.disk.fail(),
    What.SLOW_SYNC: _slow_sync,
    What.DIE_IN_COMMIT: _die_in_commit,
    What.SYNC_LIES: _lie,
    What.WALL_FORWARD: lambda world, away: world.clockwork.clock.step_wall(away * 60),
    What.WALL_BACK: lambda world, away: world.clockwork.clock.step_wall(-away * 60),
}
