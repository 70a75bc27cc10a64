"""The watcher of a child whose runner is its main thread (spec D5).

Owns one thread that does nothing while bodies are short. When a body has run for LONG_BODY it takes the station, under
its lock, as long as that body goes on: it gives back what waits, says what runs, settles what has ended, listens to
the broker and the parent, and has the runner interrupted when its soft limit is over. It never takes the station
between bodies: that is the runner's.

While nothing runs for PARK_AFTER it sleeps until `wake`, so that an idle child does not tick.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from .events import LongBodies
from .leaving import guarded
from .limits import Deadlines
from .station import Station
from .window import LONG_BODY

TICK_SECONDS: Final = LONG_BODY / 1_000_000
#: Between looks at a body that is long already: a recall or a cancel waits so long at most.
LONG_TICK_SECONDS: Final = 0.02
#: Ticks without a body after which it sleeps.
PARK_AFTER: Final = 20


class BodyAge:
    """How long the present body has run, without the time for which it had no processor.

    On a busy machine a body of microseconds may take as long as a long one; what waits behind it does not wait for the
    body. A machine without I/O: it is looked at with each tick, and what was before the first look is only known where
    it was short.
    """

    __slots__ = ("_began", "_ran", "_seen_at", "_waited")

    def __init__(self) -> None:
        self._began = 0
        self._seen_at = 0
        self._ran = 0
        self._waited = 0

    def is_long(self, began: int, boot: int, waited: int) -> bool:
        """Tell whether the body that began at `began` has run for LONG_BODY. Times are microseconds."""
        if began != self._began:
            age = boot - began
            self._began, self._seen_at, self._waited = began, boot, waited
            self._ran = age if age < LONG_BODY else 0
        return self._ran + (boot - self._seen_at) - (waited - self._waited) >= LONG_BODY


class Watcher:
    """Looks after the station while a body runs long."""

    def __init__(
        self,
        station: Station,
        boot: Callable[[], int],
        deadlines: Deadlines,
        soft_limit: Callable[[int], None],
        waited: Callable[[], int],
    ) -> None:
        """`soft_limit` is called with a position whose soft limit is over, under the station's lock. `waited` tells
        for how many microseconds the runner has waited for a processor so far.
        """
        self._station = station
        self._boot = boot
        self._deadlines = deadlines
        self._soft_limit = soft_limit
        self._waited = waited
        self._age = BodyAge()
        self._woken = threading.Event()
        #: Boot time at which the present body began; 0: none runs. Written by the runner alone.
        self.began = 0
        #: Asleep: the runner calls `wake` when it begins a body.
        self.parked = False
        self._over = False
        self._thread = threading.Thread(target=guarded(self._watch), name="greenroom-watcher", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def wake(self) -> None:
        """A body begins, and the watcher sleeps."""
        self._woken.set()

    def stop(self) -> None:
        """End the thread."""
        self._over = True
        self._woken.set()

    def _watch(self) -> None:
        told = 0
        idle = 0
        while not self._over:
            began = self.began
            idle = 0 if began else idle + 1
            if idle > PARK_AFTER:
                self._park()
                idle = 0
                continue
            is_long = began != 0 and self._age.is_long(began, self._boot(), self._waited())
            if is_long:
                self._look_after(began, tell=began != told)
                told = began
            self._woken.wait(LONG_TICK_SECONDS if is_long else TICK_SECONDS)
            if self._woken.is_set():
                self._woken.clear()

    def _park(self) -> None:
        self.parked = True
        # A body that began before it could see that: its runner did not call.
        if not self.began:
            self._woken.wait()
        self.parked = False
        self._woken.clear()

    def _look_after(self, began: int, *, tell: bool) -> None:
        station = self._station
        with station.lock:
            # The runner clears it under the lock: from here on the body goes on, or waits for us to be done.
            if self.began != began or station.over is not None:
                return
            if tell:
                station.apply(LongBodies([0]))
                station.settle(self._boot())
            station.glance()
            for position in self._deadlines.passed(self._boot()):
                self._soft_limit(position)
