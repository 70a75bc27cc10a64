"""Dramatiq's actors and client, on RabbitMQ, with results in Redis."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from contract import NotOfferedError, TaskName
from marks import Marks, Tally

FOLDER = Path(os.environ["BENCH_MARKS"])
tally = Tally(FOLDER)

broker = RabbitmqBroker(url=os.environ["BENCH_BROKER"], confirm_delivery=bool(os.environ.get("BENCH_CONFIRM")))
broker.add_middleware(Results(backend=RedisBackend(url=os.environ["BENCH_RESULTS"])))
dramatiq.set_broker(broker)


@dramatiq.actor
def late() -> None:
    """Finish at once; acked after it ran, as every actor's message is."""
    tally.add()


@dramatiq.actor(store_results=True)
def echo(value: int) -> int:
    """Return what came."""
    return value


@dramatiq.actor
def hold(token: str) -> None:
    """Stay in the body the first time."""
    Marks(FOLDER).hold(token)


TASKS: dict[str, Any] = {"late": late, "echo": echo}


def actor_of(task: TaskName) -> Any:
    """Return the actor, where Dramatiq has such a one."""
    if task == "early":
        raise NotOfferedError("acks late only")
    return TASKS[task]


class DramatiqClient:
    """Calls from this process."""

    def send(self, task: TaskName) -> None:
        """Send."""
        actor_of(task).send()

    def send_many(self, task: TaskName, count: int) -> Sequence[Any]:
        """Dramatiq's groups send one by one as well: a loop."""
        actor = actor_of(task)
        return [actor.send(number) if task == "echo" else actor.send() for number in range(count)]

    def fetch(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """Get each."""
        return [call.get_result(block=True, timeout=int(seconds * 1000)) for call in calls]

    def hold(self, token: str) -> None:
        """Send `hold`."""
        hold.send(token)

    def purge(self) -> None:
        """Drop what waits."""
        broker.flush("default")

    def close(self) -> None:
        """Close the connections."""
        broker.close()


def connect() -> DramatiqClient:
    """Return the client."""
    return DramatiqClient()
