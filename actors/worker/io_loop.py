"""The I/O of a child that runs several bodies at once: one thread owns the station, the runners bring and fetch.

Owns the thread and the hand-over. Runners (threads or coroutines) never touch the station: they are handed a delivery
through `submit`, and say `ended` and then `free`, from wherever they are. What they want done with the station goes
through `do`. The thread waits for the broker, the parent and the runners together.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from ...transport.message import Outcome
from .afterwards import Afterwards
from .events import Held, LongBodies
from .execute import Done
from .hands import AnyWakeup
from .limits import Deadlines
from .station import HURRIED_MILLISECONDS, Station
from .window import LONG_BODY

#: While bodies run that are not long yet, the thread looks at them this often.
_TICK_MILLISECONDS: Final = LONG_BODY // 1000
#: How long hooks wait for the broker's word that the state is stored, in microseconds.
HOOKS_PATIENCE: Final = 10_000_000

#: Starts a delivery in a runner.
Submit = Callable[[int, Held], None]


class IoLoop:
    """Owns the station of a child with several runners."""

    def __init__(
        self,
        station: Station,
        wakeup: AnyWakeup,
        deadlines: Deadlines,
        boot: Callable[[], int],
        submit: Submit,
        soft_limit: Callable[[int], None],
        refresh: Callable[[], None],
    ) -> None:
        self._station = station
        self._wakeup = wakeup
        self._deadlines = deadlines
        self._boot = boot
        self._submit = submit
        self._soft_limit = soft_limit
        self._refresh = refresh
        slots = station.consumer.settings.slots
        #: Runners that have nothing to do, the one that was freed last at the end.
        self._free = list(range(slots))
        #: When each runner's body began; 0: none runs. Whether it was told that it is long.
        self._began = [0] * slots
        self._told = [False] * slots
        self._actions: deque[Callable[[], None]] = deque()
        #: (number of the Settle, patience over, what to call once it is stored).
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        station.use(self.do)

    # --- for any thread ------------------------------------------------------------------------------------------

    def do(self, action: Callable[[], None]) -> None:
        """Have the station's owner do this, soon."""
        self._actions.append(action)
        self._wakeup.wake()

    def ended(self, runner: int, done: Done, stored: Callable[[], None] | None = None) -> None:
        """A body is over. `stored` is called, in the owner's thread, once its state is stored, or cannot be."""
        # Here and not by the owner, whom another body may keep from it: what ends this process next was not this one.
        self._station.page.runners[runner].finished()
        self.do(lambda: self._take(runner, done, stored))

    def free(self, runner: int) -> None:
        """The runner is ready for the next."""
        self.do(lambda: self._free.append(runner))

    # --- the thread ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until the station is over."""
        station = self._station
        station.start()
        while station.over is None:
            self._wakeup.clear()
            while self._actions:
                self._actions.popleft()()
            self._hand_out()
            boot = self._boot()
            self._look(boot)
            station.settle(boot)
            timeout = station.patience
            station.tick()
            self._release_waiting(boot)
            self._refresh()
            if station.over is None and not self._actions:
                station.pump(self._timeout(boot, min(timeout, station.patience)))
        self._release_waiting(self._boot(), all_of_them=True)
        while len(self._free) < len(self._began):
            # The hooks of the last bodies, or bodies that nobody waits for any more: as in a child with one runner they
            # come to their end. A parent that is in a hurry, or gone, has other means.
            if station.abandoned:
                # Neither the broker nor the parent is listened to; the runners are looked after now and then.
                time.sleep(HURRIED_MILLISECONDS / 1000)
            else:
                station.pump(HURRIED_MILLISECONDS)
            self._wakeup.clear()
            while self._actions:
                self._actions.popleft()()

    def _hand_out(self) -> None:
        station, free = self._station, self._free
        while free:
            runner = free[-1]
            boot = self._boot()
            held = station.next_body(boot, runner)
            if held is None:
                return
            free.pop()
            self._began[runner] = boot
            self._told[runner] = False
            self._submit(runner, held)

    def _take(self, runner: int, done: Done, stored: Callable[[], None] | None) -> None:
        station = self._station
        outcome = done if isinstance(done, Outcome) else done.outcome
        boot, began = self._boot(), self._began[runner]
        self._began[runner] = 0
        station.finished(outcome, began, boot, runner, marked=True)
        if stored is not None:
            station.settle(boot)
            wait = isinstance(done, Afterwards) and done.wait
            self._waiting.append((station.settled if wait else 0, boot + HOOKS_PATIENCE, stored))

    def _release_waiting(self, boot: int, *, all_of_them: bool = False) -> None:
        if not self._waiting:
            return
        applied = self._station.applied
        ready = [stored for number, over, stored in self._waiting if all_of_them or number <= applied or over <= boot]
        if ready:
            self._waiting = [
                entry for entry in self._waiting if entry[0] > applied and entry[1] > boot and not all_of_them
            ]
            for stored in ready:
                stored()

    def _look(self, boot: int) -> None:
        """Note what has become long, and whose soft limit is over."""
        long = [
            runner
            for runner, began in enumerate(self._began)
            if began and not self._told[runner] and boot - began >= LONG_BODY
        ]
        if long:
            for runner in long:
                self._told[runner] = True
            self._station.apply(LongBodies(long))
        for position in self._deadlines.passed(boot):
            self._soft_limit(position)

    def _timeout(self, boot: int, timeout: int) -> int:
        if any(began and not told for began, told in zip(self._began, self._told, strict=True)):
            timeout = min(timeout, _TICK_MILLISECONDS)
        due = self._deadlines.next_due
        if due:
            timeout = min(timeout, max(0, (due - boot) // 1000 + 1))
        return timeout
