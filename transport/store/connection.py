"""The seam to SQLite: what the store needs of a connection, and the standard library's.

Owns the `Connection` protocol, the one error that every adapter raises (`SqlError`, with SQLite's result
code) and the adapter over `sqlite3`. The adapter over apsw, whose VFS the simulated disk needs, is in
`apsw_connection.py`. No SQL stands here.
"""

from __future__ import annotations

import ctypes
import errno
import sqlite3
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

#: SQLite's primary result codes that a store tells apart (the low byte of an extended code).
SQLITE_BUSY = 5
SQLITE_IOERR = 10
SQLITE_CORRUPT = 11
SQLITE_FULL = 13
SQLITE_NOTADB = 26

#: What a column may hold, going in.
Value = int | str | bytes | None
#: A row coming out. Whoever reads it knows the columns that it asked for, and checks them by their seal.
Columns = tuple[Any, ...]


class SqlError(Exception):
    """Raised by every adapter when SQLite refuses: `code` is its primary result code, `extended` the whole one."""

    def __init__(self, message: str, extended: int) -> None:
        super().__init__(message)
        self.extended = extended
        self.code = extended & 0xFF


class Connection(Protocol):
    """One open database. Everything is called from the thread that connected."""

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> list[Columns]:
        """Run one statement to its end and return its rows. Raises SqlError."""
        ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """Run one statement once per row. Raises SqlError."""
        ...

    def begin(self) -> None:
        """Begin a transaction that may write. Raises SqlError."""
        ...

    def commit(self) -> None:
        """End the transaction; return when it is as durable as `PRAGMA synchronous` says. Raises SqlError."""
        ...

    def rollback(self) -> None:
        """Undo the transaction, if one is open. Raises SqlError."""
        ...

    def close(self) -> None:
        """Move the log into the database and close the files."""
        ...

    def abandon(self) -> None:
        """Give the database up after a failure without writing to it any more."""
        ...


class Connect(Protocol):
    """Whatever opens a database by name: `connect_sqlite3`, or a simulated disk's."""

    def __call__(self, database: str) -> Connection:
        """Open `database`, creating it if it is not there. Raises SqlError."""
        ...


class Sqlite3Connection:
    """A connection of the standard library, without its own idea of transactions."""

    def __init__(self, database: str) -> None:
        try:
            self._sqlite = sqlite3.connect(database, isolation_level=None, cached_statements=256)
        except sqlite3.Error as error:
            raise _translated(error) from error

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> list[Columns]:
        """Run one statement to its end and return its rows. Raises SqlError."""
        try:
            return self._sqlite.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise _translated(error) from error

    def executemany(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """Run one statement once per row. Raises SqlError."""
        try:
            self._sqlite.executemany(sql, rows)
        except sqlite3.Error as error:
            raise _translated(error) from error

    def begin(self) -> None:
        """Begin a transaction that may write. Raises SqlError."""
        self.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """End the transaction; return when it is as durable as `PRAGMA synchronous` says. Raises SqlError."""
        self.execute("COMMIT")

    def rollback(self) -> None:
        """Undo the transaction, if one is open. Raises SqlError."""
        # SQLite rolls back by itself after some errors (a full disk among them) and not after others.
        if self._sqlite.in_transaction:
            self.execute("ROLLBACK")

    def close(self) -> None:
        """Move the log into the database and close the files."""
        self._sqlite.close()

    def abandon(self) -> None:
        """Give the database up after a failure without writing to it any more.

        SQLite copies the log into the database when the last connection closes. After a failed fsync the log
        may not hold what was written to it, so that copy must not be made: the next open reads the log with
        checksums.
        """
        if sys.version_info >= (3, 12):
            self._sqlite.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
            self._sqlite.close()
        else:
            # Nothing switches it off here, and a connection is also closed when it is collected, at the
            # latest when the interpreter ends. One reference too many keeps it open until the process is
            # gone.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._sqlite))


def sqlite_version() -> str:
    """The version of SQLite that the standard library loaded."""
    return sqlite3.sqlite_version


def connect_sqlite3(database: str) -> Connection:
    """Open `database` with the standard library's sqlite3. Raises SqlError."""
    return Sqlite3Connection(database)


def code_of_os_error(error: OSError) -> int:
    """Return the result code that SQLite itself would give for this error of a file."""
    return SQLITE_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else SQLITE_IOERR


def _translated(error: sqlite3.Error) -> SqlError:
    # An error without a code is the module's own. The one that can meet us is text that is not UTF-8: damage.
    return SqlError(str(error), getattr(error, "sqlite_errorcode", SQLITE_CORRUPT))
