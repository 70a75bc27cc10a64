"""The journal: what one pass of the broker wants on disk, and what may leave only after it is there.

Spec D7 in one place. During a pass the parts of the broker `write` records and `say` verbs. At its end `cut` makes
one Persist with a serial of everything written, and keeps the verbs under that serial. `committed` gives them
back when the commit is on disk. A verb that depends on nothing new still waits for the commits before it, so that
what a session is told stays in order.

When commits fail (a full disk), `failed` gives every uncommitted batch back, and the broker writes anew what has room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from ..store.records import Drop, Gone, Record, Synchronous, Unlease
from ..store.records import Lease as LeaseRecord
from ..verbs import Durability, FromBroker
from .events import Persist
from .outflow import VERB_BYTES

if TYPE_CHECKING:
    from .held import Lease, Message, Row
    from .sessions import Session


class Say(msgspec.Struct, gc=False):
    """A verb for a session, to be sent when the commit is there. `link`: only on that link (0: whichever it has)."""

    session: Session
    verb: FromBroker
    link: int = 0
    #: About what it takes on the wire.
    bytes: int = VERB_BYTES


class Unique(msgspec.Struct):
    """A message whose chosen id the store must judge first. `message`: None if it is in the store's tail only."""

    id: str
    row: Row
    message: Message | None


class Accepted(msgspec.Struct):
    """One publish of a batch: what must be undone if there was no room for it."""

    session: str
    number: int
    bytes: int
    rows: list[Row] = []
    messages: list[Message] = []
    #: Rows of which this many messages were counted but are in the store's tail only.
    tails: list[tuple[Row, int]] = []
    unique: list[Unique] = []


class Batch:
    """Everything under one serial."""

    __slots__ = ("accepted", "records", "says", "serial", "synchronous", "then")

    def __init__(self) -> None:
        self.serial = 0
        self.records: list[Record] = []
        self.says: list[Say] = []
        self.accepted: list[Accepted] = []
        self.synchronous = Synchronous.NORMAL
        #: What to do once committed, apart from speaking.
        self.then: list[Callable[[], None]] = []


class Journal:
    """Batches on their way to the store."""

    def __init__(self) -> None:
        self.serial = 0
        self.open = Batch()
        #: Cut and not yet committed, oldest first.
        self.waiting: deque[Batch] = deque()
        #: Rows that lost messages in this pass.
        self._dirty: dict[int, Row] = {}
        self._over: list[int] = []
        #: Leases of which something came back and something is still out.
        self._shrunk: dict[int, Lease] = {}

    def write(self, record: Record, durability: Durability = Durability.DISK) -> None:
        """Add a record to this pass's commit, which then survives at least what `durability` says."""
        batch = self.open
        batch.records.append(record)
        if durability >= Durability.DISK:
            batch.synchronous = Synchronous.FULL

    def write_all(self, records: Sequence[Record], durability: Durability) -> None:
        """`write` for many, of which one at least must survive so much."""
        batch = self.open
        batch.records.extend(records)
        if durability >= Durability.DISK:
            batch.synchronous = Synchronous.FULL

    def lost(self, row: Row) -> None:
        """This row's mask changed; it is written once a pass."""
        if row.durability:
            self._dirty[row.base] = row

    def over(self, lease: Lease) -> None:
        """This lease has ended."""
        if lease.durability:
            self._over.append(lease.id)

    def shrunk(self, lease: Lease) -> None:
        """Something of this lease came back unsettled: the store must not take it for leased after a restart."""
        if lease.durability:
            self._shrunk[lease.id] = lease

    def say(self, session: Session, verb: FromBroker, link: int = 0, size: int = VERB_BYTES) -> None:
        """Tell the session once everything written so far is committed."""
        self.open.says.append(Say(session, verb, link, size))

    def batches(self) -> list[Batch]:
        """Everything that is not committed, oldest first."""
        return [*self.waiting, self.open]

    def cut(self) -> Persist | None:
        """End the pass: return what to commit, or None when nothing was written.

        Verbs of a pass that wrote nothing join the newest waiting batch; with none waiting they stay in `open`
        and `unblocked` returns them.
        """
        batch = self.open
        records = batch.records
        if self._dirty:
            self._write_masks(batch)
        if self._shrunk:
            self._write_leases(batch)
        if self._over:
            records.append(Unlease(self._over))
            self._over = []
        if not records:
            if self.waiting and (batch.says or batch.then):
                last = self.waiting[-1]
                last.says.extend(batch.says)
                last.then.extend(batch.then)
                self.open = Batch()
            return None
        self.serial += 1
        batch.serial = self.serial
        self.waiting.append(batch)
        self.open = Batch()
        return Persist(batch.serial, records, batch.synchronous)

    def _write_masks(self, batch: Batch) -> None:
        drops: list[int] = []
        for base, row in self._dirty.items():
            if row.durability >= Durability.DISK:
                batch.synchronous = Synchronous.FULL
            if row.left:
                batch.records.append(Gone(base, row.gone))
            else:
                drops.append(base)
        if drops:
            batch.records.append(Drop(drops))
        self._dirty = {}

    def _write_leases(self, batch: Batch) -> None:
        for lease in self._shrunk.values():
            if lease.left:
                held = lease.session.held
                positions = [position for position, message in held.items() if message.lease is lease]
                batch.records.append(LeaseRecord(lease.id, lease.session.id, positions))
        self._shrunk = {}

    def unblocked(self) -> list[Say]:
        """What was said in a pass that wrote nothing while nothing was waiting: it may leave now."""
        says = self.open.says
        if says:
            self.open.says = []
        return says

    def committed(self, serial: int) -> list[Batch]:
        """Everything up to `serial` is on disk: its batches, oldest first."""
        done: list[Batch] = []
        while self.waiting and self.waiting[0].serial <= serial:
            done.append(self.waiting.popleft())
        return done

    def failed(self) -> list[Batch]:
        """No batch that is waiting was committed: they are given back, oldest first, and forgotten here."""
        lost = list(self.waiting)
        self.waiting.clear()
        return lost
