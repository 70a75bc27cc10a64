"""Standing in: a caller who waits receives the answer himself, where he is the only one who waits for one.

An answer that comes to the client's thread has to wake a second thread, the caller's; on an idle machine that takes as
long as a hop between processes. So the caller does the thread's work while he waits, and the thread rests. Owns who of
the two is on duty, and when the thread is called back; what the work is, it does not know.

States: the thread is on duty; a caller stands in (one at a time, DUTY_SECONDS at most, then the thread is called and
the caller waits like others); nobody is on duty, for REST_MILLISECONDS after a caller left and only while nobody waits
for anything. Who begins to wait meanwhile stands in, or calls the thread.

What can never happen: that somebody waits and nobody is on duty. Whoever leaves says so first and looks then; whoever
begins to wait is counted first and looks then who is on duty.
"""

from __future__ import annotations

import select
import threading
import time
from concurrent.futures import Future
from typing import Any, Final, Protocol

from .wakeup import Wakeup

#: How long a caller stands in at most.
DUTY_SECONDS: Final = 0.05
#: How long the thread rests after a caller stood in: the next one may follow soon.
REST_MILLISECONDS: Final = 20


class Work(Protocol):
    """What is done by whoever is on duty."""

    def waiting(self) -> int:
        """Return how many answers are waited for, by anybody."""
        ...

    def has_orders(self) -> bool:
        """Tell whether something was ordered and not begun."""
        ...

    def attend(self) -> None:
        """Do all that is ready."""
        ...

    def sleep(self, seconds: float) -> bool:
        """Wait for something to do, so long at most; False if only the thread can go on."""
        ...


class StandIn:
    """Who is on duty: the client's thread, or a caller in its place."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._duty = threading.Lock()
        self._stands_in = False
        #: Until when the thread rests although nobody stands in (time.monotonic).
        self._rests_until = 0.0
        self._recall = Wakeup()
        self._called = False
        self._poll = select.poll()
        self._poll.register(self._recall.fileno(), select.POLLIN)

    @property
    def nobody_is_on_duty(self) -> bool:
        """Whether the thread rests after somebody has stood in."""
        return not self._stands_in and self._rests_until != 0.0

    # --- callers -------------------------------------------------------------------------------------------------

    def wait(self, future: Future[Any], timeout: float | None) -> None:
        """Stand in until the future is done, if nobody else waits for anything; else see that somebody is on duty.

        It may not be done when this returns: whoever calls waits for it then.
        """
        until = time.monotonic() + (DUTY_SECONDS if timeout is None else min(timeout, DUTY_SECONDS))
        if self._work.waiting() > 1 or not self._duty.acquire(blocking=False):
            self.look()
            return
        try:
            self._stands_in = True
            work = self._work
            while not future.done():
                work.attend()
                left = until - time.monotonic()
                if future.done() or left <= 0 or not work.sleep(left):
                    return
        finally:
            self._rests_until = time.monotonic() + REST_MILLISECONDS / 1_000
            self._stands_in = False
            self._duty.release()
            self.look()

    def look(self) -> None:
        """Call the thread if somebody waits and nobody is on duty."""
        if not self._stands_in and self._rests_until and self._is_due():
            self.call()

    def call(self) -> None:
        """Put the thread back on duty, or make it look at what there is to wait for."""
        self._rests_until = 0.0
        self._called = True
        self._recall.wake()

    def _is_due(self) -> bool:
        return self._work.waiting() > 0 or self._work.has_orders()

    # --- the thread ----------------------------------------------------------------------------------------------

    def rests(self) -> bool:
        """Tell the thread whether it may rest now. It asks before each pass."""
        if self._called:
            self._called = False
            self._recall.clear()
        if self._stands_in:
            return True
        if not self._rests_until:
            return False
        if time.monotonic() >= self._rests_until or self._is_due():
            self._rests_until = 0.0
            return False
        return True

    def rest(self) -> None:
        """Wait until the rest is over, or somebody calls."""
        self._poll.poll(REST_MILLISECONDS)

    def fileno(self) -> int:
        """Return what the thread must wait for, too, while it is on duty: it is readable after a call."""
        return self._recall.fileno()

    def close(self) -> None:
        """Let go of the descriptors."""
        self._recall.close()
