"""A process on a terminal of its own: what it shows, what is typed, and how it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path
from types import TracebackType

from greenroom.supervisor.pool.kernel import die_with_parent

from .cluster import PATIENCE_SECONDS

CONTROL_C = "\x03"
CONTROL_D = "\x04"


class Terminal:
    """Runs a command; use it as a context, which kills what still runs."""

    def __init__(self, *command: str, folder: Path, environment: dict[str, str], columns: int = 80) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        self.popen = subprocess.Popen(
            command,
            cwd=folder,
            env={**environment, "TERM": "xterm", "COLUMNS": "", "LINES": ""},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        os.set_blocking(self._master, False)
        self._shown = b""
        self._seen = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        os.close(self._master)

    @property
    def text(self) -> str:
        """All that was shown, with lines as they were sent."""
        self._read()
        return self._shown.decode(errors="replace").replace("\r\n", "\n")

    def wait_for(self, text: str, within: float = PATIENCE_SECONDS) -> None:
        """Wait until this is shown, after what was waited for before. Raises AssertionError."""
        until = time.monotonic() + within
        while (at := self.text.find(text, self._seen)) < 0:
            rest = self.text[self._seen :]
            assert self.popen.poll() is None or self._read(), f"it ended before it showed {text!r}, after:\n{rest}"
            assert time.monotonic() < until, f"{text!r} was not shown within {within:g} s, but:\n{rest}"
            select.select([self._master], [], [], 0.05)
        self._seen = at + len(text)

    def type(self, text: str) -> None:
        """Type something."""
        os.set_blocking(self._master, True)
        os.write(self._master, text.encode())
        os.set_blocking(self._master, False)

    def wait(self, within: float = PATIENCE_SECONDS) -> int:
        """Wait for its end; return its exit code."""
        until = time.monotonic() + within
        while self.popen.poll() is None:
            # A terminal that nobody reads stops who writes to it.
            self._read()
            assert time.monotonic() < until, f"it did not end within {within:g} s, but showed:\n{self.text}"
            select.select([self._master], [], [], 0.02)
        return self.popen.wait()

    def _read(self) -> bool:
        """Take in what has come; return whether it was anything."""
        before = len(self._shown)
        # EIO: nobody has the other end open any more.
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 65_536):
                self._shown += data
        return len(self._shown) > before


def _take_terminal() -> None:
    """In the new process, before it executes the command: let the terminal be the one that Ctrl-C comes from."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    die_with_parent(signal.SIGKILL)
