"""Mailboxes: lanes by priority whose heads are in memory and whose tails rest in the store.

A *lane* holds the ready messages of one mailbox and priority. Its head is a deque in memory, bounded by messages
and bytes; what arrives beyond that only counts as tail and is read ahead when the head runs low. The invariant that
makes this safe: every unsettled message without a due time in a row with base <= `after` is in memory, and every row
with base > `after` is in the tail. So a broker's memory does not grow with its backlog.

An *actor's* mailbox (its name begins with "actor:") is owned by one session at a time and keeps its order; while its
head is a suspect, only that head goes out, to a quarantine child (spec D25, S12).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from ..verbs import Durability
from .held import Message, Row

if TYPE_CHECKING:
    from .sessions import Session

ACTOR_PREFIX = "actor:"


class Declared(msgspec.Struct):
    """A mailbox's own settings, kept in the store; None follows the broker's."""

    max_messages: int | None = None
    on_full: str | None = None
    durability: int | None = None


class Lane:
    """The ready messages of one mailbox and priority."""

    __slots__ = ("after", "bytes", "head", "mailbox", "priority", "reading", "tail")

    def __init__(self, mailbox: Mailbox, priority: int) -> None:
        self.mailbox = mailbox
        self.priority = priority
        self.head: deque[Message] = deque()
        #: Bytes of bodies in the head, roughly: what went back to the head is counted again when it leaves.
        self.bytes = 0
        #: Messages that are in the store only.
        self.tail = 0
        #: Base of the last row that was loaded.
        self.after = -1
        self.reading = False

    def __len__(self) -> int:
        return len(self.head) + self.tail

    def has_room(self, messages_max: int, bytes_max: int) -> bool:
        """Whether a new row may be kept in memory."""
        return not self.tail and len(self.head) < messages_max and self.bytes < bytes_max

    def append(self, row: Row, messages: Iterable[Message]) -> None:
        """Add a newly accepted or newly read row at the end."""
        self.after = row.base
        head = self.head
        for message in messages:
            head.append(message)
            self.bytes += len(message.envelope.body)

    def put_back(self, message: Message) -> None:
        """Put a message at its old place in front: the head stays ordered by position."""
        head = self.head
        self.bytes += len(message.envelope.body)
        if not head or message.position < head[0].position:
            head.appendleft(message)
            return
        # Few messages come back at a time and they belong near the front.
        index = 0
        for other in head:
            if other.position > message.position:
                break
            index += 1
        head.insert(index, message)

    def put_behind(self, message: Message) -> None:
        """Add a message that was waiting elsewhere at the head's end: the tail keeps what came after `after`."""
        self.head.append(message)
        self.bytes += len(message.envelope.body)

    def remove(self, message: Message) -> None:
        """Take a message out of the head, wherever it stands; nothing if it is not there."""
        try:
            self.head.remove(message)
        except ValueError:
            return
        self.bytes -= len(message.envelope.body)

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
        "blocked_until",
        "consumers",
        "dead",
        "declared",
        "depth",
        "is_actor",
        "lanes",
        "name",
        "owner",
        "quarantined",
        "scheduled",
        "started",
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
        #: Sessions of pool children that consume from here.
        self.consumers: list[Session] = []
        self.is_actor = name.startswith(ACTOR_PREFIX)
        self.actor_class = name[len(ACTOR_PREFIX) :].rsplit(":", 1)[0] if self.is_actor else ""
        self.owner: Session | None = None
        #: The head is a suspect: it goes to a quarantine child, alone.
        self.quarantined = False
        #: Wall time before which a suspect head must not go out.
        self.blocked_until = 0

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
            if lane.head:
                return lane
            if lane.tail:
                return None
        return None

    def durability(self, default: Durability) -> Durability:
        """What its messages survive."""
        declared = self.declared.durability
        return default if declared is None else Durability(declared)
