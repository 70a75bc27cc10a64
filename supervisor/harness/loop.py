"""asyncio in a simulated world: a loop of asyncio's own, which waits on virtual time.

Owns the waiting alone: where the real loop asks the system for news and sleeps, this one gives the turn back, so that
other fibers run, each with a loop of its own if it wants. Nothing of it comes from a socket: whoever opens one has
left the simulation (`escapes`). What is given to the default executor runs in a fiber of the same process.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from asyncio import events
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

import greenlet

from ...transport.clock import MICROSECONDS
from .clockwork import Fiber
from .escapes import escape
from .realm import Realm, enter

#: How long one waits who names no time.
_FOREVER: Final = 10 * 365 * 24 * 3600 * MICROSECONDS

#: The loop that this fiber has set.
_set_here: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("greenroom_event_loop", default=None)


class _Waiting:
    """What a loop takes for its selector."""

    def __init__(self, realm: Realm) -> None:
        self._realm = realm
        self._woken = False
        self._fiber: Fiber | None = None

    def wake(self) -> None:
        """End the wait: somebody else has given the loop something to do."""
        self._woken = True
        if self._fiber is not None:
            self._fiber.wake()

    def select(self, timeout: float | None) -> list[Any]:
        """Give the turn back until somebody wakes the loop, for so many seconds at most."""
        clockwork = self._realm.clockwork
        if clockwork.closed:
            raise greenlet.GreenletExit
        if timeout is None or timeout > 0:
            limit = _FOREVER if timeout is None else math.ceil(timeout * MICROSECONDS)
            clockwork.wait(lambda: self._woken, limit, self._enter)
        self._woken = False
        return []

    def _enter(self, fiber: Fiber) -> None:
        self._fiber = fiber


class VirtualLoop(asyncio.BaseEventLoop):
    """asyncio's loop on the time of a simulated world."""

    def __init__(self, realm: Realm) -> None:
        super().__init__()
        self._realm = realm
        self._waiting = _Waiting(realm)
        # What the base class expects of those who derive from it.
        self._selector = self._waiting
        self._clock_resolution = 1 / MICROSECONDS

    def time(self) -> float:
        """Return the world's boot time in seconds."""
        return self._realm.now.boot / MICROSECONDS

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        """Run `func` in a fiber of its own; with an executor of the caller's, in that one."""
        if executor is not None:
            return super().run_in_executor(executor, func, *args)
        future: asyncio.Future[Any] = self.create_future()
        process = self._realm.process

        def work() -> None:
            enter(self._realm)
            try:
                value, error = func(*args), None
            except greenlet.GreenletExit:
                raise
            except BaseException as raised:
                # Whoever awaits it learns of it.
                value, error = None, raised
            with contextlib.suppress(RuntimeError):
                # The loop may be closed: nobody waits any more.
                self.call_soon_threadsafe(_finish, future, value, error)

        if process is None:
            work()
        else:
            process.fiber(work, f"{process.lane}'s executor")
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """As asyncio's; what is left of a world that is over is of no interest."""
        if not self._realm.clockwork.closed:
            super().call_exception_handler(context)

    def _write_to_self(self) -> None:
        self._waiting.wake()

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    async def _make_subprocess_transport(self, *args: Any, **kwargs: Any) -> Any:
        raise escape(self._realm, "process", "asyncio's subprocess") or NotImplementedError(
            "a simulated world has no pipes to a subprocess"
        )


def _finish(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


# --- in place of asyncio's own functions --------------------------------------------------------------------------


def new_event_loop(realm: Realm) -> asyncio.AbstractEventLoop:
    """As `asyncio.new_event_loop`."""
    return VirtualLoop(realm)


def set_event_loop(realm: Realm, loop: asyncio.AbstractEventLoop | None) -> None:
    """As `asyncio.set_event_loop`: each fiber has its own."""
    _set_here.set(loop)


def get_event_loop(realm: Realm) -> asyncio.AbstractEventLoop:
    """As `asyncio.get_event_loop`: the one that runs, or that this fiber has set; RuntimeError where there is none."""
    loop = events._get_running_loop() or _set_here.get()
    if loop is None:
        raise RuntimeError("There is no current event loop in this fiber of a simulated world")
    return loop
