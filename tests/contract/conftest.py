"""The engines that the contract of a store is tried on, each with a way to crash it, fill it and break it.

`new_engine` is a factory of empty engines. An engine makes stores over one disk, one after the other:

- `memory`: the store in memory;
- `sqlite`: SQLite through the standard library, in a folder;
- `apsw`: SQLite through apsw, in a folder;
- `simulated`: SQLite through apsw, on the simulated disk. When the power goes it loses what was not synced, except
  for what it happened to write early, in no order.
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

import pytest

from greenroom.transport.sim.disk import SimDisk
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
from greenroom.transport.store.folder import DataFolder
from greenroom.transport.store.memory import MemoryDisk, MemoryStore
from greenroom.transport.store.sqlite import SqliteStore

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


class SimulatedEngine:
    """SQLite on a simulated disk."""

    has_power = True

    def __init__(self, stack: ExitStack) -> None:
        self.disk = stack.enter_context(SimDisk(process_id=os.getpid()))

    def store(self) -> Store:
        return self.disk.store()

    def crash(self, store: Store, *, power: bool = False, seed: int = 0) -> None:
        if power:
            chance = random.Random(seed)
            self.disk.power_cut(lambda question, most: chance.randint(0, most))
        else:
            self.disk.crash()

    def fill(self, full: bool) -> None:
        self.disk.capacity = self.disk.used if full else None

    def fail(self) -> None:
        self.disk.fail("sync")


ENGINES: dict[str, Callable[[ExitStack], Engine]] = {
    "memory": MemoryEngine,
    "sqlite": lambda stack: SqliteEngine(stack, connect_sqlite3),
    "apsw": lambda stack: SqliteEngine(stack, connect_apsw()),
    "simulated": SimulatedEngine,
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


@pytest.fixture(params=["memory", "simulated"])
def powered(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An empty engine whose power can be cut."""
    with ExitStack() as stack:
        yield ENGINES[request.param](stack)
