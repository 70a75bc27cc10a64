"""What a broker has in memory of one message, its row and its lease.

Who may move what: a `Message` changes its stage only through `desk`, `places`, `dispatch` and `settling`; a `Row` only
loses messages; a `Lease` only shrinks. None of these objects is seen outside of the core.

States of a message (spec P1), in exactly one of which it is: READY (in a lane, or in the store's tail), SCHEDULED
(waits for a due time, or for a quarantine child), ACQUIRED (leased, not known to have started), STARTED (leased, its
body runs), SETTLED (nothing more happens to it). A dead letter is SETTLED here and lives on in the store.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import msgspec

from ..message import Envelope
from ..verbs import Durability
from .past import Past

if TYPE_CHECKING:
    from .mailbox import Mailbox
    from .sessions import Session


class Stage(enum.IntEnum):
    """Where a message stands."""

    READY = 0
    SCHEDULED = 1
    ACQUIRED = 2
    STARTED = 3
    SETTLED = 4


class Row:
    """Messages that share a row of the store: which are gone, and how many are left."""

    __slots__ = (
        "base",
        "count",
        "due",
        "durability",
        "gone",
        "left",
        "loaded",
        "mailbox",
        "priority",
        "publisher",
        "unjudged",
    )

    def __init__(
        self,
        base: int,
        count: int,
        mailbox: Mailbox,
        priority: int,
        publisher: str,
        durability: Durability,
        *,
        due: int = 0,
        gone: int = 0,
    ) -> None:
        self.base = base
        self.count = count
        self.mailbox = mailbox
        self.priority = priority
        #: The session that published it: results of WATCHED messages are pushed there.
        self.publisher = publisher
        #: MEMORY: the store knows nothing of it. Fixed when the row was accepted.
        self.durability = durability
        #: As the store has it: such a row is read by the schedule and never by a lane.
        self.due = due
        self.gone = gone
        self.left = count - gone.bit_count()
        #: Positions (as bits) that have a Message in memory or had one; the rest is still to be read.
        self.loaded = 0
        #: Its chosen id is not yet known to be new: it holds its place and goes nowhere.
        self.unjudged = False

    @property
    def full(self) -> int:
        """The mask of a row of which every message is gone."""
        return (1 << self.count) - 1


class Lease:
    """Messages that went out together to one session. Over when none is left."""

    __slots__ = ("at", "durability", "id", "left", "link", "session")

    def __init__(self, lease: int, session: Session, link: int, left: int, durability: Durability, at: int = 0) -> None:
        self.id = lease
        #: Wall time of the hand-out; 0 if it was before the broker's last start.
        self.at = at
        self.session = session
        #: The link it was (or will be) sent on: after a re-attachment the Deliver is not sent.
        self.link = link
        self.left = left
        self.durability = durability


class Message(msgspec.Struct, gc=False, eq=False):
    """One unsettled message in memory. `gc=False`: `lease` is cleared when the lease ends, so no cycle stays."""

    position: int
    row: Row
    envelope: Envelope
    lease: Lease | None = None
    past: Past | None = None
    stage: int = 0
    #: Hand-outs of this message since this broker started, this one included.
    handed: int = 0
    #: It was revoked while it was out, and whoever runs it was told to end it.
    terminating: bool = False
