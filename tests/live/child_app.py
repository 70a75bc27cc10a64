"""The application of the children in test_child.py: bodies that return, wait, fail, and kill their process."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from typing import Any

from greenroom.actors.actor import Actor
from greenroom.actors.app import App
from greenroom.actors.tasks.task import Task

app = App("child_app")


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def pid() -> int:
    return os.getpid()


@app.task
def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@app.task(acks_late=True)
def nap_late(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@app.task
def fail() -> None:
    raise KeyError("missing")


@app.task(bind=True, max_retries=2)
def again(self: Any) -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    retries: int = self.request.retries
    return retries


@app.task(soft_time_limit=0.2)
def loop_until_soft_limit() -> str:
    try:
        while True:
            time.sleep(0.01)
    except Exception as error:
        return type(error).__name__


@app.task
async def wait_until_interrupted() -> str:
    try:
        await asyncio.sleep(60)
    except Exception as error:
        return type(error).__name__
    return "not interrupted"


@app.task(time_limit=60)
def with_hard_limit() -> str:
    return "in time"


@app.task(bind=True)
def progress(self: Any) -> str:
    self.update_state(state="HALFWAY", meta={"percent": 50})
    gate_wait()
    return "done"


def gate_wait() -> None:
    """Wait until the test opens the gate."""
    path = os.environ["CHILD_GATE"]
    until = time.monotonic() + 30
    while not os.path.exists(path) and time.monotonic() < until:
        time.sleep(0.005)


@app.task
def gate() -> int:
    gate_wait()
    return os.getpid()


@app.task
def leave(code: int) -> None:
    sys.exit(code)


@app.task
def die(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(30)


class Hooked(Task[..., Any]):
    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        state = self.AsyncResult(task_id).state
        with open(os.environ["CHILD_GATE"] + ".hook", "w") as file:
            file.write(f"{state} {self.request.id == task_id}")


@app.task(base=Hooked)
def hooked() -> int:
    return 1


class HookedSlowly(Task[..., Any]):
    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        gate_wait()
        with open(os.environ["CHILD_GATE"] + ".hook", "w") as file:
            file.write("done")


@app.task(base=HookedSlowly)
def hooked_slowly() -> int:
    return 1


@app.task
async def cancel_everything() -> int:
    """Cancel all tasks of the loop but this one, as careless programs do."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    return len(others)


@app.task
def log_inside() -> None:
    logging.getLogger("greenroom.task").warning("from inside")


class Counter(Actor):
    def __init__(self) -> None:
        self.n = 0

    def bump(self, by: int = 1) -> int:
        self.n += by
        return self.n

    def crash(self) -> None:
        raise ValueError("out of order")

    async def slowly(self) -> int:
        await asyncio.sleep(0.01)
        self.n += 1
        return self.n
