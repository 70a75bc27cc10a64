"""The store in memory, with a disk that tests can break.

Owns `MemoryStore` and the `MemoryDisk` under it, which keeps what was committed. It is to simulated worlds
what the store in SQLite is to a broker, and it fails in the same ways, only faster:

- `crash()`: the process is killed. Every commit stays; the disk can be handed to a new store.
- `crash(power=True)`: the power goes. Commits that were not synced, and that no later one synced, are undone: all of
  them, or the latest, since a system writes also what nobody asks it to.
- `disk.room_bytes`: what may still be written. A commit that needs more raises StoreFull and gives up the
  ballast; whoever wants the disk to recover raises the number.
- `disk.failure`: from now on every commit and read raises StoreFailed with this text. With
  `disk.failure_keeps` the commit that meets it first is on the disk all the same: a failed fsync says nothing
  about what it did.

Every change leaves an entry in `undo`; a synced commit empties it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from ..errors import DataFolderLocked, StoreFailed, StoreFull
from .base import SESSION_KEPT
from .ordered import Ordered
from .records import (
    ActorState,
    ActorStatesGone,
    Append,
    Committed,
    Dead,
    DeadCount,
    DeadGone,
    Drop,
    Gone,
    Lease,
    MailboxRow,
    Past,
    PastGone,
    Policy,
    Purge,
    Record,
    Recovered,
    ResultRow,
    ResultsGone,
    Revoked,
    Row,
    Session,
    SessionsGone,
    Synchronous,
    Tally,
    Unlease,
)

BALLAST_BYTES = 32 << 20
#: Changes that may wait to be synced. Beyond that they count as synced, as when a real log is moved.
UNDO_MAX = 100_000
#: Numbers are promised in steps, so that one that was used never comes back, whatever is lost.
MARK_STEP = 1 << 16

_ABSENT: Any = object()

#: What a record that names keys takes out of which table. The key of a table is its record's first field.
_TABLE_OF: dict[type, type] = {
    Unlease: Lease,
    PastGone: Past,
    SessionsGone: Session,
    ResultsGone: ResultRow,
    DeadGone: Dead,
    ActorStatesGone: ActorState,
}


class MemoryDisk:
    """What survives a MemoryStore. Set its public attributes to make it small or broken."""

    def __init__(self, *, room_bytes: int | None = None, ballast_bytes: int = BALLAST_BYTES) -> None:
        #: Bytes that can still be written beside the ballast; None: no limit.
        self.room_bytes = room_bytes
        self.ballast_bytes = ballast_bytes
        self.has_ballast = True
        self.failure = ""
        self.failure_keeps = False
        #: The process that has it open.
        self.holder: int | None = None

        self.epoch = 0
        #: The next position and lease that were never used, whatever of those that were is lost with the power.
        self.marks: dict[str, int] = {"position": 1, "lease": 1}
        self.rows: dict[int, Append] = {}
        self.tables: dict[type, dict[Any, Any]] = {
            record: {}
            for record in (Gone, Lease, Past, Session, ResultRow, Dead, Revoked, Policy, MailboxRow, ActorState)
        }
        self.uniques: dict[str, int] = {}
        self.undo: list[tuple[dict[Any, Any], Any, Any]] = []
        #: For each commit that was not synced: how long `undo` was before it.
        self.unsynced: list[int] = []
        # Indexes of the rows.
        self.bases: Ordered[int] = Ordered()
        self.ready: dict[tuple[str, int], Ordered[int]] = {}
        self.due: Ordered[tuple[int, int]] = Ordered()

    def put(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        """Change one entry of a table, or delete it (_ABSENT), and remember how it was."""
        old = table.get(key, _ABSENT)
        if old is not value:
            self.undo.append((table, key, old))
            self._set(table, key, old, value)

    def sync(self) -> None:
        """Let nothing that has happened be undone any more."""
        self.undo.clear()
        self.unsynced.clear()

    def undo_to(self, length: int) -> None:
        """Undo changes until only this many are left that could be."""
        while len(self.undo) > length:
            table, key, old = self.undo.pop()
            self._set(table, key, table.get(key, _ABSENT), old)

    def _set(self, table: dict[Any, Any], key: Any, old: Any, value: Any) -> None:
        if table is self.rows:
            if old is not _ABSENT:
                self.bases.discard(key)
                if old.due:
                    self.due.discard((old.due, key))
                else:
                    self.ready[old.mailbox, old.priority].discard(key)
            if value is not _ABSENT:
                self.bases.add(key)
                if value.due:
                    self.due.add((value.due, key))
                else:
                    lane = (value.mailbox, value.priority)
                    if lane not in self.ready:
                        self.ready[lane] = Ordered()
                    self.ready[lane].add(key)
        if value is _ABSENT:
            del table[key]
        else:
            table[key] = value


class MemoryStore:
    """A store that forgets everything with its disk. Give the disk of a crashed store to go on with it."""

    def __init__(self, durable: MemoryDisk | None = None) -> None:
        self.disk = durable or MemoryDisk()
        self._is_open = False
        #: Set for good by the first failure: what failed is never tried again.
        self._failure = ""

    def open(self) -> Recovered:
        """Take the disk, raise the epoch, and return what a broker needs to go on.

        Raises DataFolderLocked, or StoreFailed if the disk is broken.
        """
        disk = self.disk
        if disk.failure:
            raise StoreFailed(disk.failure)
        if disk.holder is not None:
            raise DataFolderLocked(folder="memory", pid=disk.holder)
        disk.holder = os.getpid()
        self._is_open = True
        disk.epoch += 1
        next_position, next_lease = disk.marks["position"], disk.marks["lease"]
        disk.marks["position"] += MARK_STEP
        disk.marks["lease"] += MARK_STEP
        disk.sync()
        dead: dict[str, int] = {}
        for letter in disk.tables[Dead].values():
            dead[letter.mailbox] = dead.get(letter.mailbox, 0) + 1
        return Recovered(
            epoch=disk.epoch,
            next_position=next_position,
            next_lease=next_lease,
            tallies=self._tallies(),
            leases=self._sorted(Lease),
            pasts=self._sorted(Past),
            sessions=self._sorted(Session),
            revoked=self._sorted(Revoked),
            policies=self._sorted(Policy),
            mailboxes=self._sorted(MailboxRow),
            dead=[DeadCount(mailbox, dead[mailbox]) for mailbox in sorted(dead)],
        )

    def commit(self, records: Sequence[Record], synchronous: Synchronous) -> Committed:
        """Apply these records in order, whole or not at all; return when they are as durable as asked.

        Raises StoreFull (nothing was applied; later commits may succeed) or StoreFailed (fatal).
        """
        disk = self._usable(records)
        if disk.room_bytes is not None:
            self._take_room(disk, sum(_bytes_of(record) for record in records))
        duplicates: list[int] = []
        before, marks = len(disk.undo), dict(disk.marks)
        try:
            for record in records:
                self._APPLY[type(record)](self, record, duplicates)
        except BaseException:
            disk.undo_to(before)
            raise
        # A mark that has risen is synced: numbers that it frees may be used, and seen by others, from here on.
        if synchronous is Synchronous.FULL or disk.marks != marks or len(disk.undo) > UNDO_MAX:
            disk.sync()
        else:
            disk.unsynced.append(before)
        return Committed(duplicates)

    def read_ready(self, mailbox: str, priority: int, after: int, messages_max: int) -> list[Row]:
        """Return rows without a due time, base above `after`, in order, until they hold `messages_max` messages."""
        disk = self._usable()
        rows: list[Row] = []
        held = 0
        lane = disk.ready.get((mailbox, priority))
        for base in lane.above(after) if lane and messages_max > 0 else ():
            rows.append(self._row(base))
            held += rows[-1].count - rows[-1].gone.bit_count()
            if held >= messages_max:
                break
        return rows

    def read_due(self, after: tuple[int, int], messages_max: int) -> list[Row]:
        """Return rows with a due time, of all mailboxes, ordered by (due, base), above `after`."""
        rows: list[Row] = []
        for _, base in self._usable().due.above(after):
            if len(rows) >= messages_max:
                break
            rows.append(self._row(base))
        return rows

    def read_rows(self, positions: Sequence[int]) -> list[Row]:
        """Return the rows that hold these positions, each once, in order of base."""
        disk = self._usable()
        bases = dict.fromkeys(disk.bases.floor(position) for position in sorted(positions))
        held = set(positions)
        return [
            self._row(base)
            for base in bases
            if base is not None and not held.isdisjoint(range(base, base + disk.rows[base].count))
        ]

    def read_results(self, ids: Sequence[str], now_wall: int) -> list[ResultRow]:
        """Return what is kept of these ids and has not expired, in their order."""
        results = self._usable().tables[ResultRow]
        found = [results[id] for id in dict.fromkeys(ids) if id in results]
        return [result for result in found if not result.expires_at or result.expires_at > now_wall]

    def read_dead(
        self, *, after: int = 0, limit: int = 100, mailbox: str = "", name: str = "", ids: Sequence[str] = ()
    ) -> list[Dead]:
        """Return dead letters by ascending position above `after`, as `Store.read_dead` says."""
        self._usable()
        letters: list[Dead] = self._sorted(Dead)
        return [
            letter
            for letter in letters
            if letter.position > after
            and (not mailbox or letter.mailbox == mailbox)
            and (not name or letter.name == name)
            and (not ids or letter.id in ids)
        ][:limit]

    def read_states(self, mailboxes: Sequence[str]) -> list[ActorState]:
        """Return the states of the actors with these mailboxes, in their order."""
        states = self._usable().tables[ActorState]
        return [states[mailbox] for mailbox in dict.fromkeys(mailboxes) if mailbox in states]

    def sweep(self, now_wall: int, limit: int) -> int:
        """Forget at most `limit` of what expired at or before `now_wall`; return how many went."""
        disk = self._usable()
        tables = disk.tables
        expired: list[tuple[dict[Any, Any], list[tuple[int, str]]]] = [
            (tables[ResultRow], [(r.expires_at, r.id) for r in tables[ResultRow].values() if r.expires_at]),
            (disk.uniques, [(until, id) for id, until in disk.uniques.items()]),
            (tables[Revoked], [(r.until, r.id) for r in tables[Revoked].values()]),
            (tables[Session], [(s.seen_at + SESSION_KEPT, s.session) for s in tables[Session].values()]),
        ]
        left = limit
        for table, entries in expired:
            for moment, key in sorted(entries):
                if moment > now_wall or not left:
                    break
                disk.put(table, key, _ABSENT)
                left -= 1
        return limit - left

    def count_dead(self) -> int:
        """Return how many dead letters there are."""
        return len(self._usable().tables[Dead])

    def has_room(self) -> bool:
        """Tell whether publishes may be accepted (spec D29)."""
        disk = self._usable()
        if disk.has_ballast:
            return True
        if disk.room_bytes is not None:
            # A margin, or the room that the ballast gave would be taken for room for publishes.
            if disk.room_bytes < disk.ballast_bytes + disk.ballast_bytes // 2:
                return False
            disk.room_bytes -= disk.ballast_bytes
        disk.has_ballast = True
        return True

    def close(self) -> None:
        """Give the disk back, with everything on it."""
        if self._is_open:
            self._is_open = False
            self.disk.holder = None
            self.disk.sync()

    def crash(self, *, power: bool = False, kept: float = 0.0) -> MemoryDisk:
        """Leave the disk as a killed process would, or as a power cut would, and return it.

        `kept`: the share, from the oldest on, of the commits that were not synced and survive the power all the same.
        """
        if self._is_open:
            self._is_open = False
            self.disk.holder = None
            if power and (unsynced := self.disk.unsynced):
                survivors = int(len(unsynced) * kept)
                if survivors < len(unsynced):
                    self.disk.undo_to(unsynced[survivors])
        return self.disk

    # ---- commits ----

    def _usable(self, records: Sequence[Record] = ()) -> MemoryDisk:
        """Return the disk, or raise; the records of the commit that first meets its failure may yet be kept."""
        disk = self.disk
        if not self._is_open:
            raise StoreFailed("the store is not open")
        if disk.failure and not self._failure:
            self._failure = disk.failure
            for record in records if disk.failure_keeps else ():
                self._APPLY[type(record)](self, record, [])
        if self._failure:
            raise StoreFailed(self._failure)
        return disk

    def _take_room(self, disk: MemoryDisk, needed: int) -> None:
        assert disk.room_bytes is not None
        if needed > disk.room_bytes:
            if disk.has_ballast:
                disk.has_ballast = False
                disk.room_bytes += disk.ballast_bytes
            raise StoreFull("could not commit: there is no room left in memory's disk")
        disk.room_bytes -= needed

    # One method a type of record, and one for each of two kinds that need no more than their key.

    def _append(self, record: Append, duplicates: list[int]) -> None:
        disk = self.disk
        end = record.base + record.count
        if end > disk.marks["position"]:
            disk.put(disk.marks, "position", end + MARK_STEP)
        if record.unique:
            if record.unique in disk.uniques:
                duplicates.append(record.base)
                return
            disk.put(disk.uniques, record.unique, record.unique_until)
        disk.put(disk.rows, record.base, record)

    def _gone(self, record: Gone, _: list[int]) -> None:
        if record.base in self.disk.rows:
            self.disk.put(self.disk.tables[Gone], record.base, record.mask)

    def _drop(self, record: Drop, _: list[int]) -> None:
        for base in record.bases:
            self._forget(self.disk.rows, base)
            self._forget(self.disk.tables[Gone], base)

    def _lease(self, record: Lease, _: list[int]) -> None:
        disk = self.disk
        disk.put(disk.tables[Lease], record.lease, record)
        if record.lease >= disk.marks["lease"]:
            disk.put(disk.marks, "lease", record.lease + 1 + MARK_STEP)

    def _state(self, record: ActorState, _: list[int]) -> None:
        states = self.disk.tables[ActorState]
        before = states.get(record.mailbox)
        if before is None or before.number <= record.number:
            self.disk.put(states, record.mailbox, record)

    def _purge(self, record: Purge, _: list[int]) -> None:
        disk = self.disk
        keep = set(record.keep)
        purged = [base for base, row in disk.rows.items() if row.mailbox == record.mailbox and base not in keep]
        for position in list(disk.tables[Past]):
            base = disk.bases.floor(position)
            if base is not None and base not in keep:
                row = disk.rows[base]
                if row.mailbox == record.mailbox and position < base + row.count:
                    self._forget(disk.tables[Past], position)
        for base in purged:
            self._forget(disk.rows, base)
            self._forget(disk.tables[Gone], base)

    def _keep(self, record: Any, _: list[int]) -> None:
        self.disk.put(self.disk.tables[type(record)], getattr(record, record.__struct_fields__[0]), record)

    def _forget_many(self, record: Any, _: list[int]) -> None:
        table = self.disk.tables[_TABLE_OF[type(record)]]
        for key in getattr(record, record.__struct_fields__[0]):
            self._forget(table, key)

    def _forget(self, table: dict[Any, Any], key: Any) -> None:
        if key in table:
            self.disk.put(table, key, _ABSENT)

    _APPLY: ClassVar[dict[type, Callable[[Any, Any, list[int]], None]]] = {
        Append: _append,
        Gone: _gone,
        Drop: _drop,
        Lease: _lease,
        Purge: _purge,
        ActorState: _state,
        **dict.fromkeys((Past, Session, ResultRow, Dead, Revoked, Policy, MailboxRow), _keep),
        **dict.fromkeys((Unlease, PastGone, SessionsGone, ResultsGone, DeadGone, ActorStatesGone), _forget_many),
    }

    # ---- reads ----

    def _row(self, base: int) -> Row:
        row = self.disk.rows[base]
        gone = self.disk.tables[Gone].get(base, 0)
        return Row(base, row.count, row.mailbox, row.priority, row.due, row.session, row.blob, gone)

    def _sorted(self, kind: type) -> list[Any]:
        table = self.disk.tables[kind]
        return [table[key] for key in sorted(table)]

    def _tallies(self) -> list[Tally]:
        counts: dict[tuple[str, int], list[int]] = {}
        gone = self.disk.tables[Gone]
        for base, row in self.disk.rows.items():
            count = row.count - gone.get(base, 0).bit_count()
            counts.setdefault((row.mailbox, row.priority), [0, 0])[row.due > 0] += count
        return [Tally(*key, *counts[key]) for key in sorted(counts)]


def _bytes_of(record: Record) -> int:
    """About what a record takes on a disk."""
    return 64 + (len(record.blob) if isinstance(record, Append | ResultRow | Past | Dead | ActorState) else 0)
