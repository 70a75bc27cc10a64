"""What the figures were measured on: without it they say nothing."""

from __future__ import annotations

import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from figures import percentile

#: Above this share of the cores busy at the start, others were at work too.
QUIET_LOAD = 0.25
SYNCS = 60
SYNC_BYTES = 4096


def facts(folder: Path) -> dict[str, Any]:
    """Return the machine's facts, among them how long a sync takes in the folder that is used."""
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": cores,
        "processor": _processor(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "system": platform.system(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load_1_minute": round(load, 2),
        "quiet": load <= QUIET_LOAD * cores,
        "filesystem": _filesystem(folder),
        **_sync_seconds(folder),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _filesystem(folder: Path) -> str:
    """Return the type of the file system with the longest mount point above the folder."""
    best, kind = "", "unknown"
    path = str(folder.resolve())
    for part in psutil.disk_partitions(all=True):
        mount = part.mountpoint.rstrip("/")
        if (path == mount or path.startswith(mount + "/")) and len(part.mountpoint) > len(best):
            best, kind = part.mountpoint, part.fstype
    return kind


def _sync_seconds(folder: Path) -> dict[str, float]:
    """Append and sync a page at a time; return the median and the 99th percentile in milliseconds."""
    probe = folder / "sync-probe"
    file = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    page = bytes(SYNC_BYTES)
    taken: list[float] = []
    try:
        for _ in range(SYNCS):
            start = time.perf_counter()
            os.write(file, page)
            os.fdatasync(file)
            taken.append((time.perf_counter() - start) * 1000)
    finally:
        os.close(file)
        probe.unlink()
    return {
        "fdatasync_ms_median": round(percentile(taken, 0.5), 3),
        "fdatasync_ms_p99": round(percentile(taken, 0.99), 3),
    }
