"""The engines that the contract of a store is tried on, each with a way to crash it, fill it and break it.

`new_engine` is a factory of empty engines. An engine makes stores over one disk, one after the other:

- `memory`: the store in memory;
- `sqlite`: SQLite through the standard library, in a folder;
- `apsw`: SQLite through apsw, in a folder;
- `forgetful`: SQLite through apsw, on a disk in Python. When the power goes it loses what was not synced, except
  for sectors that it happened to write early, in no order.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import apsw
import pytest

from greenroom.transport.errors import DataFolderLocked
from greenroom.transport.store.apsw_connection import connect_apsw
from greenroom.transport.store.base import Store
from greenroom.transport.store.connection import (
    SQLITE_FULL,
    SQLITE_IOERR,
    Columns,
    Connect,
    Connection,
    SqlError,
    Value,
    connect_sqlite3,
)
from greenroom.transport.store.folder import LOG_BYTES, DataFolder
from greenroom.transport.store.memory import MemoryDisk, MemoryStore
from greenroom.transport.store.sqlite import SqliteStore

SECTOR_BYTES = 512
#: No power is cut here, so that a disk in memory does, and is faster.
SCRATCH = "/dev/shm" if os.path.isdir("/dev/shm") else None


class Engine(Protocol):
    """One disk, and stores over it."""

    #: Whether its disk can lose power.
    has_power: bool

    def store(self) -> Store:
        """Return a new store over the disk."""
        ...

    def crash(self, store: Store, *, power: bool = False, seed: int = 0) -> None:
        """Kill the store's process, or cut the power; `seed` picks what was written early."""
        ...

    def fill(self, full: bool) -> None:
        """Let the disk have no room but the ballast's, or room again."""
        ...

    def fail(self) -> None:
        """Let the next commit fail for good."""
        ...


class MemoryEngine:
    """The store in memory."""

    has_power = True

    def __init__(self, stack: ExitStack) -> None:
        self.disk = MemoryDisk()

    def store(self) -> Store:
        return MemoryStore(self.disk)

    def crash(self, store: Store, *, power: bool = False, seed: int = 0) -> None:
        assert isinstance(store, MemoryStore)
        store.crash(power=power)

    def fill(self, full: bool) -> None:
        self.disk.room_bytes = 0 if full else None

    def fail(self) -> None:
        self.disk.failure = "the disk is broken"


class Breakable:
    """A connection whose commits fail on demand."""

    def __init__(self, inner: Connection, engine: SqliteEngine) -> None:
        self.inner = inner
        self.engine = engine

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> list[Columns]:
        return self.inner.execute(sql, parameters)

    def executemany(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        self.inner.executemany(sql, rows)

    def begin(self) -> None:
        self.inner.begin()

    def commit(self) -> None:
        if self.engine.is_failing:
            raise SqlError("disk I/O error", SQLITE_IOERR)
        if self.engine.is_full and self.engine.folder.has_ballast:
            raise SqlError("database or disk is full", SQLITE_FULL)
        self.inner.commit()

    def rollback(self) -> None:
        self.inner.rollback()

    def close(self) -> None:
        self.inner.close()

    def abandon(self) -> None:
        self.inner.abandon()


class SmallFolder(DataFolder):
    """A folder on a disk that is full when its engine says so."""

    engine: SqliteEngine

    def renew_ballast(self) -> bool:
        return not self.engine.is_full and super().renew_ballast()


class SqliteEngine:
    """SQLite in a folder."""

    has_power = False

    def __init__(self, stack: ExitStack, connect: Connect) -> None:
        self.root = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=SCRATCH)))
        self.names = map(str, itertools.count())
        self.path = self.root / next(self.names)
        self.inner = connect
        self.is_full = False
        self.is_failing = False
        self.folder: Any = None

    def connect(self, database: str) -> Connection:
        return Breakable(self.inner(database), self)

    def store(self) -> Store:
        self.folder = SmallFolder(self.path, ballast_bytes=4096)
        self.folder.engine = self
        return SqliteStore(self.folder, connect=self.connect)

    def crash(self, store: Store, *, power: bool = False, seed: int = 0) -> None:
        # What a killed process leaves is what the files hold now. They go on somewhere else, because the files of
        # this store must be closed, which writes to them.
        assert not power
        left = self.root / next(self.names)
        shutil.copytree(self.path, left)
        store.close()
        self.path = left

    def fill(self, full: bool) -> None:
        self.is_full = full

    def fail(self) -> None:
        self.is_failing = True


class ForgetfulFile:
    """A file in memory that knows what of it was synced."""

    def __init__(self, disk: ForgetfulDisk) -> None:
        self.disk = disk
        self.data = bytearray()
        self.synced = b""

    def cut(self, chance: random.Random) -> None:
        """Keep what was synced, and some sectors of what was not."""
        left = bytearray(self.synced)
        for start in range(0, len(self.data), SECTOR_BYTES):
            sector = bytes(self.data[start : start + SECTOR_BYTES])
            if sector != self.synced[start : start + SECTOR_BYTES] and chance.random() < 0.5:
                left.extend(bytes(max(0, start - len(left))))
                left[start : start + len(sector)] = sector
        self.data = left
        self.synced = bytes(left)


class ForgetfulHandle:
    """What SQLite holds of an open file. After a crash it does nothing any more."""

    def __init__(self, file: ForgetfulFile) -> None:
        self.file = file
        self.life = file.disk.life

    @property
    def is_dead(self) -> bool:
        return self.file.disk.is_down or self.life != self.file.disk.life

    def xRead(self, amount: int, offset: int) -> bytes:
        return bytes(self.file.data[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        self.file.disk.count()
        if not self.is_dead:
            self.file.data.extend(bytes(max(0, offset - len(self.file.data))))
            self.file.data[offset : offset + len(data)] = data

    def xTruncate(self, size: int) -> None:
        if not self.is_dead:
            del self.file.data[size:]

    def xSync(self, flags: int) -> None:
        self.file.disk.count()
        if not self.is_dead:
            self.file.synced = bytes(self.file.data)

    def xFileSize(self) -> int:
        return len(self.file.data)

    def xLock(self, level: int) -> None:
        pass

    def xUnlock(self, level: int) -> None:
        pass

    def xCheckReservedLock(self) -> bool:
        return False

    def xFileControl(self, op: int, pointer: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return SECTOR_BYTES

    def xDeviceCharacteristics(self) -> int:
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE

    def xClose(self) -> None:
        pass


class ForgetfulDisk(apsw.VFS):
    """A disk in Python, and its folder."""

    serials = itertools.count()

    def __init__(self) -> None:
        self.name = f"forgetful-{next(self.serials)}"
        super().__init__(self.name, "")
        self.files: dict[str, ForgetfulFile] = {}
        #: Rises at each crash: what was open before it is dead.
        self.life = 0
        #: From a crash until its process is gone nothing is written.
        self.is_down = False
        #: Writes and syncs so far, and the one at which the power goes (0: never), with its seed.
        self.calls = 0
        self.cut_at = 0
        self.cut_seed = 0

    def xFullPathname(self, name: str) -> str:
        return name

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        if path not in self.files:
            self.files[path] = ForgetfulFile(self)
        flags[1] = flags[0]
        return ForgetfulHandle(self.files[path])

    def xAccess(self, pathname: str, flags: int) -> bool:
        return pathname in self.files

    def xDelete(self, filename: str, syncdir: bool) -> None:
        if not self.is_down:
            self.files.pop(filename, None)

    def count(self) -> None:
        """A write or a sync is about to happen; or the power goes instead."""
        self.calls += 1
        if self.calls == self.cut_at:
            self.go_down()
            self.cut(self.cut_seed)

    def go_down(self) -> None:
        """From here on what is open now writes nothing."""
        self.life += 1
        self.is_down = True

    def cut(self, seed: int) -> None:
        """Lose what was not synced, or most of it."""
        chance = random.Random(seed)
        for path in sorted(self.files):
            self.files[path].cut(chance)


class ForgetfulFolder:
    """A folder on the forgetful disk. What it writes is never synced, and here always kept: the harder case."""

    database = "store.db"
    log_bytes = LOG_BYTES

    def __init__(self, engine: ForgetfulEngine) -> None:
        self.engine = engine
        self.has_ballast = False
        self.life = engine.disk.life

    def take(self) -> None:
        if self.engine.holder is not None:
            raise DataFolderLocked(folder="forgetful", pid=os.getpid())
        self.engine.holder = self
        self.renew_ballast()

    def give_back(self) -> None:
        self.engine.holder = None

    def renew_ballast(self) -> bool:
        self.has_ballast = not self.engine.is_full
        return self.has_ballast

    def release_ballast(self) -> None:
        self.has_ballast = False

    def read_confirmed(self) -> int:
        return self.engine.confirmed

    def write_confirmed(self, commits: int) -> None:
        if self.life == self.engine.disk.life:
            self.engine.confirmed = commits


class ForgetfulEngine(SqliteEngine):
    """SQLite on a disk that can lose power."""

    has_power = True

    def __init__(self, stack: ExitStack) -> None:
        self.disk = ForgetfulDisk()
        stack.callback(self.disk.unregister)
        self.inner = connect_apsw(self.disk.name)
        self.is_full = False
        self.is_failing = False
        self.confirmed = 0
        self.holder: ForgetfulFolder | None = None

    def store(self) -> Store:
        self.folder = ForgetfulFolder(self)
        return SqliteStore(self.folder, connect=self.connect)

    def crash(self, store: Store, *, power: bool = False, seed: int = 0) -> None:
        assert isinstance(store, SqliteStore)
        self.disk.go_down()
        if power:
            self.disk.cut(seed)
        store.crash()
        self.disk.is_down = False


ENGINES: dict[str, Callable[[ExitStack], Engine]] = {
    "memory": MemoryEngine,
    "sqlite": lambda stack: SqliteEngine(stack, connect_sqlite3),
    "apsw": lambda stack: SqliteEngine(stack, connect_apsw()),
    "forgetful": ForgetfulEngine,
}


@pytest.fixture(params=list(ENGINES))
def new_engine(request: pytest.FixtureRequest) -> Callable[[ExitStack], Engine]:
    """Make an empty engine that lives as long as the given stack."""
    return ENGINES[request.param]


@pytest.fixture
def engine(new_engine: Callable[[ExitStack], Engine]) -> Iterator[Engine]:
    """An empty engine."""
    with ExitStack() as stack:
        yield new_engine(stack)


@pytest.fixture
def forgetful() -> Iterator[Callable[[], ForgetfulEngine]]:
    """Make empty engines on forgetful disks."""
    with ExitStack() as stack:
        yield lambda: ForgetfulEngine(stack)


@pytest.fixture(params=["memory", "forgetful"])
def powered(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An empty engine whose power can be cut."""
    with ExitStack() as stack:
        yield ENGINES[request.param](stack)
