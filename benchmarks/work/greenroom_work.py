"""Greenroom's tasks and client."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contract import TaskName
from greenroom import App
from marks import Marks, Tally

#: Millions may wait.
PURGE_SECONDS = 60
FOLDER = Path(os.environ["BENCH_MARKS"])
tally = Tally(FOLDER)

app = App("bench", broker=os.environ["BENCH_BROKER"])


@app.task(acks_late=True, ignore_result=True)
def late() -> None:
    """Finish at once; acked after it ran."""
    tally.add()


@app.task(ignore_result=True)
def early() -> None:
    """Finish at once; acked before it ran."""
    tally.add()


@app.task(acks_late=True)
def echo(value: int = 0) -> int:
    """Return what came."""
    return value


@app.task(acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def hold(token: str) -> None:
    """Stay in the body the first time."""
    Marks(FOLDER).hold(token)


TASKS: dict[str, Any] = {"late": late, "early": early, "echo": echo}


class GreenroomClient:
    """Calls from this process."""

    def send(self, task: TaskName) -> None:
        """Call by `delay`, which returns when the call is on disk."""
        TASKS[task].delay()

    def send_many(self, task: TaskName, count: int) -> Sequence[Any]:
        """Call by `send_many`, which returns when all are on disk."""
        calls = [(number,) for number in range(count)] if task == "echo" else [()] * count
        results: list[Any] = TASKS[task].send_many(calls)
        return results

    def fetch(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """Get each."""
        return [call.get(timeout=seconds) for call in calls]

    def hold(self, token: str) -> None:
        """Call `hold`."""
        hold.delay(token)

    def purge(self) -> None:
        """Drop what waits."""
        command = [sys.executable, "-m", "greenroom", "purge", app.conf.task_default_queue, "--force"]
        command += ["--timeout", str(PURGE_SECONDS), "-b", os.environ["BENCH_BROKER"]]
        subprocess.run(command, check=True, timeout=2 * PURGE_SECONDS, stdout=subprocess.DEVNULL)

    def close(self) -> None:
        """Close the link."""
        app.close()


def connect() -> GreenroomClient:
    """Return the client."""
    return GreenroomClient()
