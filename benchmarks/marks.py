"""What the tasks leave behind, so that "done" and "started again" mean the same for every system.

A worker process counts finished no-ops in a small shared file, which costs the task well under a microsecond; a task
that holds adds a line when it starts. The agent reads both. No system's own counters are asked.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from pathlib import Path

_COUNT = struct.Struct("<Q")
_POLL_SECONDS = 0.001
#: How long a task holds when nobody kills it.
HOLD_SECONDS = 45.0


class Tally:
    """A worker process's count of what it finished. Safe in threads and after a fork."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._memory: mmap.mmap | None = None

    def add(self) -> None:
        """Count one more."""
        with self._lock:
            self._count += 1
            if self._memory is None:
                self._memory = self._open()
            _COUNT.pack_into(self._memory, 0, self._count)

    def _open(self) -> mmap.mmap:
        file = os.open(self._folder / f"count-{os.getpid()}", os.O_RDWR | os.O_CREAT)
        try:
            os.ftruncate(file, _COUNT.size)
            return mmap.mmap(file, _COUNT.size)
        finally:
            os.close(file)


class Marks:
    """What all workers of one place left in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, int] = {}

    def hold(self, token: str) -> None:
        """In a task: note the start; stay when it is the first one with this token."""
        earlier = len(self.starts(token))
        line = f"{token} {os.getpid()} {time.monotonic()}\n".encode()
        file = os.open(self.folder / "starts", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, line)
        finally:
            os.close(file)
        if not earlier:
            time.sleep(HOLD_SECONDS)

    def starts(self, token: str) -> list[tuple[int, float]]:
        """Return the starts with this token so far: process id, monotonic seconds."""
        try:
            text = (self.folder / "starts").read_text("ascii")
        except FileNotFoundError:
            return []
        words = [line.split() for line in text.splitlines()]
        return [(int(pid), float(moment)) for name, pid, moment in words if name == token]

    def wait_starts(self, token: str, count: int, seconds: float) -> list[tuple[int, float]]:
        """Return the starts once there are `count`. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while len(found := self.starts(token)) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"expected {count} starts of a task within {seconds:g} s, got {len(found)}")
            time.sleep(_POLL_SECONDS)
        return found

    def total(self) -> int:
        """Return how many no-ops all workers have finished."""
        for name in os.listdir(self.folder):
            if name.startswith("count-") and name not in self._files:
                self._files[name] = os.open(self.folder / name, os.O_RDONLY)
        total = 0
        for file in self._files.values():
            read = os.pread(file, _COUNT.size, 0)
            if len(read) == _COUNT.size:
                (count,) = _COUNT.unpack(read)
                total += count
        return total

    def wait_total(self, total: int, seconds: float) -> None:
        """Return once that many no-ops are finished. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while (done := self.total()) < total:
            if time.monotonic() > deadline:
                raise TimeoutError(f"expected {total} finished tasks within {seconds:g} s, got {done}")
            time.sleep(_POLL_SECONDS)
