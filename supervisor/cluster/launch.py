"""Starting a broker's or a node's process, waiting until it is ready, and stopping it.

Owns the pipes: the configuration goes in through one, the word that it is ready comes back through another, and a
third is the lifeline, whose end tells the process that its starter is gone. Processes get a session of their own, so
that a Ctrl-C in a terminal reaches only the program that started them, which then stops them in order.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from ...transport.errors import GreenroomError
from ...transport.wire.address import IPC_PATH_BYTES_MAX
from .ready import Word, understand

BROKER: Final = "greenroom.supervisor.cluster.broker"
NODE: Final = "greenroom.supervisor.cluster.node"

#: How a node is stopped: warm, then cold, then by force. Each Ctrl-C goes one step on, and so does the time.
WARM: Final = (signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL)
COLD: Final = (signal.SIGQUIT, signal.SIGKILL)
#: How a broker is stopped. What it confirmed is on disk at any moment, so force loses nothing.
BROKER_STOP: Final = (signal.SIGTERM, signal.SIGKILL)
#: The time that each step after the first has.
STEP_SECONDS = 10.0


class LaunchFailed(GreenroomError):
    """Raised when a process that was started could not begin its work, or was not ready in time; says why."""


class Launched:
    """One process that was started here."""

    def __init__(self, module: str, *, what: str) -> None:
        """Start `python -m module DESCRIPTOR`, which imports what it needs and waits for its configuration."""
        self.what = what
        config_read, self._config = os.pipe()
        self._ready, ready_write = os.pipe()
        lifeline_read, self._lifeline = os.pipe()
        self._theirs = (lifeline_read, ready_write)
        try:
            self.process = subprocess.Popen(
                # -P: a file in the working folder must not take the place of a module that the process needs.
                [sys.executable, "-P", "-m", module, str(config_read)],
                pass_fds=(config_read, ready_write, lifeline_read),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
            )
        except BaseException:
            self._let_go()
            raise
        finally:
            for descriptor in (config_read, ready_write, lifeline_read):
                os.close(descriptor)
        _launched.add(self)

    def begin(self, config: msgspec.Struct) -> None:
        """Let it begin, with this configuration, which has the fields `lifeline` and `ready`."""
        lifeline, ready = self._theirs
        told = msgspec.structs.replace(config, lifeline=lifeline, ready=ready)
        descriptor, self._config = self._config, -1
        # A process that has ended already is noticed when its word is waited for.
        with contextlib.suppress(BrokenPipeError), os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.msgpack.encode(told))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def wait_until_ready(self, timeout_seconds: float) -> Word:
        """Return what the process says when it is ready. Raises LaunchFailed; then it has ended."""
        deadline = time.monotonic() + timeout_seconds
        said = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._ready, selectors.EVENT_READ)
            while not said.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self.kill()
                    raise LaunchFailed(f"{self.what} was not ready within {timeout_seconds:g} s, and was stopped")
                chunk = os.read(self._ready, 65_536)
                if not chunk:
                    raise LaunchFailed(f"{self.what} ended before it was ready, {_in_words(self._await_end())}")
                said += chunk
        word = understand(said)
        if word.failed:
            self._await_end()
            raise LaunchFailed(f"{self.what} could not start: {word.failed}")
        return word

    def stop(self, timeout_seconds: float, how: Sequence[signal.Signals] = WARM) -> int:
        """Stop it by the first of these signals, and by the next ones if it does not end in time; return its exit code.

        Ctrl-C while this waits means that somebody is in a hurry: the next signal is sent at once, and
        KeyboardInterrupt raised when the process is gone.
        """
        hurry: KeyboardInterrupt | None = None
        # One that was never told to begin ends by this, also where it inherited that signals are to be ignored.
        self._withhold()
        try:
            for number in how:
                try:
                    self.process.send_signal(number)
                    self.process.wait(timeout_seconds)
                except subprocess.TimeoutExpired:
                    timeout_seconds = STEP_SECONDS
                except KeyboardInterrupt as error:
                    hurry = error
                else:
                    break
        finally:
            self._let_go()
        if hurry is not None:
            raise hurry
        return self.process.wait()

    def kill(self) -> None:
        """End it by force."""
        self.process.kill()
        self.process.wait()
        self._let_go()

    def _await_end(self) -> int:
        """Wait for the end of a process that said it would; return its exit code."""
        try:
            return self.process.wait(STEP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            self._let_go()

    def _withhold(self) -> None:
        """Give no configuration any more."""
        descriptor, self._config = self._config, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _let_go(self) -> None:
        """Close our ends of the pipes."""
        self._withhold()
        descriptors = (self._lifeline, self._ready)
        self._lifeline = self._ready = -1
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)

    def forget(self) -> None:
        """In a process that was forked off: let go of the lifeline, so that it ends with the starter alone."""
        self._let_go()


def address_in(folder: Path) -> str:
    """Return where a broker in a private folder is to listen: on a socket there, if the path is not too long."""
    path = folder / "broker"
    return f"ipc://{path}" if len(os.fsencode(path)) <= IPC_PATH_BYTES_MAX else "tcp://127.0.0.1:0"


def _in_words(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"with exit code {code}"


#: What this process has started.
_launched: weakref.WeakSet[Launched] = weakref.WeakSet()


def _forget_in_child() -> None:
    for launched in list(_launched):
        launched.forget()


os.register_at_fork(after_in_child=_forget_in_child)
