"""The injector: waits in the trace of a world for the anchors of faults, and does what is to be done there.

Owns which fault is still to happen, which messages an event is about, and whom a fault strikes: its own child, node,
client or host where the event is one's, the addressee where the broker speaks to somebody, else `which` counts among
those that there are. What then happens is in `strikes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from .blow import Blow
from .faults import Anchor, Fault, What
from .strikes import STRIKES, Aim
from .trace import Event, Kind
from .world import World


class Whose:
    """Which messages an event is about, also where it names positions or the number of a settle."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._ids: dict[int, str] = {}
        self._settles: dict[tuple[str, int], list[str]] = {}

    @property
    def ids(self) -> list[str]:
        """Every message that was spoken of, in order."""
        return list(self._names)

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
    (
        What.KILL_CHILD,
        What.CHILD_EXITS,
        What.KILL_NODE,
        What.KILL_BROKER,
        What.KILL_CLIENT,
        What.POWER_LOSS,
        What.BIT_FLIP,
        What.TRUNCATED_TAIL,
    )
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
        aim, do = STRIKES[fault.what]
        whom = self._whom(aim, fault, event)
        if whom:
            self._note(fault, whom)
            do(Blow(self.world, fault, whom))

    def _note(self, fault: Fault, lane: str) -> None:
        self.done.append(fault)
        self.world.trace.note(Kind.FAULT, lane, what=str(fault.what), at=fault.at.words())

    def _whom(self, aim: Aim, fault: Fault, event: Event) -> str:
        """Return the lane, host or message that a fault strikes; empty: there is none."""
        world = self.world
        match aim:
            case Aim.NOBODY:
                return world.broker.lane
            case Aim.BROKER:
                return world.broker.lane if world.broker.alive else ""
            case Aim.CHILD:
                lanes = [child.lane for child in world.children]
            case Aim.NODE:
                lanes = [node.lane for node in world.nodes if node.is_serving]
            case Aim.CLIENT:
                lanes = [client.process.lane for client in world.clients if client.process.alive]
            case Aim.LINK:
                lanes = [process.lane for process in world.peers if world.link(process.lane) is not None]
            case Aim.HOST:
                lanes = list(dict.fromkeys([*(process.host for process in world.peers), world.broker.host]))
                if event.lane == world.broker.lane and "to" not in event.facts:
                    return world.broker.host
            case Aim.MESSAGE:
                ids = self._whose.learn(event)[:1] or self._whose.ids
                return ids[fault.which % len(ids)] if ids else ""
        return _of_event(lanes, event, fault.which)


def _is_of(event: Event, lane: str) -> bool:
    """Whether an event is about this lane, or a child of it."""
    return any(name == lane or name.startswith(f"{lane}/") for name in (event.lane, event.facts.get("to", "")))


def _of_event(lanes: Sequence[str], event: Event, which: int) -> str:
    """Whom an event is about: of these the one whose lane it is on, or to whom it speaks, or the parent of either."""
    for lane in (event.lane, event.facts.get("to", "")):
        if lane in lanes:
            return str(lane)
        parent = next((each for each in lanes if lane.startswith(f"{each}/")), "")
        if parent:
            return parent
    return lanes[which % len(lanes)] if lanes else ""
