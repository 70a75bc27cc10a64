"""The store in SQLite: the embedded engine.

Owns the life of the database: open, transactions, durability, the log's size, and what each failure of the
disk means. What is written and read stands in `writer.py` and `reader.py`, the tables in `schema.py`, the
folder in `folder.py`.

States: new -> open -> closed, and open -> failed. A failed store refuses everything but `close`.

- No room (SQLITE_FULL): the commit is undone, the ballast is given to the database, StoreFull. The store goes
  on.
- Any other error of the disk (SQLITE_IOERR: a read, a write or an fsync): nobody knows what the disk holds.
  StoreFailed, now and ever after; the database is closed without another write to it.
- Damage (a seal, a page, the file's form): StoreCorrupt, which names the row.

`synchronous` is set before a transaction (spec D30). A transaction that is not synced still survives the
process. The log is moved into the database by the commit that finds it grown (`Folder.log_bytes`), after that
commit is done.

Everything is called from the one thread that called `open`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

from ..errors import StoreCorrupt, StoreFailed, StoreFull
from . import schema
from .connection import (
    SQLITE_BUSY,
    SQLITE_CORRUPT,
    SQLITE_FULL,
    SQLITE_NOTADB,
    Connect,
    Connection,
    SqlError,
    connect_sqlite3,
)
from .folder import BALLAST_BYTES, DataFolder, Folder
from .reader import Reader
from .records import ActorState, Committed, Dead, Purge, Record, Recovered, ResultRow, Row, Synchronous
from .writer import State, Writer, log_bytes_of

#: Free pages are given back to a full file system this many at a time: each step needs a little room itself.
VACUUM_PAGES = 256


class _Open(NamedTuple):
    """What there is only between open and close."""

    connection: Connection
    writer: Writer
    reader: Reader


class SqliteStore:
    """A store in a folder, in one SQLite database.

    `folder` is a path, or where a simulated disk keeps its files. `connect` opens the database in it.
    `ballast_bytes` is for a path: what is kept in reserve for a full disk.
    """

    def __init__(
        self,
        folder: Path | Folder,
        *,
        connect: Connect = connect_sqlite3,
        ballast_bytes: int = BALLAST_BYTES,
    ) -> None:
        self._folder = DataFolder(folder, ballast_bytes=ballast_bytes) if isinstance(folder, Path) else folder
        self._connect = connect
        self._open: _Open | None = None
        self._failure = ""
        self._synchronous: Synchronous | None = None
        #: Bytes of log since it was last moved into the database, roughly.
        self._log_bytes = 0

    # ---- the contract ----

    def open(self) -> Recovered:
        """Take the data folder, recover, raise the epoch, and return what a broker needs to go on.

        Raises DataFolderLocked, StoreCorrupt, StoreFailed, StoreFull, or StoreError for another schema
        version.
        """
        if self._open is not None or self._failure:
            raise StoreFailed("the store was opened already; make a new one for the folder")
        self._folder.take()
        connection: Connection | None = None
        try:
            with self._told("open"):
                connection = self._connect(self._folder.database)
                return self._recover(connection)
        except BaseException:
            self._open = None
            if connection is not None:
                connection.abandon()
            self._folder.give_back()
            raise

    def commit(self, records: Sequence[Record], synchronous: Synchronous) -> Committed:
        """Apply these records in order, whole or not at all; return when they are as durable as asked.

        Raises StoreFull (nothing was applied; later commits may succeed) or StoreFailed (fatal).
        """
        store = self._opened()
        try:
            duplicates = self._transact(store, records, synchronous)
        except StoreFull:
            if self._folder.has_ballast:
                self._folder.release_ballast()
                raise
            # The ballast has gone before, so these are settles and leases. The log itself may hold the room
            # that they need: everything in it that was written more than once.
            with self._told("make room"):
                self._move_log(store, "TRUNCATE")
            duplicates = self._transact(store, records, synchronous)
        self._log_bytes += log_bytes_of(records)
        if self._log_bytes >= self._folder.log_bytes:
            self._keep_log_short(store)
        return Committed(duplicates)

    def read_ready(self, mailbox: str, priority: int, after: int, messages_max: int) -> list[Row]:
        """Return rows without a due time, base above `after`, in order, until they hold `messages_max` messages."""
        reader = self._opened().reader
        with self._told("read"):
            return reader.ready(mailbox, priority, after, messages_max)

    def read_due(self, after: tuple[int, int], messages_max: int) -> list[Row]:
        """Return rows with a due time, of all mailboxes, ordered by (due, base), above `after`."""
        reader = self._opened().reader
        with self._told("read"):
            return reader.due(after, messages_max)

    def read_rows(self, positions: Sequence[int]) -> list[Row]:
        """Return the rows that hold these positions, each once, in order of base."""
        reader = self._opened().reader
        with self._told("read"):
            return reader.rows(positions)

    def read_results(self, ids: Sequence[str], now_wall: int) -> list[ResultRow]:
        """Return what is kept of these ids and has not expired, in their order."""
        reader = self._opened().reader
        with self._told("read"):
            return reader.results(ids, now_wall)

    def read_dead(
        self, *, after: int = 0, limit: int = 100, mailbox: str = "", name: str = "", ids: Sequence[str] = ()
    ) -> list[Dead]:
        """Return dead letters by ascending position above `after`, of one mailbox, task name or set of ids if given."""
        reader = self._opened().reader
        with self._told("read"):
            return reader.dead(after, limit, mailbox, name, ids)

    def read_states(self, mailboxes: Sequence[str]) -> list[ActorState]:
        """Return the states of the actors with these mailboxes, in their order."""
        reader = self._opened().reader
        with self._told("read"):
            return reader.states(mailboxes)

    def count_dead(self) -> int:
        """Return how many dead letters there are."""
        reader = self._opened().reader
        with self._told("read"):
            return reader.count_dead()

    def sweep(self, now_wall: int, limit: int) -> int:
        """Forget at most `limit` expired results, unique ids, revocations and sessions; return how many went.

        Raises StoreFailed or StoreCorrupt, as `commit` does.
        """
        store = self._opened()
        swept = 0
        # The log grows also when something is deleted. With no room for it the next sweep does it.
        with suppress(StoreFull), self._told("sweep"):
            expired = store.writer.expired(now_wall, limit)
            if expired:
                with self._transaction(store, Synchronous.NORMAL):
                    store.writer.forget(expired)
                swept = sum(len(keys) for _, keys in expired)
        self._log_bytes += 200 * swept
        return swept

    def has_room(self) -> bool:
        """Tell whether publishes may be accepted again after StoreFull (ballast is back, spec D29).

        Where there is no room, space that the database itself no longer needs is given back to the file
        system: so a full disk becomes usable again when its messages are settled.
        """
        store = self._opened()
        if self._folder.has_ballast or self._folder.renew_ballast():
            return True
        try:
            with self._told("make room"):
                return self._give_pages_back(store)
        except StoreFull:
            return False

    def close(self) -> None:
        """Give the data folder back."""
        if self._open is None:
            return
        connection = self._open.connection
        self._open = None
        try:
            if self._failure:
                connection.abandon()
            else:
                connection.close()
        finally:
            self._folder.give_back()

    def crash(self) -> None:
        """Leave the folder as a killed process would: for simulated worlds."""
        if self._open is not None:
            connection = self._open.connection
            self._open = None
            connection.abandon()
            self._folder.give_back()

    # ---- open ----

    def _recover(self, connection: Connection) -> Recovered:
        version = schema.prepare(connection)
        confirmed = self._folder.read_confirmed()
        reader = Reader(connection)
        stored = reader.state() if version else State()
        if stored.commits < confirmed:
            raise StoreCorrupt(
                f"the store in {self._folder.database!r} has {stored.commits} commits, but {confirmed} were "
                "confirmed: its log was damaged or cut short, or an older copy was put in its place. Restore the "
                "whole folder from a backup, or remove the file 'confirmed' to go on without what is missing"
            )
        try:
            writer, opened = self._begin_epoch(connection, stored, version)
        except SqlError as error:
            if error.code != SQLITE_FULL or not self._folder.has_ballast:
                raise
            self._folder.release_ballast()
            writer, opened = self._begin_epoch(connection, stored, version)
        self._folder.write_confirmed(opened.commits)
        self._open = _Open(connection, writer, reader)
        return reader.recovered(opened, writer.next_position, writer.next_lease)

    def _begin_epoch(self, connection: Connection, stored: State, version: int) -> tuple[Writer, State]:
        self._set_synchronous(connection, Synchronous.FULL)
        connection.begin()
        try:
            if version < schema.SCHEMA_VERSION:
                schema.create(connection, version)
            writer = Writer(connection, stored)
            opened = writer.write_opened()
            connection.commit()
        except BaseException:
            connection.rollback()
            raise
        writer.committed(opened)
        return writer, opened

    # ---- transactions ----

    def _transact(self, store: _Open, records: Sequence[Record], synchronous: Synchronous) -> list[int]:
        writer = store.writer
        if any(type(record) is Purge for record in records):
            return self._transact_with_purges(store, records)
        with self._told("commit"):
            changes = writer.changes()
            for record in records:
                changes.add(record)
            raises_marks = writer.raises_marks(changes)
            if changes or raises_marks:
                # A number that was used must not come back after a power cut either: the commit that raises a
                # mark is synced, whatever it holds.
                with self._transaction(store, Synchronous.FULL if raises_marks else synchronous):
                    writer.write(changes)
            else:
                writer.advance(changes)
        return changes.duplicates

    def _transact_with_purges(self, store: _Open, records: Sequence[Record]) -> list[int]:
        # A purge depends on what was written before it. It is rare, so that always syncing costs nothing.
        writer = store.writer
        duplicates: list[int] = []
        with self._told("commit"), self._transaction(store, Synchronous.FULL):
            changes = writer.changes()
            for record in records:
                if type(record) is Purge:
                    writer.write(changes)
                    duplicates += changes.duplicates
                    changes = writer.changes()
                    writer.purge(record)
                else:
                    changes.add(record)
            writer.write(changes)
        return duplicates + changes.duplicates

    @contextmanager
    def _transaction(self, store: _Open, synchronous: Synchronous) -> Generator[None]:
        connection, writer, _ = store
        self._set_synchronous(connection, synchronous)
        connection.begin()
        try:
            yield
            state = writer.write_state()
            connection.commit()
        except BaseException:
            writer.rolled_back()
            connection.rollback()
            raise
        writer.committed(state)
        if synchronous is Synchronous.FULL:
            self._folder.write_confirmed(state.commits)

    def _set_synchronous(self, connection: Connection, synchronous: Synchronous) -> None:
        if synchronous is not self._synchronous:
            connection.execute(f"PRAGMA synchronous = {synchronous.name}")
            self._synchronous = synchronous

    # ---- room ----

    def _keep_log_short(self, store: _Open) -> None:
        # Without room in the database the log grows on, until a commit finds no room for it either and says
        # so.
        with suppress(StoreFull), self._told("move the log"):
            self._move_log(store, "PASSIVE")

    def _move_log(self, store: _Open, mode: str) -> None:
        """Write what the log holds into the database; the next commit begins the log anew."""
        self._log_bytes = 0
        store.connection.execute(f"PRAGMA wal_checkpoint({mode})")

    def _give_pages_back(self, store: _Open) -> bool:
        self._move_log(store, "TRUNCATE")
        while not self._folder.renew_ballast():
            [[free]] = store.connection.execute("PRAGMA freelist_count")
            if not free:
                return False
            with self._transaction(store, Synchronous.NORMAL):
                store.connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
            self._move_log(store, "TRUNCATE")
        return True

    # ---- failures ----

    def _opened(self) -> _Open:
        if self._failure:
            raise StoreFailed(self._failure)
        if self._open is None:
            raise StoreFailed("the store is not open")
        return self._open

    @contextmanager
    def _told(self, deed: str) -> Generator[None]:
        """Translate SQLite's errors into the contract's."""
        try:
            yield
        except SqlError as error:
            self._tell(deed, error)
        except StoreFailed as error:
            self._failure = str(error)
            raise

    def _tell(self, deed: str, error: SqlError) -> NoReturn:
        where = f"the store in {self._folder.database!r}"
        if error.code == SQLITE_FULL:
            raise StoreFull(f"could not {deed}: there is no room left for {where}") from error
        if error.code in (SQLITE_CORRUPT, SQLITE_NOTADB):
            text = f"could not {deed}: {where} is damaged or cut short ({error}). Restore the folder from a backup"
            if deed != "read":  # other rows may well be read, but nothing must be written over damage
                self._failure = text
            raise StoreCorrupt(text) from error
        if error.code == SQLITE_BUSY:
            reason = "another program has it open"
        else:
            reason = f"SQLite says {str(error)!r} (code {error.extended})"
        self._failure = (
            f"could not {deed}: {reason} for {where}. Nobody knows what the disk holds now, so the store takes "
            "nothing more; check the disk and start the broker again"
        )
        raise StoreFailed(self._failure) from error
