"""Starting a broker's or a node's process, waiting until it is ready, and stopping it.

Owns the pipes: the configuration goes in through one, "ready" comes back through another, and a third is the lifeline
whose end tells the process that its starter is gone. Processes get a session of their own, so that a Ctrl-C in a
terminal reaches only the program that started them, which then stops them in order.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from typing import IO

import msgspec

from ...transport.errors import GreenroomError


class LaunchFailed(GreenroomError):
    """Raised when a process that was started ended, or was not ready in time; its last words are in the text."""


class Launched:
    """One process that was started here."""

    def __init__(self, module: str, config: msgspec.Struct, *, what: str, errors: IO[bytes] | None = None) -> None:
        """Start `python -m module DESCRIPTOR`; `config` has the fields `lifeline` and `ready`."""
        self.what = what
        config_read, config_write = os.pipe()
        ready_read, ready_write = os.pipe()
        lifeline_read, self._lifeline = os.pipe()
        self._errors = errors
        told = msgspec.structs.replace(config, lifeline=lifeline_read, ready=ready_write)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(config_read)],
                pass_fds=(config_read, ready_write, lifeline_read),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stderr=errors,
            )
        finally:
            for descriptor in (config_read, ready_write, lifeline_read):
                os.close(descriptor)
        self._ready = ready_read
        with os.fdopen(config_write, "wb") as file:
            file.write(msgspec.msgpack.encode(told))

    def wait_until_ready(self, timeout_seconds: float) -> str:
        """Return the line that the process says when it is ready. Raises LaunchFailed."""
        deadline = time.monotonic() + timeout_seconds
        said = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._ready, selectors.EVENT_READ)
            while b"\n" not in said:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self.kill()
                    raise LaunchFailed(f"{self.what} was not ready within {timeout_seconds:g} s{self._last_words()}")
                chunk = os.read(self._ready, 4096)
                if not chunk:
                    code = self.process.wait(timeout=10)
                    raise LaunchFailed(
                        f"{self.what} ended with exit code {code} before it was ready{self._last_words()}"
                    )
                said += chunk
        os.close(self._ready)
        return said.decode().strip()

    def _last_words(self) -> str:
        """The end of what the process wrote to its error output, where that is kept."""
        if self._errors is None:
            return ""
        self._errors.flush()
        size = os.fstat(self._errors.fileno()).st_size
        words = os.pread(self._errors.fileno(), 4096, max(0, size - 4096)).decode(errors="replace").strip()
        return f":\n{words}" if words else ""

    def stop(self, timeout_seconds: float, *, how: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop and wait; kill it after the timeout. Returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(timeout=timeout_seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        return self.process.returncode

    def kill(self) -> None:
        """End it by force."""
        self.process.kill()
        self.process.wait(timeout=30)
