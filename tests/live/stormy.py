"""The application of the storm, and the client that loads it.

Workers import it as `stormy`. Each body writes a line when it begins and one when it ends, in one write each, to the
file that the environment names; so what has run is known whatever becomes of its process. As a program

    python -m stormy ADDRESS FILE NAME

it publishes without end, a batch at a time, and writes to FILE what it is about to send and what was confirmed.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections import deque
from typing import Any

from greenroom import App, AsyncResult, OperationalError, UnknownOutcome
from greenroom import TimeoutError as ResultTimeout

app = App("stormy")

#: The file where bodies write.
WORK_FILE = "GREENROOM_STORM_WORK"
#: One batch: quick bodies of both kinds, and some that run for a while, one of them with an early ack.
QUICK = 20
LONG = 4
LONG_SECONDS = 0.15
#: Batches whose results are not yet in.
BATCHES_MAX = 3
#: How long a result may take: more than any fault lasts.
RESULT_SECONDS = 45.0


def note(path: str, *words: object) -> None:
    """Add a line to a file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())
    finally:
        os.close(descriptor)


def body(item: str, seconds: float = 0.0) -> None:
    """Say that this item begins, work, and say that it has ended."""
    path = os.environ[WORK_FILE]
    note(path, "start", item, os.getpid(), time.time())
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(left)
    note(path, "done", item, os.getpid(), time.time())


early = app.task(name="early")(body)
late = app.task(name="late", acks_late=True, reject_on_worker_lost=True)(body)


def items_of(batch: str) -> list[str]:
    """The items of a batch: each begins with its kind."""
    kinds = ["early", "late"] * (QUICK // 2) + ["early"] + ["late"] * (LONG - 1)
    return [f"{kind}:{batch}:{number}" for number, kind in enumerate(kinds)]


def signature_of(item: str) -> Any:
    """The call of an item."""
    kind, _, number = item.split(":")
    task = early if kind == "early" else late
    return task.s(item, LONG_SECONDS if int(number) >= QUICK else 0.0)


def publish(address: str, path: str, name: str) -> None:
    """Publish batch after batch, with a few of them underway."""
    app.conf.broker_url = address
    underway: deque[tuple[str, list[AsyncResult[Any]]]] = deque()
    for number in itertools.count():
        batch = f"{name}.{number}"
        calls = [signature_of(item) for item in items_of(batch)]
        note(path, "try", batch)
        try:
            results = app.send_many(calls)
        except (OperationalError, UnknownOutcome) as error:
            note(path, "failed", batch, type(error).__name__)
            continue
        note(path, "confirmed", batch, *[result.id for result in results])
        underway.append((batch, results))
        if len(underway) > BATCHES_MAX:
            _await(path, *underway.popleft())


def _await(path: str, batch: str, results: list[AsyncResult[Any]]) -> None:
    """Wait until a batch's results are in."""
    until = time.monotonic() + RESULT_SECONDS
    for index, result in enumerate(results):
        try:
            result.get(timeout=max(0.01, until - time.monotonic()), propagate=False)
        except ResultTimeout:
            note(path, "silent", batch, index, result.id)


if __name__ == "__main__":
    publish(*sys.argv[1:])
