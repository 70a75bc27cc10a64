"""The contract of a store: a broker's memory that survives the broker.

Every engine (`memory`, `sqlite`, later `postgres`) meets it, and `tests/contract/` holds one suite for all. A store
is used by one thread at a time: the broker's driver gives it a thread of its own, so that commits overlap with
routing. A store decides nothing: it keeps records, whole commits or nothing, and answers reads.

Errors: `StoreFull` (no room: the commit was rolled back and the store goes on), `StoreFailed` (a failed fsync or
read: fatal, the broker stops, it is never retried), `StoreCorrupt` (damaged data, told at open or at the read that
met it), `DataFolderLocked` (another broker has it; its pid).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .records import Committed, Dead, Record, Recovered, ResultRow, Row, Synchronous


class Store(Protocol):
    """One broker's durable mailboxes."""

    def open(self) -> Recovered:
        """Take the data folder, recover, raise the epoch, and return what a broker needs to go on.

        Raises DataFolderLocked, StoreCorrupt or StoreFailed.
        """
        ...

    def commit(self, records: Sequence[Record], synchronous: Synchronous) -> Committed:
        """Apply these records in order, whole or not at all; return when they are as durable as asked.

        Raises StoreFull (nothing was applied; later commits may succeed) or StoreFailed (fatal).
        """
        ...

    def read_ready(self, mailbox: str, priority: int, after: int, messages_max: int) -> list[Row]:
        """Return rows without a due time, base above `after`, in order, until they hold `messages_max` messages.

        At least one row if there is any. Rows whose messages are all gone do not exist.
        """
        ...

    def read_due(self, after: tuple[int, int], messages_max: int) -> list[Row]:
        """Return rows with a due time, of all mailboxes, ordered by (due, base), above `after`."""
        ...

    def read_rows(self, positions: Sequence[int]) -> list[Row]:
        """Return the rows that hold these positions, each once, in order of base."""
        ...

    def read_results(self, ids: Sequence[str], now_wall: int) -> list[ResultRow]:
        """Return what is kept of these ids and has not expired."""
        ...

    def read_dead(
        self, *, after: int = 0, limit: int = 100, mailbox: str = "", name: str = "", ids: Sequence[str] = ()
    ) -> list[Dead]:
        """Return dead letters by ascending position above `after`, of one mailbox, task name or set of ids if given."""
        ...

    def sweep(self, now_wall: int, limit: int) -> int:
        """Forget at most `limit` expired results, unique ids, revocations and sessions; return how many went."""
        ...

    def count_dead(self) -> int:
        """Return how many dead letters there are."""
        ...

    def has_room(self) -> bool:
        """Tell whether publishes may be accepted again after StoreFull (ballast is back, spec D29)."""
        ...

    def close(self) -> None:
        """Give the data folder back."""
        ...
