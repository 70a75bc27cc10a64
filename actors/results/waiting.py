"""Waiting for a promise, in a thread or in asyncio, and what a timeout means."""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ...transport.peer.contract import Promise
from ..current import joining_would_block
from ..errors import TimeoutError

T = TypeVar("T")


def assert_will_not_block() -> None:
    """Raise RuntimeError inside a task: waiting there for another task may hold up the very worker it needs."""
    if joining_would_block():
        raise RuntimeError(
            "Never call result.get() within a task! The task that is waited for may need this worker's slot. "
            "Link the tasks, or wait within allow_join_result() where there is room for both"
        )


def wait(
    promise: Promise[T],
    timeout: float | None,
    *,
    what: object,
    interval: float = 0.5,
    on_interval: Callable[[], object] | None = None,
) -> T:
    """Wait in this thread; call `on_interval` each `interval` seconds.

    Raises TimeoutError after `timeout` seconds, which says what was waited for.
    """
    if promise.done():
        return promise.result(0)
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        step = left if on_interval is None else interval if left is None else min(left, interval)
        try:
            return promise.result(step)
        except builtins.TimeoutError:
            # A promise that is broken with a timeout of its own is done; one that is not done took too long.
            if promise.done():
                return promise.result(0)
            if deadline is not None and time.monotonic() >= deadline:
                raise _timed_out(what, timeout) from None
        if on_interval is not None:
            on_interval()


async def wait_async(promise: Promise[T], timeout: float | None, *, what: object) -> T:
    """Wait in asyncio. Raises TimeoutError as `wait` does."""
    # Imported by those who use it: it takes longer to import than all of this package.
    import asyncio

    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    def done(_promise: Any) -> None:
        try:
            loop.call_soon_threadsafe(wake)
        except RuntimeError:
            # The loop is closed: nobody waits any more.
            return

    promise.add_done_callback(done)
    try:
        await asyncio.wait_for(woken, timeout)
    except builtins.TimeoutError:
        if not promise.done():
            raise _timed_out(what, timeout) from None
    return promise.result(0)


def _timed_out(what: object, timeout: float | None) -> TimeoutError:
    return TimeoutError(f"The operation timed out: {what!r} has no result after {round(timeout or 0, 3):g} s")
