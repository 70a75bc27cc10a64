"""Celery's tasks and client, on whatever broker and result backend the URLs name."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from celery import Celery

from contract import TaskName
from marks import Marks, Tally

FOLDER = Path(os.environ["BENCH_MARKS"])
tally = Tally(FOLDER)

app = Celery("bench", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_RESULTS"])
app.conf.broker_connection_retry_on_startup = True
if os.environ.get("BENCH_CONFIRM") and app.conf.broker_url.startswith("amqp"):
    app.conf.broker_transport_options = {"confirm_publish": True}


@app.task(acks_late=True, ignore_result=True)
def late() -> None:
    """Finish at once; acked after it ran."""
    tally.add()


@app.task(ignore_result=True)
def early() -> None:
    """Finish at once; acked before it ran."""
    tally.add()


@app.task(acks_late=True)
def echo(value: int) -> int:
    """Return what came."""
    return value


@app.task(acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def hold(token: str) -> None:
    """Stay in the body the first time."""
    Marks(FOLDER).hold(token)


TASKS: dict[str, Any] = {"late": late, "early": early, "echo": echo}


class CeleryClient:
    """Calls from this process."""

    def send(self, task: TaskName) -> None:
        """Call by `delay`."""
        TASKS[task].delay()

    def send_many(self, task: TaskName, count: int) -> Sequence[Any]:
        """Celery has no call for many: a loop with one producer."""
        called = TASKS[task]
        with app.producer_pool.acquire(block=True) as producer:
            return [
                called.apply_async((number,) if task == "echo" else (), producer=producer) for number in range(count)
            ]

    def fetch(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """Get each."""
        return [call.get(timeout=seconds) for call in calls]

    def hold(self, token: str) -> None:
        """Call `hold`."""
        hold.delay(token)

    def purge(self) -> None:
        """Drop what waits."""
        app.control.purge()

    def close(self) -> None:
        """Close the connections."""
        app.close()


def connect() -> CeleryClient:
    """Return the client."""
    return CeleryClient()
