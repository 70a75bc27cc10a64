"""The application of the tests that kill: tasks that write down that they run, and then end in many ways.

Workers import it as `crashes`. A task's `run` is the path of a file to which each of its starts adds a line of JSON,
in one write, so that what is counted there survives whatever becomes of the process.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from greenroom import App, Reject, Task

app = App("crashes")

RETRY_SECONDS = 0.3

#: How a body ends its process.
SELF_INFLICTED = ("sys.exit", "os._exit", "SIGKILL", "SIGSEGV")
#: Waits for a signal from outside, or for the time limit.
HOLD = "hold"


def write_down(run: str, task: Task[..., Any] | None = None, **more: Any) -> None:
    """Add a line to the file of this run: who, when, and what the request says."""
    line: dict[str, Any] = {"pid": os.getpid(), "at": time.time(), **more}
    if task is not None:
        request = task.request
        line["id"] = request.id
        line["redelivered"] = bool((request.delivery_info or {}).get("redelivered"))
        line["deliveries"] = request.deliveries
        line["retries"] = request.retries
    descriptor = os.open(run, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)


def lines_of(run: str | Path) -> list[dict[str, Any]]:
    """What was written down in this file."""
    path = Path(run)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def end_process(how: str) -> None:
    """End this process, or wait for somebody else to do it."""
    if how == "sys.exit":
        sys.exit(3)
    elif how == "os._exit":
        os._exit(4)
    elif how == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "SIGSEGV":
        ctypes.string_at(0)
    while True:
        signal.pause()


def end(self: Task[..., Any], run: str, how: str) -> None:
    """Write down that this runs, and end the process."""
    write_down(run, self)
    end_process(how)


#: The tasks of the matrix: the same body under different rules.
RULES: dict[str, dict[str, Any]] = {
    "early": {},
    "early, reject": {"reject_on_worker_lost": True},
    "late": {"acks_late": True},
    "late, reject": {"acks_late": True, "reject_on_worker_lost": True},
    "late, retry": {
        "acks_late": True,
        "retry_on_worker_lost": True,
        "max_retries": 2,
        "default_retry_delay": RETRY_SECONDS,
    },
    "late, no ack on timeout": {"acks_late": True, "acks_on_timeout": False},
    "early, no ack on timeout": {"acks_on_timeout": False},
    "late, reject, one delivery": {"acks_late": True, "reject_on_worker_lost": True, "max_deliveries": 1},
}
ending: dict[str, Task[..., Any]] = {
    rule: app.task(name=f"end ({rule})", bind=True, **options)(end) for rule, options in RULES.items()
}


@app.task(name="whoami")
def whoami() -> int:
    """The process that runs this."""
    return os.getpid()


@app.task(name="count", bind=True)
def count(self: Task[..., Any], run: str) -> int:
    """Write down that this ran."""
    write_down(run, self)
    return os.getpid()


@app.task(name="count late", bind=True, acks_late=True)
def count_late(self: Task[..., Any], run: str) -> int:
    """The same with a late ack."""
    write_down(run, self)
    return os.getpid()


def wait_at(self: Task[..., Any], run: str, gate: str = "") -> int:
    """Write down that this runs; with a gate (a FIFO), wait until somebody has opened it for writing, and closed it."""
    write_down(run, self)
    if gate:
        Path(gate).read_bytes()
        write_down(run, self, done=True)
    return os.getpid()


wait_early = app.task(name="wait (early)", bind=True)(wait_at)
wait_late = app.task(name="wait (late)", bind=True, acks_late=True)(wait_at)
wait_reject = app.task(name="wait (late, reject)", bind=True, acks_late=True, reject_on_worker_lost=True)(wait_at)


def freeze_at_first(self: Task[..., Any], run: str, gate: str = "") -> int:
    """Write down that this runs; the first time, stand still until the gate is opened, with Python's lock in hand.

    No other thread of the process runs meanwhile, so that it holds what it holds, and gives nothing back.
    """
    write_down(run, self)
    if gate and len(lines_of(run)) == 1:
        os.close(ctypes.PyDLL(None).open(gate.encode(), os.O_RDONLY))
    return os.getpid()


freeze = {
    "early": app.task(name="freeze (early)", bind=True)(freeze_at_first),
    "late": app.task(name="freeze (late)", bind=True, acks_late=True)(freeze_at_first),
}


def fail(self: Task[..., Any], run: str) -> None:
    """Write down that this runs, and raise."""
    write_down(run, self)
    raise ValueError("as told")


failing = {
    "early": app.task(name="fail (early)", bind=True)(fail),
    "late": app.task(name="fail (late)", bind=True, acks_late=True)(fail),
    "late, no ack on failure": app.task(
        name="fail (late, no ack on failure)", bind=True, acks_late=True, acks_on_failure=False
    )(fail),
}


class Dying(Task[..., Any]):
    """Ends its process once its state is stored."""

    abstract = True

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """The body is done, and its result stored."""
        os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="succeed and die", bind=True, base=Dying, acks_late=True, reject_on_worker_lost=True)
def succeed_and_die(self: Task[..., Any], run: str) -> int:
    """Write down that this ran; the process ends afterwards."""
    write_down(run, self)
    return 42


class Hooked(Task[..., Any]):
    """Writes down which hooks were called."""

    abstract = True

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """The body raised, or its process died."""
        write_down(args[0], hook="on_failure", id=task_id, exc=repr(exc), traceback=type(einfo.traceback).__name__)

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """It is over."""
        write_down(args[0], hook="after_return", id=task_id, status=status)


@app.task(name="hooked end", bind=True, base=Hooked, acks_late=True)
def hooked_end(self: Task[..., Any], run: str, how: str) -> None:
    """Write down that this runs, and end the process."""
    write_down(run, self)
    end_process(how)


@app.task(name="raise KeyError", bind=True, base=Hooked)
def raise_key_error(self: Task[..., Any], run: str) -> None:
    """Raise, so that the hooks are called by the child that ran this."""
    write_down(run, self)
    raise KeyError


@app.task(name="errback")
def errback(request: Any, exc: Any, traceback: Any, run: str) -> None:
    """An errback: it gets the request of the task that failed, and its exception."""
    write_down(run, errback=request.id, exc=repr(exc))


@app.task(name="give back", bind=True, acks_late=True)
def give_back(self: Task[..., Any], run: str, times: int) -> int:
    """Have the message delivered again, so many times."""
    write_down(run, self)
    if len(lines_of(run)) <= times:
        raise Reject("again", requeue=True)
    return len(lines_of(run))


@app.task(name="refuse", bind=True, acks_late=True)
def refuse(self: Task[..., Any], run: str) -> None:
    """Refuse the message for good."""
    write_down(run, self)
    raise Reject("out of stock")


@app.task(name="one of many", bind=True, acks_late=True, reject_on_worker_lost=True)
def one_of_many(self: Task[..., Any], run: str, number: int, poison: bool = False, seconds: float = 0.0) -> int:
    """Write down that this runs; work for a while; end the process if this is the poison."""
    write_down(run, self, number=number)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
    if poison:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@app.task(name="one of many coroutines", bind=True, acks_late=True, reject_on_worker_lost=True)
async def one_of_many_coroutines(
    self: Task[..., Any], run: str, number: int, poison: bool = False, seconds: float = 0.0
) -> int:
    """The same as a coroutine."""
    write_down(run, self, number=number)
    await asyncio.sleep(seconds)
    if poison:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@app.task(name="grow")
def grow(kib: int) -> int:
    """Take memory, and touch it."""
    block = bytearray(kib * 1024)
    block[::4096] = b"\1" * len(block[::4096])
    return os.getpid()
