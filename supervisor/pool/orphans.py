"""What a dead child leaves running, and the end of it.

A child leads a session and a process group of its own, and what it starts carries its mark in the environment.
Whoever adopts orphans (the spawner; the node's parent when the spawner is gone) finds here which of them nobody
is left for: those that are neither in the session of a living child nor carry a living child's mark. So what a
task started does not outlive its child, and what another task started in the background is left alone.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterable
from contextlib import suppress

from .kernel import children_of, environment_of

#: In the environment of a child: its session. What it starts inherits it.
CHILD_MARK = "GREENROOM_CHILD"


def kill_group(leader: int) -> None:
    """SIGKILL a child and its process group. Its pid must still be reserved: not waited for yet."""
    for kill in (os.kill, os.killpg):
        # It may be a zombie already, have no group yet, or have become somebody else (setuid).
        with suppress(ProcessLookupError, PermissionError):
            kill(leader, signal.SIGKILL)


def kill_orphans(
    *, own: Collection[int], living: Collection[int], marks: Iterable[str], only_marked: str = ""
) -> list[int]:
    """SIGKILL adopted processes that no living child is responsible for; return their pids.

    `own`: children of this process that are no orphans. `living`: the pids of living children, `marks` their
    sessions. `only_marked`: spare whatever does not carry a mark that begins so (for a process that adopts
    strangers too, as process 1 of a container does).
    """
    killed: list[int] = []
    wanted = frozenset(f"{CHILD_MARK}={mark}".encode() for mark in marks)
    prefix = f"{CHILD_MARK}={only_marked}".encode()
    for pid in children_of(os.getpid()):
        if pid in own or _session_of(pid) in living:
            continue
        if wanted or only_marked:
            environment = environment_of(pid).split(b"\0")
            if not wanted.isdisjoint(environment):
                continue
            if only_marked and not any(entry.startswith(prefix) for entry in environment):
                continue
        killed.append(pid)
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return killed


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1
