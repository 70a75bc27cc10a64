"""A simulated disk as one process sees it: every call of the store's, inside SQLite and beside it.

Owns what a call meets (a fault, a full disk, the end of the process) and the rule that a dead process does nothing:
a `Mount` lives as long as its process. The call at which the process comes to its end raises DiskStopped. From then on
nothing changes the disk through this mount, and nothing complains: SQLite may tidy up what was thrown away when it
likes, and its reads still see what is there. Who would speak for a dead process, the connection, refuses instead.
"""

from __future__ import annotations

import errno

from .faults import Choose, Deed, DiskStopped, Fault, Faults
from .files import SECTOR_BYTES, SimFile, SimFiles, no_room, os_error


class Mount:
    """The files of a disk in the hands of one process. Raises OSError or DiskStopped, as each call says."""

    def __init__(self, files: SimFiles, faults: Faults, choose: Choose) -> None:
        self.files = files
        #: Set by whoever ends the process.
        self.is_over = False
        self._faults = faults
        self._choose = choose

    def exists(self, name: str) -> bool:
        """Tell whether there is such a file."""
        return name in self.files.named

    def open(self, name: str) -> SimFile:
        """Return this file, made new if there was none. Raises OSError, DiskStopped."""
        file = self.files.named.get(name)
        if self.is_over:
            return file or SimFile(name)
        self._fail(self._meet("open", name), name)
        if file is None:
            self._fail(self._meet("create", name), name)
            file = self.files.create(name)
        return file

    def delete(self, name: str) -> None:
        """Delete a file. Raises OSError (ENOENT if it is not there), DiskStopped."""
        if self.is_over:
            return
        self._fail(self._meet("delete", name), name)
        if name not in self.files.named:
            raise os_error(errno.ENOENT, name)
        self.files.delete(name)

    def read(self, file: SimFile, offset: int, amount: int) -> bytes:
        """Return what is there, less if the file ends before. Raises OSError, DiskStopped."""
        if not self.is_over:
            self._fail(self._meet("read", file.name), file.name)
        return bytes(file.data[offset : offset + amount])

    def write(self, file: SimFile, offset: int, written: bytes) -> None:
        """Write; on a full disk as many sectors as find room. Raises OSError, DiskStopped."""
        if self.is_over:
            return
        self._fail(self._meet("write", file.name), file.name)
        free = self.files.free
        if free is not None:
            end = file.room + free
            if offset + len(written) > end:
                fits = max(0, end // SECTOR_BYTES * SECTOR_BYTES - offset)
                if fits:
                    file.write(offset, written[:fits])
                raise no_room(file.name)
        file.write(offset, written)

    def reserve(self, file: SimFile, size: int) -> None:
        """Set room aside for a file, or give it back. Raises OSError, DiskStopped."""
        if self.is_over:
            return
        self._fail(self._meet("write", file.name), file.name)
        free = self.files.free
        if free is not None and size - file.room > free:
            raise no_room(file.name)
        file.reserved = size

    def truncate(self, file: SimFile, size: int) -> None:
        """Set the size of a file. Raises OSError, DiskStopped."""
        if self.is_over:
            return
        self._fail(self._meet("truncate", file.name), file.name)
        file.truncate(size)

    def sync(self, file: SimFile) -> None:
        """Make a file durable: not its name. Raises OSError, DiskStopped."""
        if self.is_over:
            return
        fault = self._meet("sync", file.name)
        if fault is None:
            file.sync()
        elif fault.kind == "fail":
            file.drop_changes(self._choose)
            raise os_error(fault.number, file.name)

    def sync_names(self) -> None:
        """Make creations and deletions durable. Raises OSError, DiskStopped."""
        if self.is_over:
            return
        fault = self._meet("sync", "")
        self._fail(fault, "the directory")
        if fault is None:
            self.files.sync()

    def _meet(self, deed: Deed, name: str) -> Fault | None:
        fault = self._faults.meet(deed, name)
        if fault is not None and fault.kind == "stop":
            self.is_over = True
            raise DiskStopped(f"the process came to its end before it could {deed} {name or 'the directory'}")
        return fault

    def _fail(self, fault: Fault | None, name: str) -> None:
        if fault is not None and fault.kind == "fail":
            raise os_error(fault.number, name)
