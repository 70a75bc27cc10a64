"""Soft and hard time limits of bodies, and how an exception gets into a thread that runs one.

A soft limit is this child's business: after it the body gets SoftTimeLimitExceeded, to clean up. A hard limit is the
parent's: it is told when such a body begins and ends, and kills the child. `Deadlines` keeps both, by position, for
every pool; how the exception is raised differs: a signal in the main thread (prefork), asynchronously in a runner's
thread (`ThreadTarget`), at the body's present wait (a coroutine, see `coroutines.py`).
"""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Callable
from typing import Final

from ..errors import SoftTimeLimitExceeded, Terminated
from .control import BodyEnded, BodyStarted
from .coroutines import interrupt_in_thread
from .events import Held, Interrupt

SECOND: Final = 1_000_000


class Deadlines:
    """The limits of what runs now. Bodies are entered and left by their runners, and looked at by who keeps time."""

    def __init__(self, tell_parent: Callable[[BodyStarted | BodyEnded], None], boot: Callable[[], int]) -> None:
        self._tell_parent = tell_parent
        self._boot = boot
        #: Position -> when its soft limit is over.
        self._soft: dict[int, int] = {}
        self._hard: set[int] = set()

    def begin(self, held: Held, soft: int, hard: int) -> None:
        """A body begins. Both limits in microseconds, 0: none."""
        position, now = held.delivery.position, self._boot()
        if hard:
            self._hard.add(position)
            self._tell_parent(BodyStarted(position, held.lease, now, hard))
        if soft:
            self._soft[position] = now + soft

    def end(self, held: Held) -> None:
        """It is over."""
        position = held.delivery.position
        self._soft.pop(position, None)
        if position in self._hard:
            self._hard.discard(position)
            self._tell_parent(BodyEnded(position))

    def passed(self, boot: int) -> list[int]:
        """Return the positions whose soft limit is over by now, each once."""
        if not self._soft:
            return []
        passed = [position for position, due in list(self._soft.items()) if due <= boot]
        for position in passed:
            self._soft.pop(position, None)
        return passed

    @property
    def next_due(self) -> int:
        """Boot time of the next soft limit; 0: there is none."""
        return min(list(self._soft.values()), default=0)


def error_of(interrupt: Interrupt) -> SoftTimeLimitExceeded | Terminated:
    """Return what a cancel raises in a body: SIGUSR1 means its soft limit, as in Celery."""
    if interrupt.how == signal.SIGUSR1:
        return SoftTimeLimitExceeded()
    return Terminated(f"the body was cancelled (how: {interrupt.how})")


class ThreadTarget:
    """A runner's thread, as something that an exception can be raised in, while it runs the body that is meant."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._position = 0
        self._thread = 0

    def arm(self, position: int) -> None:
        """This thread begins a body."""
        with self._lock:
            self._position = position
            self._thread = threading.get_ident()

    def disarm(self) -> None:
        """The body is over: what comes too late is dropped."""
        while True:
            try:
                with self._lock:
                    self._position = 0
                return
            except (SoftTimeLimitExceeded, Terminated):
                # It was raised into this thread before the lock was free, and hit here instead of in the body.
                continue

    def hit(self, position: int, error: type[SoftTimeLimitExceeded | Terminated]) -> bool:
        """Raise in the thread, at its next step, if it still runs this body; a call into C must return first."""
        with self._lock:
            return self._position == position and self._raise(error)

    def hit_any(self, error: type[SoftTimeLimitExceeded | Terminated]) -> bool:
        """The same, whatever body it runs."""
        with self._lock:
            return self._raise(error)

    def _raise(self, error: type[SoftTimeLimitExceeded | Terminated]) -> bool:
        if not self._position:
            return False
        if interrupt_in_thread(self._thread, error()):
            return True
        raised = ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(error))
        return bool(raised)
