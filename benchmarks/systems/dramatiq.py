"""Dramatiq on RabbitMQ, with results in Redis, since it keeps none in RabbitMQ."""

from __future__ import annotations

from collections.abc import Mapping

import peers
import servers
from contract import FOLDER, WORKERS, Place


class Dramatiq:
    """Worker processes with the usual eight threads each."""

    name = "dramatiq"
    title = "Dramatiq, RabbitMQ"
    durability = (
        "RabbitMQ: durable queue, persistent messages, no confirms; "
        f"results in Redis ({servers.REDIS_DURABILITY}); always late acks"
    )
    work = "work.dramatiq_work"
    python = str(peers.PYTHON)

    def missing(self) -> str | None:
        """Say what is not installed."""
        return (
            peers.missing("dramatiq")
            or peers.missing("pika")
            or peers.missing("redis")
            or servers.rabbitmq_missing()
            or servers.redis_missing()
        )

    def versions(self) -> Mapping[str, str]:
        """Return the versions in use."""
        found = peers.versions("dramatiq", "pika", "redis")
        found["rabbitmq-server"] = servers.rabbitmq_version()
        found["redis-server"] = servers.redis_version()
        return found

    def start_servers(self, place: Place) -> None:
        """Start both servers."""
        place.environment["BENCH_RESULTS"] = servers.start_redis(place)
        place.environment["BENCH_BROKER"] = servers.start_rabbitmq(place)

    def start_workers(self, place: Place) -> None:
        """Start the worker processes."""
        command = [self.python, "-m", "dramatiq", self.work, "--processes", str(WORKERS)]
        place.children.start(command, "workers", place.environment, FOLDER)
