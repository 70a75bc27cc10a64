"""The disk of a simulated broker: in memory and fast, or a simulated one under the real SQLite store.

Owns what a world asks of either: a store on it, what is left after a crash, and the trouble that faults make. Both
fail in the same ways; only the real store can be stopped within a commit, and only its disk can tear and lie.
"""

from __future__ import annotations

import errno
import random
from functools import cache
from typing import Final, Literal, Protocol

from ...transport.sim.disk import Choose, SimDisk, calm
from ...transport.sim.folder import SimFolder
from ...transport.store.base import Store
from ...transport.store.folder import LOG_SUFFIX
from ...transport.store.memory import MemoryDisk, MemoryStore

#: Which store a world's broker has.
StoreName = Literal["memory", "sqlite"]
#: What a full disk has left over its ballast.
_NO_ROOM: Final = 0
_BALLAST_BYTES: Final = 256 << 10
_STORE: Final = SimFolder.database


class WorldDisk(Protocol):
    """One disk, and the stores that are opened on it one after the other."""

    def store(self) -> Store:
        """Return a store, not yet opened, after the one before is closed or crashed."""
        ...

    def crash(self, *, power: bool, kept: float = 0.0) -> None:
        """End the process that has it open; with its `power`, what was not synced is lost but for this share of it."""
        ...

    def fill(self) -> None:
        """Let there be no more room."""
        ...

    def fail(self) -> None:
        """Let the next sync fail, and tell nothing about what it did."""
        ...

    def fail_read(self) -> None:
        """Let the next read fail."""
        ...

    def keep_copy(self) -> None:
        """Keep a copy of what is on it now, while nobody has it open."""
        ...

    def put_copy_back(self) -> bool:
        """Put the copy in the place of what is there; False: there is none."""
        ...

    def flip(self, stream: random.Random) -> None:
        """Turn one bit over, of the store or of its log."""
        ...

    def truncate(self) -> None:
        """Lose the end of the store's log."""
        ...

    def remove(self) -> bool:
        """Take the folder away while it is used; False: it has none."""
        ...

    def lie(self) -> bool:
        """Let the next sync answer that all is well and do nothing; False: this disk cannot."""
        ...

    def stop(self, after: int) -> bool:
        """Let the process end in place of a change of the disk, `after` changes from now; False: it cannot."""
        ...

    def heal(self) -> None:
        """Take away what was wrong, but not what it has done."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class InMemory:
    """The disk of the store in memory."""

    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self._store = MemoryStore(self.disk)

    def store(self) -> Store:
        """As `WorldDisk.store`."""
        self._store = MemoryStore(self.disk)
        return self._store

    def crash(self, *, power: bool, kept: float = 0.0) -> None:
        """As `WorldDisk.crash`."""
        self._store.crash(power=power, kept=kept)

    def fill(self) -> None:
        """As `WorldDisk.fill`."""
        self.disk.room_bytes = _NO_ROOM

    def fail(self) -> None:
        """As `WorldDisk.fail`."""
        self.disk.failure = "the disk reports an error of a sync"
        self.disk.failure_keeps = True

    def fail_read(self) -> None:
        """As `WorldDisk.fail_read`."""
        self.disk.failure = "the disk reports an error of a read"
        self.disk.failure_keeps = False

    def keep_copy(self) -> None:
        """Nothing of it can be damaged."""

    def put_copy_back(self) -> bool:
        """There is none."""
        return False

    def flip(self, stream: random.Random) -> None:
        """It has no bits."""

    def truncate(self) -> None:
        """It has no log."""

    def remove(self) -> bool:
        """It has no folder."""
        return False

    def lie(self) -> bool:
        """It has no syncs of its own."""
        return False

    def stop(self, after: int) -> bool:
        """Its commits happen at once."""
        return False

    def heal(self) -> None:
        """As `WorldDisk.heal`."""
        self.disk.room_bytes = None
        self.disk.failure = ""

    def close(self) -> None:
        """Nothing is held."""


@cache
def _made() -> SimDisk:
    """A disk on which a store has made its tables: made once, copied for each world."""
    disk = SimDisk(ballast_bytes=_BALLAST_BYTES)
    store = disk.store()
    store.open()
    store.close()
    return disk


class Simulated:
    """A simulated disk under the real SQLite store."""

    def __init__(self, choose: Choose = calm) -> None:
        self.disk = _made().fork(choose)
        self._copy: SimDisk | None = None

    def store(self) -> Store:
        """As `WorldDisk.store`."""
        return self.disk.store()

    def crash(self, *, power: bool, kept: float = 0.0) -> None:
        """As `WorldDisk.crash`."""
        if power:
            self.disk.power_cut((lambda _, most: int(most * kept)) if kept else None)
        else:
            self.disk.crash()

    def fill(self) -> None:
        """As `WorldDisk.fill`."""
        self.disk.capacity = self.disk.used

    def fail(self) -> None:
        """As `WorldDisk.fail`."""
        self.disk.fail("sync", errno.EIO)

    def fail_read(self) -> None:
        """As `WorldDisk.fail_read`."""
        self.disk.fail("read", errno.EIO)

    def keep_copy(self) -> None:
        """As `WorldDisk.keep_copy`."""
        self._copy = self.disk.fork()

    def put_copy_back(self) -> bool:
        """As `WorldDisk.put_copy_back`."""
        copy, self._copy = self._copy, None
        if copy is None:
            return False
        self.disk.close()
        self.disk = copy
        return True

    def flip(self, stream: random.Random) -> None:
        """As `WorldDisk.flip`."""
        files = {name: len(data) for name, data in self.disk.image().items() if name.startswith(_STORE) and data}
        name = stream.choice(list(files))
        self.disk.flip(name, stream.randrange(8 * files[name]))

    def truncate(self) -> None:
        """As `WorldDisk.truncate`."""
        log = _STORE + LOG_SUFFIX
        self.disk.chop(log, len(self.disk.image()[log]) // 2)

    def remove(self) -> bool:
        """As `WorldDisk.remove`."""
        self.disk.remove()
        return True

    def lie(self) -> bool:
        """As `WorldDisk.lie`."""
        self.disk.lie()
        return True

    def stop(self, after: int) -> bool:
        """As `WorldDisk.stop`."""
        self.disk.stop("change", after=after)
        return True

    def heal(self) -> None:
        """As `WorldDisk.heal`."""
        self.disk.capacity = None
        self.disk.heal()

    def close(self) -> None:
        """As `WorldDisk.close`."""
        self.disk.close()


def make_disk(store: StoreName) -> WorldDisk:
    """Return an empty disk for this store. Raises ValueError for another name."""
    if store == "memory":
        return InMemory()
    if store == "sqlite":
        return Simulated()
    raise ValueError(f"the store of a simulated broker is 'memory' or 'sqlite', not {store!r}")
