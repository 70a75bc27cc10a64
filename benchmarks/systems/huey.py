"""Huey on Redis."""

from __future__ import annotations

from collections.abc import Mapping

import peers
import servers
from contract import FOLDER, WORKERS, Place


class Huey:
    """A consumer with worker processes."""

    name = "huey"
    title = "Huey, Redis"
    durability = f"Redis: {servers.REDIS_DURABILITY}; results too; no acks: a task leaves Redis before it runs"
    work = "work.huey_work"
    python = str(peers.PYTHON)

    def missing(self) -> str | None:
        """Say what is not installed."""
        return peers.missing("huey") or peers.missing("redis") or servers.redis_missing()

    def versions(self) -> Mapping[str, str]:
        """Return the versions in use."""
        return {**peers.versions("huey", "redis"), "redis-server": servers.redis_version()}

    def start_servers(self, place: Place) -> None:
        """Start Redis."""
        url = servers.start_redis(place)
        place.environment.update(BENCH_BROKER=url, BENCH_RESULTS=url)

    def start_workers(self, place: Place) -> None:
        """Start the consumer."""
        command = [self.python, "-m", "huey.bin.huey_consumer", f"{self.work}.huey"]
        command += ["-w", str(WORKERS), "-k", "process", "-q"]
        place.children.start(command, "workers", place.environment, FOLDER)
