"""The children of one supervisor, in start order, with what each is doing and until when.

Owns the record of a child (`Child`), the order of starts, the numbering of incarnations and the deadlines.
It decides nothing: `tree` moves the states.

    idle      not running, and nobody waits for it: not started yet, finished or terminated
    ended     ended before the supervisor was up; judged when it is
    waiting   not running, to be started: in its turn, after its delay
    starting  asked to start, not up yet
    running   up
    stopping  asked to stop, or being killed

Incarnations grow by one with each start and are never used twice, not even by another child that takes
the name of a deleted one: it begins above all that were ever deleted. So one number is remembered instead
of every name that ever was.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from enum import StrEnum

from .backoff import Failures
from .reasons import NO_SUCH_CHILD, ExitReason
from .spec import ChildSpec

#: Deadlines that were met lie in the heap until their time; swept when they outnumber the others.
_STALE_DEADLINES_MAX = 64


class ChildState(StrEnum):
    """What a child is doing."""

    IDLE = "idle"
    ENDED = "ended"
    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


class Fate(StrEnum):
    """What becomes of a child that its supervisor stops, once it is gone."""

    STAYS = "stays"  # idle, with its spec
    RETURNS = "returns"  # is started again with its group
    LEAVES = "leaves"  # its spec is dropped


class Child:
    """One child: its spec, its current incarnation, its state and what is known for the next step."""

    __slots__ = (
        "added_by_request",
        "due",
        "failures",
        "fate",
        "incarnation",
        "killed",
        "last_reason",
        "spec",
        "start_request",
        "state",
        "stop_requests",
        "timed_out",
    )

    def __init__(self, spec: ChildSpec, incarnation: int) -> None:
        self.spec = spec
        #: Of the latest start; that of the one to come is one more.
        self.incarnation = incarnation
        self.state = ChildState.IDLE
        #: Boot time: waiting: not before; starting and stopping: killed then. None: no limit.
        self.due: int | None = None
        self.failures = Failures()
        #: Set while the supervisor means to stop it, also before its turn has come.
        self.fate: Fate | None = None
        self.killed = False
        self.timed_out = False
        self.last_reason: ExitReason = NO_SUCH_CHILD
        self.added_by_request = False
        self.start_request: int | None = None
        self.stop_requests: list[int] = []

    @property
    def alive(self) -> bool:
        """Whether an incarnation exists, or may."""
        return self.state in _ALIVE


_ALIVE = frozenset({ChildState.STARTING, ChildState.RUNNING, ChildState.STOPPING})


class Roster:
    """All children by name, in start order."""

    __slots__ = ("_children", "_deadlines", "_highest_deleted", "_serial")

    def __init__(self) -> None:
        self._children: dict[str, Child] = {}
        self._highest_deleted = 0
        # A heap of (due, serial, name); an entry counts only while it is still its child's `due`.
        self._deadlines: list[tuple[int, int, str]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Child]:
        return iter(self._children.values())

    def __reversed__(self) -> Iterator[Child]:
        return reversed(self._children.values())

    def get(self, name: str) -> Child | None:
        """Return the child of this name, or None."""
        return self._children.get(name)

    def names(self) -> list[str]:
        """Return the names in start order."""
        return list(self._children)

    def add(self, spec: ChildSpec) -> Child:
        """Append a child that does not exist yet."""
        child = Child(spec, self._highest_deleted)
        self._children[spec.name] = child
        return child

    def delete(self, name: str) -> None:
        """Drop a child and its spec."""
        child = self._children.pop(name)
        self._highest_deleted = max(self._highest_deleted, child.incarnation)

    def reset(self, specs: tuple[ChildSpec, ...]) -> None:
        """Begin again with these children, none of them running; their incarnations go on counting."""
        before = self._children
        self._children = {}
        self._deadlines.clear()
        for spec in specs:
            old = before.pop(spec.name, None)
            self._children[spec.name] = Child(spec, self._highest_deleted if old is None else old.incarnation)
        for old in before.values():
            self._highest_deleted = max(self._highest_deleted, old.incarnation)

    def set_due(self, child: Child, due: int | None) -> None:
        """Set the deadline of a child, in boot microseconds, in place of the one it had."""
        child.due = due
        if due is None:
            return
        self._serial += 1
        heapq.heappush(self._deadlines, (due, self._serial, child.spec.name))
        if len(self._deadlines) > 2 * len(self._children) + _STALE_DEADLINES_MAX:
            self._deadlines = [entry for entry in self._deadlines if self._counts(entry)]
            heapq.heapify(self._deadlines)

    def next_due(self) -> int | None:
        """Return the earliest deadline of any child, or None."""
        while self._deadlines:
            if self._counts(self._deadlines[0]):
                return self._deadlines[0][0]
            heapq.heappop(self._deadlines)
        return None

    def take_due(self, now: int) -> Child | None:
        """Return a child whose deadline has come, the earliest first, and clear that deadline."""
        due = self.next_due()
        if due is None or due > now:
            return None
        child = self._children[heapq.heappop(self._deadlines)[2]]
        child.due = None
        return child

    def _counts(self, entry: tuple[int, int, str]) -> bool:
        due, _, name = entry
        child = self._children.get(name)
        return child is not None and child.due == due
