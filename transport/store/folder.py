"""A broker's data folder: whose it is, and the two files beside the database.

Owns the folder's creation (0700, its files 0600) and four files in it:

- `lock`: held with flock by the one broker that may use the folder, with its process id inside;
- `store.db`: only its name is known here; SQLite keeps it, and its log `store.db-wal` beside it. What the log holds is
  written once more before SQLite sees it: see `_renew_log`;
- `ballast`: room that a full disk gives back, so that settles and leases still commit (spec D29);
- `confirmed`: the number of the last commit that was synced. SQLite takes a damaged log for one that was torn
  by a power cut and drops its tail without a word; with this number the store notices. It is written after
  each such commit and never synced: what a power cut leaves there is an older number, which is also true.

What a simulated disk offers instead has the same methods, in the protocol `Folder`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import weakref
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol
from zlib import crc32

from ..errors import DataFolderLocked, StoreFailed
from .connection import SQLITE_FULL, code_of_os_error

#: Enough for several full logs, so that settles and leases go on for long after publishes were refused.
BALLAST_BYTES = 32 << 20
#: The log is moved into the database when it has grown to about this. It bounds how long one commit can be
#: held up by that (some 2,000 pages to write and one fsync: about 20 ms where they all differ), and it is
#: large enough that a page which changes with every commit is written to the database once in hundreds of
#: them.
LOG_BYTES = 8 << 20

#: What SQLite appends to a database's name for its log.
LOG_SUFFIX = "-wal"
#: How much of the log is written over itself at a time.
RENEWED_BYTES = 1 << 20

_CONFIRMED = struct.Struct("<QI")
#: What the file `confirmed` holds.
CONFIRMED_BYTES = _CONFIRMED.size


class Folder(Protocol):
    """Where a store lives."""

    @property
    def database(self) -> str:
        """The name to connect to."""
        ...

    @property
    def log_bytes(self) -> int:
        """How large the log may grow before it is moved into the database."""
        ...

    @property
    def has_ballast(self) -> bool:
        """Whether the ballast is there."""
        ...

    def take(self) -> None:
        """Make the folder, or take it over. Raises DataFolderLocked or StoreFailed."""
        ...

    def give_back(self) -> None:
        """Let another broker take the folder."""
        ...

    def renew_ballast(self) -> bool:
        """Try to lay the ballast down again; return whether it is there now."""
        ...

    def release_ballast(self) -> None:
        """Give the ballast's room to the database."""
        ...

    def read_confirmed(self) -> int:
        """Return the last number given to `write_confirmed` that survived; 0 if none did."""
        ...

    def write_confirmed(self, commits: int) -> None:
        """Remember that this many commits are on disk; need not survive a power cut. Raises StoreFailed."""
        ...


class DataFolder:
    """A folder of the file system.

    On a small file system ballast and log are smaller: a quarter and a sixteenth of it at most.
    """

    def __init__(self, path: Path, *, ballast_bytes: int = BALLAST_BYTES) -> None:
        self.path = path
        self.database = str(path / "store.db")
        self.log_bytes = LOG_BYTES
        self.has_ballast = False
        self._ballast_bytes = ballast_bytes
        self._lock = -1
        self._confirmed = -1

    def take(self) -> None:
        """Make the folder, or take it over. Raises DataFolderLocked or StoreFailed."""
        with self._failing("open"):
            created = not self.path.exists()
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _open_private(self.path / "lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(lock, 32)
            os.close(lock)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise self._failure("lock", error) from error
            raise DataFolderLocked(
                folder=str(self.path), pid=int(holder) if holder.strip().isdigit() else None
            ) from error
        self._lock = lock
        _taken.add(self)
        try:
            self._furnish(created)
        except BaseException:
            self.give_back()
            raise

    def give_back(self) -> None:
        """Let another broker take the folder. The ballast stays, so that a full disk can be opened again."""
        for descriptor in (self._confirmed, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._confirmed = self._lock = -1
        _taken.discard(self)

    def _furnish(self, created: bool) -> None:
        with self._failing("open"):
            # Over the last one's and as long, since a full disk may have no room for a file that grows.
            os.pwrite(self._lock, b"%-20d\n" % os.getpid(), 0)
            os.close(_open_private(Path(self.database)))  # before SQLite does, which would ask the umask
            self._renew_log()
            self._confirmed = _open_private(self.path / "confirmed")
            _sync_folder(self.path)
            if created:
                _sync_folder(self.path.parent)
            status = os.statvfs(self.path)
        whole = status.f_frsize * status.f_blocks
        self._ballast_bytes = min(self._ballast_bytes, whole // 4)
        self.log_bytes = min(self.log_bytes, whole // 16)
        self._lay_ballast(margin_bytes=0)

    def _renew_log(self) -> None:
        """Write the log over itself and sync it, so that all that can be read of it is on disk.

        When an fsync fails, the system takes what it could not write for written: it goes on to show it to readers
        and never writes it again, nor does a later fsync say so. SQLite would go on behind it, and whatever was
        confirmed there would go with it at a power cut.

        The file is made here if it is not there, for SQLite does not look whether its name came to the disk.
        """
        log = _open_private(Path(self.database + LOG_SUFFIX))
        try:
            offset = 0
            while part := os.pread(log, RENEWED_BYTES, offset):
                offset += os.pwrite(log, part, offset)
            os.fsync(log)
        finally:
            os.close(log)

    def renew_ballast(self) -> bool:
        """Try to lay the ballast down again; return whether it is there now.

        Half as much again must be free. Else the room that the ballast itself gave would do, and the next
        publish would find the disk full once more.
        """
        return self.has_ballast or self._lay_ballast(margin_bytes=self._ballast_bytes // 2)

    def _lay_ballast(self, margin_bytes: int) -> bool:
        path = self.path / "ballast"
        try:
            ballast = _open_private(path)
            try:
                if self._ballast_bytes:
                    os.posix_fallocate(ballast, 0, self._ballast_bytes + margin_bytes)
                os.ftruncate(ballast, self._ballast_bytes)
            finally:
                os.close(ballast)
        except OSError:
            # Whatever the reason, there is no ballast, and publishes are refused until there is.
            with suppress(OSError):
                path.unlink()
            return False
        self.has_ballast = True
        return True

    def release_ballast(self) -> None:
        """Give the ballast's room to the database."""
        self.has_ballast = False
        with self._failing("remove the ballast from"):
            (self.path / "ballast").unlink(missing_ok=True)

    def read_confirmed(self) -> int:
        """Return the last number given to `write_confirmed` that survived; 0 if none did."""
        with self._failing("read"):
            written = os.pread(self._confirmed, CONFIRMED_BYTES, 0)
        return unpack_confirmed(written)

    def write_confirmed(self, commits: int) -> None:
        """Remember that this many commits are on disk; need not survive a power cut. Raises StoreFailed."""
        try:
            os.pwrite(self._confirmed, pack_confirmed(commits), 0)
        except OSError as error:
            if code_of_os_error(error) != SQLITE_FULL:  # without room the older number stays, which is also true
                raise self._failure("write to", error) from error

    @contextmanager
    def _failing(self, deed: str) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise self._failure(deed, error) from error

    def _failure(self, deed: str, error: OSError) -> StoreFailed:
        return StoreFailed(
            f"could not {deed} the data folder {str(self.path)!r}: {error.strerror} "
            f"({error.filename or 'a file in it'}); give the broker a folder that it may write to with --data"
        )


#: Folders that this process holds. A lock of flock belongs to every process that has the descriptor, so a
#: child that was forked would keep the folder after the broker's death.
_taken: weakref.WeakSet[DataFolder] = weakref.WeakSet()


def _let_go_in_child() -> None:
    for folder in list(_taken):
        folder.give_back()


os.register_at_fork(after_in_child=_let_go_in_child)


def pack_confirmed(commits: int) -> bytes:
    """Return what the file `confirmed` holds after this many commits."""
    return _CONFIRMED.pack(commits, crc32(commits.to_bytes(8, "little")))


def unpack_confirmed(written: bytes) -> int:
    """Return the number in the file `confirmed`; 0 if it holds none that is whole."""
    if len(written) != CONFIRMED_BYTES:
        return 0
    commits, seal = _CONFIRMED.unpack(written)
    return commits if seal == crc32(written[:8]) else 0


def _open_private(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
