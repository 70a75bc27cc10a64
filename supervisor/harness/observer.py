"""What can be seen of a simulated broker from outside: every verb, every record, every commit.

Owns the seam at which invariants listen: `Observer` names what there is to see, `Observed` hands it to them and notes
in the trace what a commit has settled for good, and `ObservedStore` stands between a broker and its store. One
`Observed` outlives all lives of a broker. A commit of which nobody was told how it ended (a failed sync, a death within
it) is looked for on the disk when the store is opened again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import msgspec

from ...transport.errors import StoreCorrupt, StoreFailed, StoreFull
from ...transport.message import TERMINAL, Result, State
from ...transport.sim.faults import DiskStopped
from ...transport.store.base import Store
from ...transport.store.records import (
    Append,
    Committed,
    Dead,
    Drop,
    Gone,
    Lease,
    Purge,
    Record,
    Recovered,
    ResultRow,
    Row,
    Session,
    Synchronous,
    Unlease,
)
from ...transport.verbs import FromBroker, ToBroker
from .trace import Facts, Kind, Trace

P = ParamSpec("P")
T = TypeVar("T")
_result = msgspec.msgpack.Decoder(Result)


class Observer:
    """Sees what a broker hears, says, makes and commits. Each method does nothing."""

    def opened(self, recovered: Recovered, store: Store) -> None:
        """Called when a broker begins, at first or again, with what its store found."""

    def heard(self, session: str, verb: ToBroker) -> None:
        """Called before the core is told what a session has said."""

    def broke(self, session: str) -> None:
        """Called before the core is told that a session's link is gone, or when it cuts it."""

    def doubted(self) -> None:
        """Called before the core is told of a frame that is none, or that came on a link which nobody has greeted."""

    def refused(self) -> None:
        """Called after the core was told of it, and has not taken it."""

    def failed(self) -> None:
        """Called when the store has failed: nobody knows what it holds."""

    def said(self, session: str, verb: FromBroker) -> None:
        """Called before a verb leaves."""

    def making(self, records: Sequence[Record]) -> None:
        """Called when records are made, before they are committed."""

    def committed(self, records: Sequence[Record], duplicates: Sequence[int]) -> None:
        """Called when a commit is on the disk, before the core knows. `duplicates` as in `Committed`."""


class Observed(Observer):
    """Hands what is seen of one broker to all who look, through all its lives."""

    def __init__(self, trace: Trace, lane: str) -> None:
        self.observers: list[Observer] = []
        #: The broker's host lost its power since the store was opened last.
        self.power_lost = False
        #: The disk has said of a sync that it was done, and it was not: nothing is promised any more.
        self.disk_lied = False
        self._trace = trace
        self._lane = lane
        #: Commits that failed, or were not told to have ended: each may be on the disk.
        self._unsure: list[Sequence[Record]] = []

    def opened(self, recovered: Recovered, store: Store) -> None:
        """As `Observer.opened`; commits in doubt are told first."""
        unsure, self._unsure = self._unsure, []
        for records in unsure:
            if is_on_disk(records, recovered, store):
                rows = [record.base for record in records if isinstance(record, Append) and record.unique]
                found = {row.base for row in store.read_rows(rows)}
                self.committed(records, [base for base in rows if base not in found])
        for observer in self.observers:
            observer.opened(recovered, store)

    def heard(self, session: str, verb: ToBroker) -> None:
        """As `Observer.heard`."""
        for observer in self.observers:
            observer.heard(session, verb)

    def broke(self, session: str) -> None:
        """As `Observer.broke`."""
        for observer in self.observers:
            observer.broke(session)

    def doubted(self) -> None:
        """As `Observer.doubted`."""
        for observer in self.observers:
            observer.doubted()

    def refused(self) -> None:
        """As `Observer.refused`."""
        for observer in self.observers:
            observer.refused()

    def failed(self) -> None:
        """As `Observer.failed`."""
        for observer in self.observers:
            observer.failed()

    def said(self, session: str, verb: FromBroker) -> None:
        """As `Observer.said`."""
        for observer in self.observers:
            observer.said(session, verb)

    def making(self, records: Sequence[Record]) -> None:
        """As `Observer.making`."""
        for observer in self.observers:
            observer.making(records)

    def committed(self, records: Sequence[Record], duplicates: Sequence[int]) -> None:
        """As `Observer.committed`; then the trace is told of dead letters and of results that are there to stay."""
        for observer in self.observers:
            observer.committed(records, duplicates)
        happened: list[tuple[Kind, str, Facts]] = []
        for record in records:
            if isinstance(record, Dead):
                facts: Facts = {
                    "id": record.id,
                    "mailbox": record.mailbox,
                    "position": record.position,
                    "reason": record.reason,
                }
                happened.append((Kind.DEAD, self._lane, facts))
            elif isinstance(record, ResultRow) and record.state in TERMINAL:
                facts = {"id": record.id, "state": State(record.state).name}
                failure = _result.decode(record.blob).failure
                if failure is not None:
                    facts["failure"] = failure.exc_type or failure.text
                happened.append((Kind.STORED, self._lane, facts))
            elif isinstance(record, Purge):
                happened.append((Kind.PURGED, self._lane, {"mailbox": record.mailbox}))
        # Whoever listens may end the broker at this.
        self._trace.note_together(happened)

    def unsure(self, records: Sequence[Record]) -> None:
        """Nobody knows whether this commit is on the disk."""
        self._unsure.append(list(records))


class ObservedStore:
    """A store whose commits are seen. Keeps `transport.store.base.Store`."""

    def __init__(self, store: Store, observed: Observed) -> None:
        self._store = store
        self._observed = observed
        self.read_ready = self._telling(store.read_ready)
        self.read_due = self._telling(store.read_due)
        self.read_rows = self._telling(store.read_rows)
        self.read_results = self._telling(store.read_results)
        self.read_dead = self._telling(store.read_dead)
        self.read_states = self._telling(store.read_states)
        self.sweep = self._telling(store.sweep)
        self.count_dead = store.count_dead
        self.has_room = store.has_room
        self.close = store.close
        #: It has said that what it holds is not what was written.
        self.is_damaged = False

    def open(self) -> Recovered:
        """As `Store.open`."""
        recovered = self._telling(self._store.open)()
        self._observed.opened(recovered, self._store)
        return recovered

    def commit(self, records: Sequence[Record], synchronous: Synchronous) -> Committed:
        """As `Store.commit`."""
        try:
            committed = self._telling(self._store.commit)(records, synchronous)
        except StoreFull:
            raise
        except (StoreFailed, StoreCorrupt, DiskStopped):
            self._observed.unsure(records)
            raise
        self._observed.committed(records, committed.duplicates)
        return committed

    def _telling(self, do: Callable[P, T]) -> Callable[P, T]:
        """Return this call of the store's, which tells of damage and failure."""

        def tell(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return do(*args, **kwargs)
            except StoreFailed:
                self._observed.failed()
                raise
            except StoreCorrupt:
                self.is_damaged = True
                self._observed.failed()
                raise

        return tell


def keeps_the_contract(store: ObservedStore) -> Store:
    """A store is a store: checked by the type checkers."""
    return store


def is_on_disk(records: Sequence[Record], recovered: Recovered, store: Store) -> bool:
    """Tell whether a commit is on the disk, by the first of its records that shows. Commits are whole or not at all."""
    leases = {lease.lease: lease for lease in recovered.leases}
    numbers = {session.session: session.number for session in recovered.sessions}
    over = {lease for record in records if isinstance(record, Unlease) for lease in record.leases}
    dropped = {base for record in records if isinstance(record, Drop) for base in record.bases}
    purged = any(isinstance(record, Purge) for record in records)
    for record in records:
        match record:
            case Lease(lease=lease, positions=positions) if lease not in over:
                return lease in leases and list(leases[lease].positions) == list(positions)
            case Append(base=base) if base not in dropped and not purged and not record.unique:
                return bool(store.read_rows([base]))
            case Drop(bases=bases):
                return not store.read_rows(bases)
            case Gone(base=base, mask=mask) if base not in dropped and not purged:
                rows: list[Row] = store.read_rows([base, *(base + bit for bit in range(mask.bit_length()))])
                return any(row.base == base and row.gone == mask for row in rows)
            case ResultRow(id=id):
                return any(row == record for row in store.read_results([id], 0))
            case _:
                continue
    # A session's row shows least: it may be written again as it was.
    sessions = [record for record in records if isinstance(record, Session)]
    return bool(sessions) and all(numbers.get(row.session, 0) >= row.number for row in sessions)
