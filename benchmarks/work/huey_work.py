"""Huey's tasks and client, on Redis."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huey import RedisHuey

from contract import TaskName
from marks import Marks, Tally

FOLDER = Path(os.environ["BENCH_MARKS"])
tally = Tally(FOLDER)

# Without notify_result a result is polled for, first after 100 ms.
huey = RedisHuey("bench", url=os.environ["BENCH_BROKER"], notify_result=True)


@huey.task()
def late() -> None:
    """Finish at once. Huey has no acks: a task leaves Redis before it runs."""
    tally.add()


@huey.task()
def echo(value: int) -> int:
    """Return what came."""
    return value


@huey.task()
def hold(token: str) -> None:
    """Stay in the body the first time."""
    Marks(FOLDER).hold(token)


TASKS: dict[str, Any] = {"late": late, "early": late, "echo": echo}


class HueyClient:
    """Calls from this process."""

    def send(self, task: TaskName) -> None:
        """Call."""
        TASKS[task]()

    def send_many(self, task: TaskName, count: int) -> Sequence[Any]:
        """Huey has no call for many: a loop."""
        called = TASKS[task]
        return [called(number) if task == "echo" else called() for number in range(count)]

    def fetch(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """Get each."""
        return [call.get(blocking=True, timeout=seconds) for call in calls]

    def hold(self, token: str) -> None:
        """Call `hold`."""
        hold(token)

    def purge(self) -> None:
        """Drop what waits."""
        huey.flush()

    def close(self) -> None:
        """Close the connections."""
        huey.storage.conn.close()


def connect() -> HueyClient:
    """Return the client."""
    return HueyClient()
