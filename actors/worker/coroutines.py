"""Coroutines in a worker: how a task's or an actor's async body is run, and how a time limit gets into it.

A limit is an exception that the body shall see where it waits, so that it can clean up. asyncio knows only one such
exception, CancelledError; `Interruptible` stands between a body and its loop and throws in the one that is meant.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Generator, Iterable
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

from ...transport.peer.contract import Promise
from ..errors import SoftTimeLimitExceeded, Terminated

#: How long an outcome waits for the confirms of what its body sent. A broker that is away confirms no settle either.
CONFIRM_SECONDS: Final = 30.0


class Interruptible:
    """A coroutine that can be interrupted with an exception of one's choice while it waits."""

    def __init__(self, body: Awaitable[Any]) -> None:
        self._body = body
        self._error: BaseException | None = None
        self._task: asyncio.Task[Any] | None = None

    def interrupt(self, error: BaseException) -> None:
        """Raise `error` in the body at its present wait. Only in the loop's own thread; at most once counts."""
        if self._error is None:
            self._error = error
            if self._task is not None:
                self._task.cancel()

    def __await__(self) -> Generator[Any, Any, Any]:
        self._task = asyncio.current_task()
        steps = self._body.__await__()
        error: BaseException | None = None
        value: Any = None
        while True:
            try:
                waited_for = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as stop:
                return stop.value
            error, value = None, None
            try:
                value = yield waited_for
            except asyncio.CancelledError as cancelled:
                error, self._error = self._error or cancelled, None
                if error is not cancelled and self._task is not None:
                    # This was no cancellation: the body may go on waiting, and its loop must not remember one.
                    self._task.uncancel()
            except BaseException as raised:
                # Whatever the loop throws belongs to the body.
                error = raised


#: By thread, the coroutine that it runs: a thread that waits in its loop takes no other exception.
_waiting: dict[int, tuple[asyncio.AbstractEventLoop, Interruptible]] = {}


def interrupt_in_thread(thread: int, error: BaseException) -> bool:
    """Interrupt the coroutine that another thread runs to its end; False if it runs none."""
    found = _waiting.get(thread)
    if found is None:
        return False
    loop, interruptible = found
    loop.call_soon_threadsafe(interruptible.interrupt, error)
    return True


class CoroutineRunner:
    """A loop of this thread, kept from one coroutine to the next. Made by `coroutine_runner`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def run(self, body: Awaitable[Any]) -> Any:
        """Run to the end. A limit that hits the loop, not the body, is raised in the body where it waits."""
        interruptible = Interruptible(body)
        asyncio.set_event_loop(self._loop)
        task = self._loop.create_task(_awaiting(interruptible))
        thread = threading.get_ident()
        _waiting[thread] = (self._loop, interruptible)
        try:
            return self._loop.run_until_complete(task)
        except (SoftTimeLimitExceeded, Terminated) as error:
            if task.done():
                raise
            interruptible.interrupt(error)
            return self._loop.run_until_complete(task)
        finally:
            _waiting.pop(thread, None)
            asyncio.set_event_loop(None)


async def _awaiting(interruptible: Interruptible) -> Any:
    return await interruptible


#: Each thread has a context of its own, and so has each fiber of a simulated world.
_runner: ContextVar[CoroutineRunner | None] = ContextVar("greenroom_coroutine_runner", default=None)


def coroutine_runner() -> CoroutineRunner:
    """Return this thread's runner."""
    runner = _runner.get()
    if runner is None:
        runner = CoroutineRunner()
        _runner.set(runner)
    return runner


async def done(promises: Iterable[Promise[object]], timeout_seconds: float) -> None:
    """Wait until all of these are kept or broken, or the time is over, without keeping the loop."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    for promise in promises:
        told = asyncio.Event()
        promise.add_done_callback(partial(_tell, loop, told))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(told.wait(), max(0.0, deadline - loop.time()))


def _tell(loop: asyncio.AbstractEventLoop, told: asyncio.Event, _: object) -> None:
    """Called in whatever thread keeps the promise; the loop may be over by then."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(told.set)
