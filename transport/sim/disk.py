"""A disk in memory on which the real SQLite store runs, and on which everything may go wrong.

Owns the life of the disk: who has it open, process deaths and power cuts, the faults that a test arms, and copies of
it. What survives is in `files.py`, the faults in `faults.py`, what SQLite sees in `vfs.py`, and what the store keeps
beside its database in `folder.py`. It needs apsw, as they do.

    disk = SimDisk()
    sim = SimBroker(disk.store())       # the real broker on the real store
    ...
    disk.power_cut(choose)              # instead of closing the store
    sim = SimBroker(disk.store())

The same calls in the same order leave the same bytes: nothing is drawn, every open choice is asked of `choose`, and
SQLite's random numbers come from `seed` and from how often the disk was connected to. (SQLite has one generator for
the whole process, so this holds for the world with all of its disks.) Nothing sleeps: a slow sync is added to
`take_time`. A disk is used by one thread.

Promised to survive, and what the store's tests hold it to: a power cut with any choice, a death at any call, a full
disk, an error of any call. Not promised, and here to show that the tests notice: `lie`, a sync that answers and does
nothing. Damage (`flip`, `chop`) is found, not mended; in the log it is found as long as no power cut comes between,
for that may take the file `confirmed` back, by which a damaged log differs from one that was torn.

To try many things on one store, make it once, close it, and `fork` the disk for each of them.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import TracebackType

from ..store.sqlite import SqliteStore
from .faults import Choose, Deed, DiskStopped, Fault, Faults, Kind, calm
from .files import SimFiles
from .folder import SimFolder
from .mount import Mount
from .vfs import SimConnection, connect

__all__ = ["BALLAST_BYTES", "Choose", "DiskStopped", "SimDisk", "calm"]

#: A thirty-second of production's, each: a test fills its disk, and has its log moved, with a few commits.
BALLAST_BYTES = 1 << 20
LOG_BYTES = 256 << 10
#: The time of a disk without a clock.
BEGINNING_WALL = 1_700_000_000_000_000


class SimDisk:
    """A disk, the data folder on it, and the connections to it.

    `choose` answers what a failed sync and a power cut leave. `capacity` bytes is its size (None: without end).
    `wall` tells SQLite the time, in microseconds. `process_id` is whose the lock says that it is.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        capacity: int | None = None,
        choose: Choose = calm,
        wall: Callable[[], int] = lambda: BEGINNING_WALL,
        ballast_bytes: int = BALLAST_BYTES,
        log_bytes: int = LOG_BYTES,
        process_id: int = 1,
    ) -> None:
        # Connections and what hangs on them know nothing of the disk, so that they go when they are let go.
        self._choose = choose
        self._wall = wall
        self.ballast_bytes = ballast_bytes
        self.log_bytes = log_bytes
        self.process_id = process_id
        self._seed = seed
        self._files = SimFiles()
        self._files.capacity = capacity
        self._connects = 0
        self._begin_life()

    def _begin_life(self) -> None:
        self._faults = Faults()
        self._mount = Mount(self._files, self._faults, self._choose)
        #: Held here, for a connection that is collected closes itself, and a killed process closes nothing.
        self._connections: list[SimConnection] = []
        self._holders: list[SimFolder] = []

    # --- stores --------------------------------------------------------------------------------------------------

    def store(self) -> SqliteStore:
        """Return a store, not yet opened, of the process that lives now."""
        return SqliteStore(self.folder(), connect=self.connect)

    def folder(self) -> SimFolder:
        """Return the data folder for one store object: for who makes the store himself."""
        return SimFolder(
            self._mount,
            self._holders,
            ballast_bytes=self.ballast_bytes,
            log_bytes=self.log_bytes,
            process_id=self.process_id,
        )

    def connect(self, database: str) -> SimConnection:
        """Open a database on the disk: the `connect` of SqliteStore. Raises SqlError or DiskStopped."""
        self._connects += 1
        connection = connect(self._mount, database, f"{self._seed}/{self._connects}", self._wall)
        self._connections = [*(held for held in self._connections if not held.is_closed), connection]
        return connection

    # --- the end of a process, of the power, of the disk ---------------------------------------------------------

    def crash(self) -> None:
        """End the process that has the disk, as kill -9 does: what it wrote is there, what was armed is forgotten."""
        self._end_life()

    def power_cut(self, choose: Choose | None = None) -> None:
        """Cut the power: only what was synced survives, and of the rest what `choose` says."""
        self._end_life()
        self._files.cut(choose or self._choose)

    def remove(self) -> None:
        """Take the folder away while it is used. Who has files open still has them; the next store finds nothing."""
        self._files.remove()

    def close(self) -> None:
        """Let go of everything. Only copies of the disk's bytes can be used any more."""
        self._end_life()

    def _end_life(self) -> None:
        self._mount.is_over = True  # so that nothing below writes
        for connection in self._connections:
            connection.abandon()
        self._holders.clear()
        self._begin_life()

    def __enter__(self) -> SimDisk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- faults --------------------------------------------------------------------------------------------------
    # `after` calls of the deed go well before it happens, then it happens `times` times.

    def fail(
        self, deed: Deed, error: int = errno.EIO, *, after: int = 0, times: int = 1, file: str | None = None
    ) -> None:
        """Let calls fail with this errno. Of a failed sync `choose` says what reached the disk all the same."""
        self._arm(deed, "fail", error, after, times, file)

    def lie(self, *, after: int = 0, times: int = 1, file: str | None = None) -> None:
        """Let syncs answer that all is well and do nothing: outside of what a store can promise."""
        self._arm("sync", "lie", 0, after, times, file)

    def slow(self, microseconds: int, *, after: int = 0, times: int = 1, file: str | None = None) -> None:
        """Let syncs take time, which `take_time` returns."""
        self._arm("sync", "slow", microseconds, after, times, file)

    def stop(self, deed: Deed = "change", *, after: int = 0, file: str | None = None) -> None:
        """Let the process come to its end in place of a call: the store raises DiskStopped from there on.

        Then call `crash` or `power_cut`.
        """
        self._arm(deed, "stop", 0, after, 1, file)

    def flip(self, file: str, bit: int) -> None:
        """Turn over one bit of a file. What SQLite has in memory stays as it is."""
        self._files.named[file].flip(bit)

    def chop(self, file: str, size: int) -> None:
        """Let a file end after so many bytes. What SQLite has in memory stays as it is."""
        self._files.named[file].chop(size)

    def heal(self) -> None:
        """Forget every armed fault that has not happened."""
        self._faults.armed.clear()

    def _arm(self, deed: Deed, kind: Kind, number: int, after: int, times: int, file: str | None) -> None:
        self._faults.arm(Fault(deed, kind, number, after, times, file))

    # --- what can be seen ----------------------------------------------------------------------------------------

    @property
    def capacity(self) -> int | None:
        """Bytes that all files may take together; None: without end. Set it to fill the disk or to make room."""
        return self._files.capacity

    @capacity.setter
    def capacity(self, capacity: int | None) -> None:
        self._files.capacity = capacity

    @property
    def used(self) -> int:
        """Bytes that the files take."""
        return sum(file.room for file in self._files.named.values())

    def calls(self, deed: Deed = "change") -> int:
        """How often a deed was tried in the life of this process: to stop at each of them in turn."""
        return self._faults.calls[deed]

    def take_time(self) -> int:
        """Return how many microseconds slow syncs took since this was last asked."""
        took, self._faults.took = self._faults.took, 0
        return took

    def image(self) -> dict[str, bytes]:
        """Return what a process would read of each file."""
        return {name: bytes(file.data) for name, file in sorted(self._files.named.items())}

    def fork(self, choose: Choose | None = None) -> SimDisk:
        """Return a disk in the same state that goes its own way: nobody has it open and nothing is armed.

        It takes a small part of the time that a new store takes to make its tables.
        """
        other = SimDisk(
            seed=self._seed,
            choose=choose or self._choose,
            wall=self._wall,
            ballast_bytes=self.ballast_bytes,
            log_bytes=self.log_bytes,
            process_id=self.process_id,
        )
        other._files = self._files.fork()
        other._connects = self._connects
        other._begin_life()
        return other
