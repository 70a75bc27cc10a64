"""A store whose commits are seen by a referee, for the world of one broker."""

from __future__ import annotations

from collections.abc import Sequence

from ..store.memory import MemoryDisk, MemoryStore
from ..store.records import Append, Committed, Record, Synchronous
from .referee import Referee


class WatchedStore(MemoryStore):
    """A store in memory whose commits a referee sees."""

    def __init__(self, referee: Referee, disk: MemoryDisk | None = None) -> None:
        super().__init__(disk)
        self._referee = referee

    def commit(self, records: Sequence[Record], synchronous: Synchronous) -> Committed:
        first_failure = bool(self.disk.failure) and not self._failure
        try:
            committed = super().commit(records, synchronous)
        except Exception:
            if first_failure and self.disk.failure_keeps:
                rows = self.disk.rows
                unique = [record.base for record in records if isinstance(record, Append) and record.unique]
                self._referee.committed(records, [base for base in unique if base not in rows])
            raise
        self._referee.committed(records, committed.duplicates)
        return committed
