"""What a pool asks of the Linux kernel: who dies with whom, who inherits orphans, and who is whose child.

Owns the few calls of prctl(2) and the reading of /proc that keep a pool from leaving processes behind. Elsewhere
than on Linux the settings do nothing, and only children that watch their pipe end with their parent.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_SET_DEATH_SIGNAL = 1
_SET_NAME = 15
_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _control(option: int, argument: int | bytes) -> None:
    if _libc is None:
        return
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}): {os.strerror(error)}")


def die_with_parent(number: int) -> None:
    """Have the kernel send this signal to this process when the thread that forked it ends; 0: not any more.

    A parent that is gone already is not noticed: compare `os.getppid()` afterwards.
    """
    _control(_SET_DEATH_SIGNAL, number)


def adopt_orphans() -> None:
    """Make this process the new parent of every descendant whose own parent ends."""
    _control(_SET_CHILD_SUBREAPER, 1)


def name_process(name: str) -> None:
    """Give this process a name for `ps` and `top`; what is longer than 15 bytes is cut."""
    _control(_SET_NAME, name.encode()[:15])


def prefer_as_victim(by: int) -> None:
    """Make the OOM killer rather choose this process, by thousandths of the memory, and what it starts."""
    path = "/proc/self/oom_score_adj"
    try:
        score = int(Path(path).read_text())
        Path(path).write_text(str(min(score + by, 1000)))
    except (OSError, ValueError):
        # A wish, no more: the kernel may forbid it or not know it.
        return


def children_of(pid: int) -> list[int]:
    """Return the children of a process, zombies included; none if it is gone or cannot be seen."""
    children: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return children
    for thread in threads:
        try:
            children.extend(map(int, Path(f"/proc/{pid}/task/{thread}/children").read_bytes().split()))
        except OSError:
            # A kernel without this file, or a thread that has just ended.
            return [child for child, parent in _all_processes() if parent == pid]
    return children


def threads_of_this_process() -> int:
    """Return how many threads this process has, those that Python does not know included."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 1


def environment_of(pid: int) -> bytes:
    """Return the environment that a process was started with (by exec); nothing if it cannot be read."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _all_processes() -> Iterator[tuple[int, int]]:
    """Yield (pid, parent's pid) of every process that can be seen."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path(f"/proc/{name}/stat").read_bytes()
            except OSError:
                continue
            # The second field is the program's name in brackets, which may hold anything.
            yield int(name), int(stat[stat.rindex(b")") + 2 :].split()[1])
