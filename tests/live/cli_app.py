"""The application of the tests of the command line: tasks that return, fail, wait and kill their process."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime

from greenroom import Actor, App

app = App("cli_app")


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def fail(text: str) -> None:
    raise ValueError(text)


@app.task
def today() -> datetime:
    return datetime(2024, 2, 29, tzinfo=UTC)


@app.task
def not_a_number() -> float:
    return float("nan")


@app.task
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@app.task(acks_late=True, reject_on_worker_lost=True, max_deliveries=2)
def poison(reason: str = "") -> str:
    """Kill the process that runs this, unless the antidote is there."""
    if not os.path.exists("antidote"):
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


class Note(Actor):
    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text = text
