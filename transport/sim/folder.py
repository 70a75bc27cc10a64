"""A broker's data folder on a simulated disk.

Owns the files that a store keeps beside its database, as `store.folder.DataFolder` keeps them on a real disk: in the
same order, with the same bytes, and with syncs at the same places. The lock is not a file here but `holders`, a list
of the disk's that a crash empties.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress

from ..errors import DataFolderLocked, StoreFailed
from ..store.connection import SQLITE_FULL, code_of_os_error
from ..store.folder import CONFIRMED_BYTES, LOG_SUFFIX, RENEWED_BYTES, pack_confirmed, unpack_confirmed
from .files import SimFile
from .mount import Mount


class SimFolder:
    """The folder of one store object, for as long as its process lives."""

    database = "store.db"

    def __init__(
        self, mount: Mount, holders: list[SimFolder], *, ballast_bytes: int, log_bytes: int, process_id: int
    ) -> None:
        self.log_bytes = log_bytes
        self.has_ballast = False
        self.process_id = process_id
        self._mount = mount
        self._holders = holders
        self._ballast_bytes = ballast_bytes
        self._confirmed: SimFile | None = None

    def take(self) -> None:
        """Make the folder, or take it over. Raises DataFolderLocked, StoreFailed or DiskStopped."""
        if self._holders:
            raise DataFolderLocked(folder="a simulated disk", pid=self._holders[0].process_id)
        self._holders.append(self)
        try:
            with self._failing("open"):
                self._mount.open(self.database)
                self._renew_log()
                self._confirmed = self._mount.open("confirmed")
                self._mount.sync_names()
            if (capacity := self._mount.files.capacity) is not None:
                self._ballast_bytes = min(self._ballast_bytes, capacity // 4)
                self.log_bytes = min(self.log_bytes, capacity // 16)
            self._lay_ballast(margin_bytes=0)
        except BaseException:
            self.give_back()
            raise

    def give_back(self) -> None:
        """Let another broker take the folder."""
        if self in self._holders:
            self._holders.remove(self)

    def _renew_log(self) -> None:
        log = self._mount.open(self.database + LOG_SUFFIX)
        offset = 0
        while part := self._mount.read(log, offset, RENEWED_BYTES):
            self._mount.write(log, offset, part)
            offset += len(part)
        self._mount.sync(log)

    def renew_ballast(self) -> bool:
        """Try to lay the ballast down again, with half as much left over; return whether it is there now."""
        return self.has_ballast or self._lay_ballast(margin_bytes=self._ballast_bytes // 2)

    def _lay_ballast(self, margin_bytes: int) -> bool:
        try:
            ballast = self._mount.open("ballast")
            self._mount.reserve(ballast, self._ballast_bytes + margin_bytes)
            self._mount.reserve(ballast, self._ballast_bytes)
        except OSError:
            with suppress(OSError):
                self._mount.delete("ballast")
            return False
        self.has_ballast = True
        return True

    def release_ballast(self) -> None:
        """Give the ballast's room to the database. Raises StoreFailed or DiskStopped."""
        self.has_ballast = False
        with self._failing("remove the ballast from"), suppress(FileNotFoundError):
            self._mount.delete("ballast")

    def read_confirmed(self) -> int:
        """Return the last number given to `write_confirmed` that survived; 0 if none did."""
        assert self._confirmed is not None
        with self._failing("read"):
            return unpack_confirmed(self._mount.read(self._confirmed, 0, CONFIRMED_BYTES))

    def write_confirmed(self, commits: int) -> None:
        """Remember that this many commits are on disk, without a sync. Raises StoreFailed or DiskStopped."""
        assert self._confirmed is not None
        try:
            self._mount.write(self._confirmed, 0, pack_confirmed(commits))
        except OSError as error:
            if code_of_os_error(error) != SQLITE_FULL:
                raise self._failure("write to", error) from error

    @contextmanager
    def _failing(self, deed: str) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise self._failure(deed, error) from error

    def _failure(self, deed: str, error: OSError) -> StoreFailed:
        return StoreFailed(f"could not {deed} the data folder of a simulated disk: {error.strerror}")
