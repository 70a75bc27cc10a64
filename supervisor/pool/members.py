"""The children of one pool, by number, with what each is doing and until when.

Owns the record of a child (`Member`) and the roll of all of them. It decides nothing: `machine` moves the
states.

    forking   ordered from the spawner, not forked yet
    starting  forked, not ready yet
    ready     at work
    leaving   asked to stop, or said that it leaves: it is not counted any more, and may finish what it runs
    doomed    SIGKILL is on its way

A member is *active* in the first three states: those are what a pool keeps the right number of.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from ...transport.verbs import ChildKind
from .watches import Watches


class MemberState(StrEnum):
    """What a child is doing."""

    FORKING = "forking"
    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"
    DOOMED = "doomed"


_ACTIVE = frozenset({MemberState.FORKING, MemberState.STARTING, MemberState.READY})
_GOING = frozenset({MemberState.LEAVING, MemberState.DOOMED})


class Member:
    """One child process, from the order to fork it to its end. Times are boot microseconds."""

    __slots__ = (
        "asked",
        "ended_by_stop",
        "generation",
        "kill_due",
        "kind",
        "number",
        "pid",
        "ready_at",
        "slots",
        "start_due",
        "state",
        "term_due",
        "too_slow",
        "unusable",
        "watches",
    )

    def __init__(
        self, number: int, kind: ChildKind, generation: int, slots: int, start_due: int, watches: Watches
    ) -> None:
        self.number = number
        self.kind = kind
        self.generation = generation
        self.slots = slots
        self.state = MemberState.FORKING
        self.pid = 0
        self.ready_at: int | None = None
        #: It must be ready by then; None: no limit, the broker cannot be reached.
        self.start_due: int | None = start_due
        #: It was told to stop, or told us that it leaves: its end is no surprise.
        self.asked = False
        #: The way to the end of a stop that it does not follow by itself.
        self.term_due: int | None = None
        self.kill_due: int | None = None
        #: A signal was sent because of the stop: what ran is not to blame.
        self.ended_by_stop = False
        self.too_slow = False
        self.unusable: str | None = None
        self.watches = watches

    @property
    def name(self) -> str:
        """How the log names it."""
        kind = "" if self.kind == ChildKind.POOL else f"{self.kind.name.lower()} "
        return f"{kind}child {self.number} (pid {self.pid})"

    @property
    def active(self) -> bool:
        """Whether it counts as one of the children that the pool keeps."""
        return self.state in _ACTIVE

    @property
    def going(self) -> bool:
        """Whether its end is on its way."""
        return self.state in _GOING

    def next_due(self) -> int | None:
        """Return when something must be done about it next, or None."""
        dues = [self.start_due, self.term_due, self.kill_due]
        if self.state is not MemberState.DOOMED:
            dues.append(self.watches.next_due())
        return min((due for due in dues if due is not None), default=None)


class Roll:
    """All members by number, in order of their forks. Numbers begin at 1 and are never used again."""

    __slots__ = ("_last", "_members")

    def __init__(self) -> None:
        self._members: dict[int, Member] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        """Walk a copy: members may be removed on the way."""
        return iter(list(self._members.values()))

    def get(self, number: int) -> Member | None:
        """Return the member of this number unless it has ended."""
        return self._members.get(number)

    def add(self, kind: ChildKind, generation: int, slots: int, start_due: int, watches: Watches) -> Member:
        """Take in a child that is about to be forked."""
        self._last += 1
        member = Member(self._last, kind, generation, slots, start_due, watches)
        self._members[self._last] = member
        return member

    def remove(self, number: int) -> Member | None:
        """Forget a child that has ended, and return it."""
        return self._members.pop(number, None)

    def active(self, kind: ChildKind) -> list[Member]:
        """Return the children of a kind that count, in order of their forks."""
        return [member for member in self._members.values() if member.kind == kind and member.active]

    def of_generation(self, generation: int) -> list[Member]:
        """Return the children of one spawner, going ones included."""
        return [member for member in self._members.values() if member.generation == generation]

    def next_due(self) -> int | None:
        """Return the earliest time at which something must be done about any of them, or None."""
        dues = [due for member in self._members.values() if (due := member.next_due()) is not None]
        return min(dues, default=None)
