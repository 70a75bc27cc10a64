"""SQLite's door to a simulated disk: a VFS of apsw's over a `Mount`.

Owns the translation of SQLite's calls and of errors into its result codes, and the seed of its randomness. It does
what SQLite's VFS for Unix does where that matters to what survives: the first sync of a journal or log syncs the
directory too, an empty file does not exist, sectors and device characteristics are the same.

Nothing is left behind: a VFS is registered for the moment in which a database is opened and no longer, and it and
its files go with the connection. There is no shared memory, for the store takes its file exclusively. Locks are
granted, since one process has the disk. Files without a name (what SQLite spills of a large statement) are no part of
the disk.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any

import apsw

from ..store.apsw_connection import ApswConnection
from ..store.connection import SQLITE_FULL, Columns, Value, code_of_os_error
from .faults import DiskStopped, Faults, calm
from .files import SimFile, SimFiles
from .mount import Mount

#: As SQLite says of every disk on Unix.
SECTOR_BYTES = 4096
CHARACTERISTICS: int = apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE | getattr(apsw, "SQLITE_IOCAP_SUBPAGE_READ", 0)
#: The Julian day of 1970-01-01, in milliseconds.
EPOCH_JULIAN = 210_866_760_000_000

_JOURNALS: int = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL | apsw.SQLITE_OPEN_WAL
_serials = itertools.count(1)


def connect(mount: Mount, database: str, seed: str, wall: Callable[[], int]) -> SimConnection:
    """Open a database on a simulated disk. Raises SqlError, DiskStopped.

    `seed` decides every random number that SQLite draws until somebody else connects; one disk must not use the same
    seed twice, or an old log may look like a part of the new one. `wall` tells the time in microseconds.
    """
    name = f"greenroom-sim-{next(_serials)}"
    vfs = _Vfs(name, mount, blake2b(seed.encode()).digest(), wall)
    try:
        _seed_sqlite(name)
        return SimConnection(database, name, mount)
    finally:
        vfs.unregister()  # who has it open keeps it


def _seed_sqlite(name: str) -> None:
    # SQLite has one generator for the whole process, and asks the VFS that is the default at the first draw after
    # the generator was emptied.
    default = apsw.vfs_names()[0]
    apsw.randomness(0)
    apsw.set_default_vfs(name)
    try:
        apsw.randomness(1)
    finally:
        apsw.set_default_vfs(default)


class SimConnection(ApswConnection):
    """A connection that says nothing more, good or bad, once its process has come to its end: it raises DiskStopped."""

    def __init__(self, database: str, vfs: str, mount: Mount) -> None:
        self.is_closed = False
        self._mount = mount
        super().__init__(database, vfs)

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> list[Columns]:
        """Run one statement to its end and return its rows. Raises SqlError, DiskStopped."""
        self._see()
        rows = super().execute(sql, parameters)
        self._see()
        return rows

    def executemany(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """Run one statement once per row. Raises SqlError, DiskStopped."""
        self._see()
        super().executemany(sql, rows)
        self._see()

    def close(self) -> None:
        """Move the log into the database and close the files. Raises DiskStopped."""
        self._see()
        super().close()
        self.is_closed = True

    def abandon(self) -> None:
        """Give the database up without writing to it any more."""
        super().abandon()
        self.is_closed = True

    def _see(self) -> None:
        if self._mount.is_over:
            raise DiskStopped("the process that had the disk has come to its end; open a new store")


class _Vfs(apsw.VFS):
    """The VFS of one connection."""

    def __init__(self, name: str, mount: Mount, seed: bytes, wall: Callable[[], int]) -> None:
        super().__init__(name)
        self._mount = mount
        self._seed = seed
        self._wall = wall

    def xFullPathname(self, name: str) -> str:
        return name

    def xOpen(self, name: apsw.URIFilename | str | None, flags: list[int]) -> Any:
        flags[1] = flags[0]
        if name is None:
            return _File(Mount(SimFiles(), Faults(), calm), SimFile(""), is_journal=False)
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if not flags[0] & apsw.SQLITE_OPEN_CREATE and not self._mount.exists(path):
            raise apsw.exception_for(apsw.SQLITE_CANTOPEN)
        try:
            file = self._mount.open(path)
        except OSError as error:
            raise apsw.exception_for(apsw.SQLITE_CANTOPEN) from error
        return _File(self._mount, file, bool(flags[0] & _JOURNALS))

    def xAccess(self, pathname: str, flags: int) -> bool:
        file = self._mount.files.named.get(pathname)
        return file is not None and (flags != apsw.SQLITE_ACCESS_EXISTS or bool(file.data))

    def xDelete(self, filename: str, syncdir: bool) -> None:
        try:
            self._mount.delete(filename)
        except FileNotFoundError as error:
            raise apsw.exception_for(apsw.SQLITE_IOERR_DELETE_NOENT) from error
        except OSError as error:
            if filename.endswith("-wal"):
                return  # SQLite does not look at what became of it, but apsw would tell
            raise apsw.exception_for(apsw.SQLITE_IOERR_DELETE) from error
        if syncdir:
            try:
                self._mount.sync_names()
            except OSError as error:
                raise apsw.exception_for(apsw.SQLITE_IOERR_DIR_FSYNC) from error

    def xRandomness(self, numbytes: int) -> bytes:
        return self._seed[:numbytes]

    def xSleep(self, microseconds: int) -> int:
        return microseconds  # nobody else has the file, so nobody is waited for

    def xCurrentTime(self) -> float:
        return self.xCurrentTimeInt64() / 86_400_000

    def xCurrentTimeInt64(self) -> int:
        return EPOCH_JULIAN + self._wall() // 1000

    def xGetLastError(self) -> tuple[int, str | None]:
        return 0, None


class _File:
    """An open file of the disk."""

    __slots__ = ("_file", "_mount", "_syncs_names")

    def __init__(self, mount: Mount, file: SimFile, is_journal: bool) -> None:
        self._mount = mount
        self._file = file
        self._syncs_names = is_journal

    def xRead(self, amount: int, offset: int) -> bytes:
        try:
            return self._mount.read(self._file, offset, amount)
        except OSError as error:
            raise apsw.exception_for(apsw.SQLITE_IOERR_READ) from error

    def xWrite(self, data: bytes, offset: int) -> None:
        try:
            self._mount.write(self._file, offset, bytes(data))
        except OSError as error:
            is_full = code_of_os_error(error) == SQLITE_FULL
            raise apsw.exception_for(apsw.SQLITE_FULL if is_full else apsw.SQLITE_IOERR_WRITE) from error

    def xTruncate(self, newsize: int) -> None:
        try:
            self._mount.truncate(self._file, newsize)
        except OSError as error:
            raise apsw.exception_for(apsw.SQLITE_IOERR_TRUNCATE) from error

    def xSync(self, flags: int) -> None:
        try:
            self._mount.sync(self._file)
        except OSError as error:
            raise apsw.exception_for(apsw.SQLITE_IOERR_FSYNC) from error
        if self._syncs_names:
            self._syncs_names = False
            with suppress(OSError):  # SQLite on Unix does not look at what became of this one either
                self._mount.sync_names()

    def xFileSize(self) -> int:
        return len(self._file.data)

    def xLock(self, level: int) -> None:
        pass

    def xUnlock(self, level: int) -> None:
        pass

    def xCheckReservedLock(self) -> bool:
        return False

    def xFileControl(self, op: int, ptr: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return SECTOR_BYTES

    def xDeviceCharacteristics(self) -> int:
        return CHARACTERISTICS

    def xClose(self) -> None:
        pass
