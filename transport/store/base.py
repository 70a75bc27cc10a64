"""The contract of a store: a broker's memory that survives the broker.

Every engine (`memory`, `sqlite`, later `postgres`) meets it, and `tests/contract/` holds one suite for all. A
store is used by one thread at a time: the broker's driver gives it a thread of its own, so that commits
overlap with routing. A store decides nothing: it keeps records, whole commits or nothing, and answers reads.

Errors: `StoreFull` (no room: the commit was rolled back and the store goes on), `StoreFailed` (a failed fsync
or read: fatal, the broker stops, it is never retried), `StoreCorrupt` (damaged data, told at open or at the
read or commit that met it), `DataFolderLocked` (another broker has it; its pid).

Records about what is not there change nothing. A row's numbers are never used again, and rows do not overlap.
Times are wall microseconds below 2^63.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .records import ActorState, Committed, Dead, Record, Recovered, ResultRow, Row, Synchronous

#: How long a session is remembered after it was last heard of (spec D6), in microseconds.
SESSION_KEPT = 24 * 3600 * 1_000_000


class Store(Protocol):
    """One broker's durable mailboxes."""

    def open(self) -> Recovered:
        """Take the data folder, recover, raise the epoch, and return what a broker needs to go on.

        Raises DataFolderLocked, StoreCorrupt, StoreFull or StoreFailed; StoreError for another schema
        version.
        """
        ...

    def commit(self, records: Sequence[Record], synchronous: Synchronous) -> Committed:
        """Apply these records in order, whole or not at all; return when they are as durable as asked.

        `synchronous` is the least that is asked: a store may do more. Raises StoreFull (nothing was applied;
        later commits may succeed), StoreFailed or StoreCorrupt (both fatal).
        """
        ...

    def read_ready(self, mailbox: str, priority: int, after: int, messages_max: int) -> list[Row]:
        """Return rows without a due time above base `after`, in order, until they hold `messages_max`.

        Counted in messages; the last row may hold more than was asked for, so that there is at least one row
        if there is any. Messages that are gone do not count. Rows whose messages are all gone do not exist.
        """
        ...

    def read_due(self, after: tuple[int, int], messages_max: int) -> list[Row]:
        """Return rows with a due time, of all mailboxes, ordered by (due, base), above `after`."""
        ...

    def read_rows(self, positions: Sequence[int]) -> list[Row]:
        """Return the rows that hold these positions, each once, in order of base."""
        ...

    def read_results(self, ids: Sequence[str], now_wall: int) -> list[ResultRow]:
        """Return what is kept of these ids and has not expired, each once, in the order of the ids."""
        ...

    def read_dead(
        self, *, after: int = 0, limit: int = 100, mailbox: str = "", name: str = "", ids: Sequence[str] = ()
    ) -> list[Dead]:
        """Return dead letters by ascending position above `after`.

        Of one mailbox, of one task name, of a set of ids: each only if given.
        """
        ...

    def read_states(self, mailboxes: Sequence[str]) -> list[ActorState]:
        """Return the states of the actors with these mailboxes, each once, in their order; of those that have one."""
        ...

    def sweep(self, now_wall: int, limit: int) -> int:
        """Forget at most `limit` of what expired at or before `now_wall`; return how many went.

        Results by their time, then unique ids, revocations, and sessions that were not heard of for
        SESSION_KEPT, each kind in the order of expiry. Without room on the disk nothing goes. Raises
        StoreFailed or StoreCorrupt, as `commit` does.
        """
        ...

    def count_dead(self) -> int:
        """Return how many dead letters there are."""
        ...

    def has_room(self) -> bool:
        """Tell whether publishes may be accepted: not from a StoreFull until the ballast is back (spec D29).

        It tries to lay the ballast down again, so ask once a second or so. Ask once after `open`, too: a
        store may be opened on a disk that is full.
        """
        ...

    def close(self) -> None:
        """Give the data folder back. After a failure nothing is written to the disk any more."""
        ...
