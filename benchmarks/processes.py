"""The processes that a benchmark starts: each ends with it, however it ends.

Every child has a session of its own, so that Ctrl-C reaches only us, who then stop them in order; the kernel
terminates it when we die first. We adopt what a child leaves behind, and end that too.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
#: How long children may take to stop in order before they are killed.
STOP_SECONDS = 8.0

_libc = ctypes.CDLL(None, use_errno=True)


class StartError(Exception):
    """Raised when a process did not come up; the message holds the last line that it wrote."""


class Children:
    """The processes of one start of a system. As a context it stops them at the end."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(
        self,
        command: Sequence[str | os.PathLike[str]],
        name: str,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        *,
        read: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Start a process whose output goes to a log; with `read`, its standard output to a pipe."""
        with open(self.log(name), "ab") as log:
            child = subprocess.Popen(
                [os.fspath(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if read else log,
                stderr=log,
                env={**os.environ, **(environment or {})},
                cwd=folder,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self._running.append(child)
        return child

    def log(self, name: str) -> Path:
        """Where the output of this process goes."""
        return self._logs / f"{name}.log"

    def last_words(self, name: str) -> str:
        """Return the last line that a process wrote, for an error; it is mostly that of an exception."""
        try:
            lines = self.log(name).read_text("utf-8", "replace").split("\n")
        except FileNotFoundError:
            return "it wrote nothing"
        return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")

    def wait_ready(self, child: subprocess.Popen[bytes], name: str, ready: Callable[[], bool], seconds: float) -> None:
        """Return once `ready()` is true. Raises StartError when the process ended or takes too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            if child.poll() is not None:
                raise StartError(f"{name} ended with code {child.returncode}: {self.last_words(name)}")
            if time.monotonic() > deadline:
                raise StartError(f"{name} was not ready within {seconds:g} s: {self.last_words(name)}")
            time.sleep(0.02)

    def end(self, child: subprocess.Popen[bytes]) -> None:
        """Kill one process and what it started, and wait for it."""
        _kill_group(child.pid)
        child.wait()
        self._running.remove(child)

    def stop(self) -> None:
        """Stop all in order, the latest first; kill what does not stop, and what they left behind."""
        deadline = time.monotonic() + STOP_SECONDS
        for child in reversed(self._running):
            if child.poll() is None:
                child.terminate()
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _kill_group(child.pid)
                child.wait()
            if child.stdout is not None:
                child.stdout.close()
        self._running.clear()
        sweep()


def adopt_orphans() -> None:
    """Become the parent of what our children leave behind (Linux), so that `sweep` finds it."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def sweep() -> None:
    """Kill every process below this one."""
    left = psutil.Process().children(recursive=True)
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=STOP_SECONDS)


def free_port() -> int:
    """Return a port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _end_with_parent() -> None:
    """In the child, before exec."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
