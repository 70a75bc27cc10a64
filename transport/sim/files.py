"""The bytes of a simulated disk, and what a power cut leaves of them.

Owns files and the one directory that names them. Each file has two faces: `data`, what every process sees (the page
cache), and what is on the medium: everything up to the last sync, and in `changes` what was written since, in order.
The death of a process changes nothing here. A power cut leaves what is on the medium, and of the changes what
`choose` says (`faults.Choose`; it is not asked where there is nothing to choose).

The model is a journaling file system in ordered mode, like ext4 or xfs, taken by what POSIX promises and no more:

- Of a file's un-synced changes any set may have reached the medium, in any order. Of the last one that did, a
  prefix of whole sectors may have. A file that grew where a write was lost reads zeros there.
- A truncation is un-synced until the file is synced. Truncations of a file survive in their order. What was written
  past the end that a lost truncation would have set is lost with it: its blocks come after it in the journal.
- Creations and deletions survive in their order, until the directory is synced; to sync a file is not enough. A file
  whose deletion is lost is there again, with its own un-synced changes as uncertain as before.
- A failed sync drops what it could not write: readers go on to see it, and no later sync ever writes it. Linux does
  this, and tells nobody a second time.
- A write that survives has survived whole within a sector, and bytes beside it are untouched (SQLite's
  "powersafe overwrite", which production assumes of its disks).

Any subset of single writes is a little harder than reality, where a page of the cache is written with all that it
holds. No sector turns into garbage by itself: `flip` does that.
"""

from __future__ import annotations

import errno
import os

from .faults import Choose, answer

#: What a disk writes whole or not at all.
SECTOR_BYTES = 512


class SimFile:
    """One file."""

    __slots__ = ("changes", "data", "medium", "name", "reserved")

    def __init__(self, name: str) -> None:
        self.name = name
        self.data = bytearray()
        self.medium = bytearray()
        #: Since the last sync: a write, with its offset, or the size of a truncation.
        self.changes: list[tuple[int, bytes] | int] = []
        #: Bytes that were set aside for it without writing them.
        self.reserved = 0

    @property
    def room(self) -> int:
        """Bytes that it takes of its disk."""
        return max(len(self.data), self.reserved)

    def write(self, offset: int, written: bytes) -> None:
        """Write somewhere; a gap before it reads zeros."""
        _put(self.data, offset, written)
        self.changes.append((offset, written))

    def truncate(self, size: int) -> None:
        """Set the size; where it grows it reads zeros."""
        _resize(self.data, size)
        self.changes.append(size)

    def sync(self) -> None:
        """Put every change on the medium."""
        self._apply(self.changes)
        self.changes = []

    def drop_changes(self, choose: Choose) -> None:
        """Put some changes on the medium and none of the others ever; `data` stays as it is."""
        self._apply(self._survivors(choose))
        self.changes = []

    def cut(self, choose: Choose) -> None:
        """Keep what is on the medium, and of the changes what `choose` says."""
        self.drop_changes(choose)
        self.data = bytearray(self.medium)

    def flip(self, bit: int) -> None:
        """Turn one bit over, on the medium and for who reads it from now on."""
        for face in (self.data, self.medium):
            if bit >> 3 < len(face):
                face[bit >> 3] ^= 1 << (bit & 7)

    def chop(self, size: int) -> None:
        """Lose what stands behind these bytes, on the medium and for who reads it from now on."""
        for face in (self.data, self.medium):
            del face[size:]

    def fork(self) -> SimFile:
        """Return a file that is the same and goes its own way."""
        other = SimFile(self.name)
        other.data, other.medium = bytearray(self.data), bytearray(self.medium)
        other.changes, other.reserved = list(self.changes), self.reserved
        return other

    def _apply(self, changes: list[tuple[int, bytes] | int]) -> None:
        for change in changes:
            if isinstance(change, int):
                _resize(self.medium, change)
            else:
                _put(self.medium, *change)

    def _survivors(self, choose: Choose) -> list[tuple[int, bytes] | int]:
        changes = self.changes
        if not changes:
            return []
        question = f"which of {len(changes)} un-synced changes of {self.name} survive, the first in the lowest bit"
        kept = answer(choose, question, (1 << len(changes)) - 1)
        # Truncations are in the journal, and so no gap is in their row.
        last_truncation = max(
            (n for n, change in enumerate(changes) if isinstance(change, int) and kept >> n & 1), default=-1
        )
        survivors: list[tuple[int, bytes] | int] = []
        end: int | None = None
        for number, change in enumerate(changes):
            if isinstance(change, int):
                if number <= last_truncation:
                    survivors.append(change)
                else:
                    end = change if end is None else min(end, change)
            elif kept >> number & 1:
                offset, written = change
                if end is not None:
                    written = written[: max(0, end - offset)]
                if written:
                    survivors.append((offset, written))
        if survivors and not isinstance(survivors[-1], int):
            survivors[-1] = self._torn(*survivors[-1], choose)
        return survivors

    def _torn(self, offset: int, written: bytes, choose: Choose) -> tuple[int, bytes]:
        first = offset // SECTOR_BYTES
        sectors = (offset + len(written) - 1) // SECTOR_BYTES - first + 1
        if sectors == 1:
            return offset, written
        lost = answer(choose, f"sectors missing at the end of the last of them, at {offset}", sectors - 1)
        return offset, written[: (first + sectors - lost) * SECTOR_BYTES - offset]


class SimFiles:
    """A directory of files, and how much room there is for them."""

    def __init__(self) -> None:
        #: What a process sees.
        self.named: dict[str, SimFile] = {}
        #: Bytes that all files may take together; None: no limit. May be changed at any time.
        self.capacity: int | None = None
        self._medium: dict[str, SimFile] = {}
        self._changes: list[tuple[str, SimFile | None]] = []

    @property
    def free(self) -> int | None:
        """Bytes that are left; None: without end."""
        if self.capacity is None:
            return None
        return max(0, self.capacity - sum(file.room for file in self.named.values()))

    def create(self, name: str) -> SimFile:
        """Return a new empty file."""
        file = self.named[name] = SimFile(name)
        self._changes.append((name, file))
        return file

    def delete(self, name: str) -> None:
        """Forget a file; whoever has it open still has it."""
        del self.named[name]
        self._changes.append((name, None))

    def sync(self) -> None:
        """Put every creation and deletion on the medium."""
        self._medium = dict(self.named)
        self._changes.clear()

    def cut(self, choose: Choose) -> None:
        """Lose power."""
        if self._changes:
            question = f"how many of {len(self._changes)} un-synced creations and deletions survive"
            kept = answer(choose, question, len(self._changes))
            for name, file in self._changes[:kept]:
                if file is None:
                    self._medium.pop(name, None)
                else:
                    self._medium[name] = file
            self._changes.clear()
        self.named = dict(sorted(self._medium.items()))
        for file in self.named.values():
            file.cut(choose)

    def remove(self) -> None:
        """Everything is gone, from the medium too."""
        self.named, self._medium = {}, {}
        self._changes.clear()

    def fork(self) -> SimFiles:
        """Return a directory that is the same and goes its own way."""
        other = SimFiles()
        other.capacity = self.capacity
        copies: dict[SimFile, SimFile] = {}

        def copy(file: SimFile) -> SimFile:
            if file not in copies:
                copies[file] = file.fork()
            return copies[file]

        other.named = {name: copy(file) for name, file in self.named.items()}
        other._medium = {name: copy(file) for name, file in self._medium.items()}
        other._changes = [(name, None if file is None else copy(file)) for name, file in self._changes]
        return other


def os_error(number: int, name: str) -> OSError:
    """Return the error that a call about this file fails with."""
    return OSError(number, os.strerror(number), name)


def no_room(name: str) -> OSError:
    """Return the error of a full disk."""
    return os_error(errno.ENOSPC, name)


def _put(face: bytearray, offset: int, written: bytes) -> None:
    if offset > len(face):
        face.extend(bytes(offset - len(face)))
    face[offset : offset + len(written)] = written


def _resize(face: bytearray, size: int) -> None:
    if size < len(face):
        del face[size:]
    else:
        face.extend(bytes(size - len(face)))
