"""Mailboxes: lanes by priority whose heads are in memory and whose tails rest in the store.

A *lane* holds the ready messages of one mailbox and priority. Its head is a deque in memory, bounded by messages
and bytes; what arrives beyond that only counts as tail and is read ahead when the head runs low. The invariant that
makes this safe: every unsettled message without a due time in a row with base <= `after` is in memory, and every row
with base > `after` is in the tail, or in `Desk.known`, which a read skips. So a broker's memory does not grow with
its backlog.

An *actor's* mailbox (its name begins with "actor:") is owned by one session at a time and keeps its order; while
some of its messages are suspects, only those go out, one at a time, to a quarantine child (spec D25).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from ..verbs import Durability
from .held import Message, Row

if TYPE_CHECKING:
    from .sessions import Session

ACTOR_PREFIX = "actor:"
_position = attrgetter("position")


class Declared(msgspec.Struct):
    """A mailbox's own settings, kept in the store; None follows the broker's."""

    max_messages: int | None = None
    on_full: str | None = None
    durability: int | None = None


class Lane:
    """The ready messages of one mailbox and priority."""

    __slots__ = (
        "after",
        "bytes",
        "head",
        "mailbox",
        "newest",
        "priority",
        "reading",
        "returned",
        "tail",
        "unjudged",
    )

    def __init__(self, mailbox: Mailbox, priority: int) -> None:
        self.mailbox = mailbox
        self.priority = priority
        self.head: deque[Message] = deque()
        #: What came back and is not merged into the head yet.
        self.returned: list[Message] = []
        #: Bytes of bodies in the head and among the returned.
        self.bytes = 0
        #: Messages that are in the store only.
        self.tail = 0
        #: Base of the last row that was left to the store.
        self.newest = 0
        #: Base of the last row that was loaded.
        self.after = -1
        #: Token of the read that is under way; 0: none. The answer to another one is out of date.
        self.reading = 0
        #: Messages in the head whose chosen id the store has not judged: nothing passes them.
        self.unjudged = 0

    def __len__(self) -> int:
        return len(self.head) + len(self.returned) + self.tail

    def has_room(self, messages_max: int, bytes_max: int) -> bool:
        """Whether a new row may be kept in memory."""
        return not self.tail and len(self.head) < messages_max and self.bytes < bytes_max

    def append(self, row: Row, messages: Iterable[Message]) -> None:
        """Add a newly accepted or newly read row of the store at the end."""
        self.after = row.base
        head = self.head
        for message in messages:
            head.append(message)
            self.bytes += len(message.envelope.body)

    def leave(self, base: int, count: int) -> None:
        """Leave a newly accepted row to the store."""
        self.tail += count
        self.newest = base

    def put_behind(self, message: Message) -> None:
        """Add a message at the end that no read would find here: it waited elsewhere, or the store has it not."""
        self.head.append(message)
        self.bytes += len(message.envelope.body)

    def put_back(self, message: Message) -> None:
        """Put a message at its old place in front: `merge` does it before the head is looked at."""
        self.returned.append(message)
        self.bytes += len(message.envelope.body)

    def merge(self) -> None:
        """Put what came back in front, by position, whatever the order in which it came back."""
        returned, self.returned = self.returned, []
        returned.sort(key=_position)
        last = returned[-1].position
        head = self.head
        if head and head[0].position < last:
            while head and head[0].position < last:
                returned.append(head.popleft())
            returned.sort(key=_position)
        head.extendleft(reversed(returned))

    def remove(self, message: Message) -> None:
        """Take a message out of the head, wherever it stands; nothing if it is not there."""
        if self.returned:
            self.merge()
        try:
            self.head.remove(message)
        except ValueError:
            return
        self.bytes -= len(message.envelope.body)

    def take(self, ids: dict[str, None]) -> list[Message]:
        """Take out the messages with these ids, in order, without those that the store has not judged."""
        if self.returned:
            self.merge()
        taken = [m for m in self.head if m.envelope.id in ids and not m.row.unjudged]
        if taken:
            self.head = deque(m for m in self.head if m.envelope.id not in ids or m.row.unjudged)
            self.bytes -= sum(len(message.envelope.body) for message in taken)
        return taken

    def pop(self) -> Message:
        """Take the first message of the head."""
        message = self.head.popleft()
        self.bytes -= len(message.envelope.body)
        return message


class Mailbox:
    """One named mailbox: its lanes, its counts and who consumes from it."""

    __slots__ = (
        "acquired",
        "actor_class",
        "consumers",
        "dead",
        "declared",
        "depth",
        "is_actor",
        "lanes",
        "name",
        "owner",
        "scheduled",
        "since",
        "started",
        "starved",
        "strongest",
        "suspects",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        #: Highest priority first.
        self.lanes: list[Lane] = []
        #: Everything unsettled, dead letters apart.
        self.depth = 0
        self.scheduled = 0
        self.acquired = 0
        self.started = 0
        self.dead = 0
        self.declared = Declared()
        #: The most that any of its messages may have been promised: what a lease of them must survive.
        self.strongest = Durability.MEMORY
        #: Sessions of pool children that consume from here.
        self.consumers: list[Session] = []
        #: Nobody can take anything until somebody gains room, or attaches: whoever that is knows of it.
        self.starved = False
        self.is_actor = name.startswith(ACTOR_PREFIX)
        self.actor_class = name[len(ACTOR_PREFIX) :].rsplit(":", 1)[0] if self.is_actor else ""
        #: An actor's: the child that has it, for as long as that child's session is there.
        self.owner: Session | None = None
        #: An actor's: the first lease that its owner got of it; 0: the next lease is.
        self.since = 0
        #: An actor's: its unsettled messages that are suspects.
        self.suspects = 0

    @property
    def ready(self) -> int:
        """Messages that could go out now."""
        return self.depth - self.scheduled - self.acquired - self.started

    def lane(self, priority: int) -> Lane:
        """The lane of this priority, made when it is first used."""
        for index, lane in enumerate(self.lanes):
            if lane.priority == priority:
                return lane
            if lane.priority < priority:
                new = Lane(self, priority)
                self.lanes.insert(index, new)
                return new
        new = Lane(self, priority)
        self.lanes.append(new)
        return new

    def first_lane(self) -> Lane | None:
        """The lane whose head goes out next; None when nothing is ready in memory.

        A lane whose head is empty while its tail is being read holds back the lower ones only for that moment.
        """
        for lane in self.lanes:
            if lane.returned:
                lane.merge()
            if lane.head:
                return lane
            if lane.tail:
                return None
        return None

    def durability(self, default: Durability) -> Durability:
        """What its messages survive."""
        declared = self.declared.durability
        return default if declared is None else Durability(declared)
