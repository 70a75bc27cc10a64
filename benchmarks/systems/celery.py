"""Celery, on Redis and on RabbitMQ."""

from __future__ import annotations

from collections.abc import Mapping

import peers
import servers
from contract import FOLDER, WORKERS, Place


class _Celery:
    """What both have in common."""

    name: str
    work = "work.celery_work"
    python = str(peers.PYTHON)

    def start_workers(self, place: Place) -> None:
        """Start a prefork worker; the options only spare it a second of talk with other nodes at its start."""
        command = [self.python, "-m", "celery", "-A", self.work, "worker", "-c", str(WORKERS), "-l", "ERROR"]
        command += ["--without-mingle", "--without-gossip"]
        place.children.start(command, "workers", {**place.environment, "C_FORCE_ROOT": "1"}, FOLDER)


class CeleryOnRedis(_Celery):
    """Broker and result backend in one Redis."""

    name = "celery-redis"
    title = "Celery, Redis"
    durability = f"Redis: {servers.REDIS_DURABILITY}; results too"

    def missing(self) -> str | None:
        """Say what is not installed."""
        return peers.missing("celery") or peers.missing("redis") or servers.redis_missing()

    def versions(self) -> Mapping[str, str]:
        """Return the versions in use."""
        return {**peers.versions("celery", "kombu", "redis"), "redis-server": servers.redis_version()}

    def start_servers(self, place: Place) -> None:
        """Start Redis."""
        url = servers.start_redis(place)
        place.environment.update(BENCH_BROKER=url, BENCH_RESULTS=url)


class CeleryOnRabbitmq(_Celery):
    """RabbitMQ with Celery's rpc results, which live in a queue of the caller."""

    name = "celery-rabbitmq"
    title = "Celery, RabbitMQ"
    durability = "RabbitMQ: durable queue, persistent messages, no confirms; results (rpc) in memory"

    def missing(self) -> str | None:
        """Say what is not installed."""
        return peers.missing("celery") or servers.rabbitmq_missing()

    def versions(self) -> Mapping[str, str]:
        """Return the versions in use."""
        return {**peers.versions("celery", "kombu", "amqp"), "rabbitmq-server": servers.rabbitmq_version()}

    def start_servers(self, place: Place) -> None:
        """Start RabbitMQ."""
        place.environment.update(BENCH_BROKER=servers.start_rabbitmq(place), BENCH_RESULTS="rpc://")
