"""Futures of what a client receives, and what is done when it has come.

Whoever waits for an Answer may receive it himself (stand_in.py). Completing is done with no lock held, since whoever
hears of it may call the client.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from functools import partial
from typing import Any, Generic, TypeVar, cast

from ..clock import MICROSECONDS
from ..errors import GreenroomError
from ..peer.publisher import Blocked, Submission
from ..peer.results import is_terminal
from ..verbs import Known
from .stand_in import StandIn

T = TypeVar("T")

ResultCallback = Callable[[Known], object]
_logger = logging.getLogger("greenroom.client")


class Answer(Future[T]):
    """A future of what the client receives: whoever waits for it may receive it himself."""

    def __init__(self, stand_in: StandIn) -> None:
        super().__init__()
        self._stand_in = stand_in

    def result(self, timeout: float | None = None) -> T:
        """Wait and return it. Raises why it will never be there, and TimeoutError after `timeout` seconds."""
        return super().result(timeout if self.done() else self._wait(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait and return why it will never be there. Raises TimeoutError after `timeout` seconds."""
        return super().exception(timeout if self.done() else self._wait(timeout))

    def _wait(self, timeout: float | None) -> float | None:
        if timeout is None:
            self._stand_in.wait(self, None)
            return None
        until = time.monotonic() + timeout
        self._stand_in.wait(self, timeout)
        return max(0.0, until - time.monotonic())

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call `fn` with this future once it is done, in whatever thread finds out; at once if it is."""
        super().add_done_callback(fn)
        self._stand_in.look()


class Kept(Generic[T]):
    """The promise of something that is there: nobody waits for it, so it has no lock."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def result(self, timeout: float | None = None) -> T:
        """Return it."""
        return self._value

    def done(self) -> bool:
        """Tell that it is there."""
        return True

    def add_done_callback(self, fn: Callable[[Any], object], /) -> None:
        """Call `fn` with this promise, now."""
        fn(self)


class Awaited:
    """Who waits for which result: futures, one an id, and callbacks."""

    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in
        self._lock = threading.Lock()
        self._futures: dict[str, Future[Known]] = {}
        self._callbacks: dict[str, list[ResultCallback]] = {}

    def __len__(self) -> int:
        return len(self._futures) + len(self._callbacks)

    def future(self, id: str, new: list[str]) -> Future[Known]:
        """Return the future of this result, for any thread; one that did not exist is noted in `new`."""
        with self._lock:
            pending = self._futures.get(id)
            if pending is None:
                pending = self._futures[id] = Answer(self._stand_in)
                # Several may wait for it, so that no one of them can cancel it for the others.
                pending.set_running_or_notify_cancel()
                new.append(id)
            return pending

    def subscribe(self, id: str, callback: ResultCallback) -> None:
        """Have `callback` called with each state of this id, up to a terminal one."""
        self._callbacks.setdefault(id, []).append(callback)

    def forget(self, id: str) -> Future[Known] | None:
        """Let nobody wait for this id any more; return the future that must be broken."""
        self._callbacks.pop(id, None)
        return self.take(id)

    def take(self, id: str) -> Future[Known] | None:
        """Return the future of this id, which is no longer waited for here."""
        with self._lock:
            return self._futures.pop(id, None)

    def take_all(self) -> list[Future[Known]]:
        """The same for all of them."""
        with self._lock:
            futures, self._futures = self._futures, {}
        return list(futures.values())

    def learn(self, known: Known, told: deque[Callable[[], object]]) -> None:
        """Note in `told` what is to be done for those who wait for this."""
        terminal = is_terminal(known)
        if self._callbacks and (callbacks := self._callbacks.get(known.id)) is not None:
            told.extend(partial(call, callback, known) for callback in callbacks)
            if terminal:
                self._callbacks.pop(known.id, None)
        if terminal and (future := self.take(known.id)) is not None:
            told.append(partial(complete, future, known))


def call(callback: ResultCallback, known: Known) -> None:
    """Tell somebody who wanted to be told."""
    try:
        callback(known)
    except Exception:  # the user's code; the log tells, and the others are served all the same
        _logger.exception("the callback for the result of %s failed", known.id)


def complete(future: Future[Any], value: object) -> None:
    """Keep a promise."""
    with contextlib.suppress(InvalidStateError):  # its owner cancelled it; there is nobody to tell
        future.set_result(value)


def fail(future: Future[Any], error: GreenroomError) -> None:
    """Break a promise."""
    with contextlib.suppress(InvalidStateError):  # as above
        future.set_exception(error)


def tell_of_blocked(mailboxes: Iterable[Blocked]) -> None:
    """Let the log say why calls do not return: their mailboxes are full, and wait is what they were told to do then."""
    for blocked in mailboxes:
        _logger.warning(
            "mailbox_full: %s; a call has waited %d s for room and goes on waiting, until workers make some. "
            "confirm_timeout bounds the wait, Ctrl-C ends it",
            blocked.detail,
            blocked.waited // MICROSECONDS,
        )


def end(submission: Submission, error: GreenroomError | None, released: Callable[[int], None]) -> None:
    """A submission is over: `released(bytes)` is called, and its future is kept or broken."""
    released(submission.size)
    future = cast("Future[None]", submission.token)
    if error is None:
        complete(future, None)
    else:
        fail(future, error)
