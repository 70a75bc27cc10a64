"""The seam to SQLite over apsw, which lets Python be the disk below (a VFS).

Owns the second adapter of `connection.Connection`. The simulated disk and the store's own tests use it; it
needs apsw, which only the extra `test` installs, so nothing in the package imports this module by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import apsw

from .connection import SQLITE_CORRUPT, Columns, Connect, SqlError, Value, code_of_os_error


class ApswConnection:
    """A connection of apsw on the VFS with the name `vfs`; None: SQLite's own."""

    def __init__(self, database: str, vfs: str | None = None) -> None:
        #: Its own types name what Python 3.11 does not have.
        self._sqlite: Any
        try:
            self._sqlite = apsw.Connection(database, vfs=vfs)
        except (apsw.Error, OSError) as error:
            raise _translated(error) from error

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> list[Columns]:
        """Run one statement to its end and return its rows. Raises SqlError."""
        try:
            rows: list[Columns] = self._sqlite.execute(sql, parameters).fetchall()
            return rows
        except (apsw.Error, OSError, UnicodeDecodeError) as error:
            raise _translated(error) from error

    def executemany(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """Run one statement once per row. Raises SqlError."""
        try:
            self._sqlite.executemany(sql, rows)
        except (apsw.Error, OSError) as error:
            raise _translated(error) from error

    def begin(self) -> None:
        """Begin a transaction that may write. Raises SqlError."""
        self.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """End the transaction; return when it is as durable as `PRAGMA synchronous` says. Raises SqlError."""
        self.execute("COMMIT")

    def rollback(self) -> None:
        """Undo the transaction, if one is open. Raises SqlError."""
        if self._sqlite.in_transaction:
            self.execute("ROLLBACK")

    def close(self) -> None:
        """Move the log into the database and close the files.

        SQLite tells nobody where that fails: the log stays, and the next open reads it.
        """
        with suppress(apsw.Error, OSError):
            self._sqlite.close()

    def abandon(self) -> None:
        """Give the database up after a failure without writing to it any more; nothing if it is closed."""
        with suppress(apsw.Error, OSError):
            self._sqlite.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._sqlite.close(True)


def connect_apsw(vfs: str | None = None) -> Connect:
    """Return what opens databases on the VFS with this name; None: on SQLite's own."""
    return partial(ApswConnection, vfs=vfs)


def _translated(error: apsw.Error | OSError | UnicodeDecodeError) -> SqlError:
    if isinstance(error, OSError):  # raised by a VFS in Python, which apsw lets through
        return SqlError(str(error), code_of_os_error(error))
    if isinstance(error, UnicodeDecodeError):
        return SqlError(str(error), SQLITE_CORRUPT)
    return SqlError(str(error), getattr(error, "extendedresult", apsw.SQLITE_ERROR))
