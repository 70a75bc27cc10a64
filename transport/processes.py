"""Which process a pid means: its name for as long as the machine runs, and whether it still does.

A pid is used again; the pair of pid and start time is not, within one boot of the machine. Pages of children
and folders of nodes name processes in this way, so that nobody waits for, or trusts, a stranger.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import msgspec


class ProcessName(msgspec.Struct, frozen=True):
    """A process. `started_at` is in the platform's own unit; `boot` tells boots of the machine apart."""

    pid: int
    started_at: int
    boot: int


def process_name(pid: int) -> ProcessName:
    """Name the process that has this pid now; `started_at` is 0 if there is none, or it cannot be seen."""
    return ProcessName(pid, _started_at(pid), _boot())


def still_runs(process: ProcessName) -> bool:
    """Whether that process can still run code. A zombie cannot."""
    return process.boot == _boot() and process.started_at != 0 and _started_at(process.pid) == process.started_at


def _started_at(pid: int) -> int:
    """When the process began, or 0 if it has ended."""
    try:
        # psutil adds the time of the boot by the wall clock, which may be set; the kernel's own count stands
        # still.
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0 if Path("/proc/self/stat").exists() else _started_at_elsewhere(pid)
    # The second field is the program's name in brackets, which may hold anything.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def _started_at_elsewhere(pid: int) -> int:
    # Not at the top: every process of a worker would pay for it, and Linux needs it nowhere.
    import psutil

    try:
        process = psutil.Process(pid)
        return 0 if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time() * 1_000_000)
    except psutil.Error:
        return 0


def _boot() -> int:
    try:
        return zlib.crc32(Path("/proc/sys/kernel/random/boot_id").read_bytes())
    except OSError:
        return 0
