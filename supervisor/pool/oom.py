"""Whether it was the OOM killer: the kernel's count of such kills, before and after.

A process that the OOM killer ended looks like any other that got SIGKILL. The memory controller of the cgroup counts
its victims (`memory.events` of version 2, `memory.oom_control` of version 1), so a count that grew since it was last
read says that one of ours was one. Without such a count nobody can tell, and nothing is claimed.
"""

from __future__ import annotations

from pathlib import Path


class OomKills:
    """The kills that nobody was told to be dead of yet."""

    def __init__(self, paths: tuple[Path, ...] | None = None) -> None:
        """Begin to count now. `paths`: the files to try, by default those of this process's cgroup."""
        self._path: Path | None = None
        self._seen = 0
        for path in _count_files() if paths is None else paths:
            count = _read_count(path)
            if count is not None:
                self._path, self._seen = path, count
                break

    def claim(self) -> bool:
        """Return whether there was a kill since the last one that was claimed, and claim it."""
        count = None if self._path is None else _read_count(self._path)
        if count is None or count <= self._seen:
            return False
        self._seen += 1
        return True


def _count_files() -> tuple[Path, ...]:
    """Return where the counts of this process's cgroup would be, in both versions, inside and outside containers."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return ()
    files: list[Path] = []
    roots: tuple[str, ...]
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers == "":
            name, roots = "memory.events", ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
        elif "memory" in controllers.split(","):
            name, roots = "memory.oom_control", ("/sys/fs/cgroup/memory",)
        else:
            continue
        for root in roots:
            # In a container the mount begins at the container's own cgroup.
            files += [Path(root) / place.lstrip("/") / name, Path(root) / name]
    return tuple(files)


def _read_count(path: Path) -> int | None:
    try:
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        return None
    return None
