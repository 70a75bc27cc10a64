"""What a referee knows: of each position, of what is on a disk, and of what the world did.

Owns no judgement: these are tables that a simulated world fills and the referee reads.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from ..message import Envelope
from ..store.records import ActorState, Dead, ResultRow


class Known(msgspec.Struct):
    """What the referee knows of one position."""

    position: int
    envelope: Envelope
    mailbox: str
    priority: int
    due: int
    session: str
    #: Its id's first position: neither a retry nor a redrive.
    first: bool
    #: Session and its number of breaks when it was leased last.
    leased: tuple[str, int, int] | None = None


class Remains(msgspec.Struct):
    """What is on a disk when a store is opened on it. Rows: count and mask by base; leases: those that stand there."""

    rows: dict[int, tuple[int, int]]
    results: dict[str, ResultRow]
    pasts: dict[int, bytes]
    dead: dict[int, Dead]
    numbers: dict[str, int]
    leases: dict[int, None]
    states: dict[str, ActorState] = {}


class Facts:
    """What the world did, as far as it justifies anything."""

    def __init__(self) -> None:
        self.breaks = Counter[str]()
        #: Sessions whose process is gone: whatever they have may go to others.
        self.gone: dict[str, None] = {}
        #: Positions of which a child said a terminal outcome; (position, lease) that it gave back or asked for again.
        self.said: dict[int, int] = {}
        self.renewed: dict[int, None] = {}
        #: (position, lease) -> the state of its actor that the child said with its end.
        self.snapshots: dict[tuple[int, int], bytes] = {}
        #: The same -> the state that it knew before, where that is known.
        self.before: dict[tuple[int, int], bytes] = {}
        self.returned: dict[tuple[int, int], None] = {}
        #: Deaths of processes, nodes and links with this id's body running, or only held.
        self.died = Counter[str]()
        self.timed_out = Counter[str]()
        self.held_at_loss = Counter[str]()
        self.killed: dict[str, None] = {}
        self.revoked: dict[str, None] = {}
        self.purged: dict[str, int] = {}
        self.redriven: dict[str, None] = {}
        self.forgotten: dict[str, None] = {}
        #: Ids that may have been lost or doubled: their mailbox did not promise to survive what happened.
        self.excused: dict[str, None] = {}
        #: Sessions of quarantine children.
        self.quarantine: dict[str, None] = {}
        #: Ids of messages of which the store knows nothing.
        self.transient: dict[str, None] = {}

    def broke(self, session: str, since: int) -> bool:
        """Whether the session has broken since it had broken so often."""
        return session in self.gone or self.breaks[session] > since
