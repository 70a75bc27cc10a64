"""Clockwork: one thread, virtual time, and whose turn it is.

Owns the order in which everything in a simulated world happens. What can run is *ready*, in the order in which it was
woken; when nothing is, time goes on to the next thing that is due, in no time at all. So the same world run twice runs
alike. `choose` is the only place where another order can be taken: it is asked whenever more than one is ready, and a
calm world always takes the first.

What runs is a `Fiber`: code that waits by giving the turn back (`sleep`), a child's loop, a body, a driver. A process
that is killed never gets another turn: as after a real SIGKILL, not even its `finally` runs. What its fibers hold is
let go of at the end of the world (`close`), when nothing that they do has an effect any more.

Limits: `steps_max` turns in one `run`, then `Endless` tells who ran; a world that is still awake after so many does
not come to rest.
"""

from __future__ import annotations

import logging
import sys
from asyncio import AbstractEventLoop, events
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

import greenlet

from ...transport.clock import Now
from ...transport.sim.clock import Agenda, VirtualClock
from ...transport.sim.network import SimNetwork
from .clocks import HostClock

STEPS_MAX: Final = 300_000


class Endless(Exception):
    """Raised when a simulated world does not come to rest within its turns."""


class Process:
    """Something that lives, has fibers, and dies whole. `lane` is its name in the timeline."""

    def __init__(self, clockwork: Clockwork, lane: str) -> None:
        self.clockwork = clockwork
        self.lane = lane
        #: The machine that it is on: children are on their parent's.
        self.host = lane.partition("/")[0]
        #: What it reads as the present.
        self.clock = clockwork.clock_of(self.host)
        self.alive = True
        #: Until when it is stopped (SIGSTOP) and has no turn; 0: it is not.
        self.paused = False
        self._fibers: list[Fiber] = []
        self._missed: list[Fiber] = []
        clockwork.processes.append(self)

    @property
    def fibers(self) -> list[Fiber]:
        """What runs or waits in it."""
        return list(self._fibers)

    @property
    def now(self) -> Now:
        """The present as its host sees it."""
        return self.clock()

    def fiber(self, run: Callable[[], object], name: str = "") -> Fiber:
        """Start something in this process; it has its first turn soon."""
        fiber = Fiber(self, run, name or self.lane)
        self._fibers.append(fiber)
        fiber.wake()
        return fiber

    def forget(self, fiber: Fiber) -> None:
        """A fiber has ended by itself."""
        self._fibers.remove(fiber)

    def miss(self, fiber: Fiber) -> None:
        """A fiber would have had its turn while the process was paused."""
        if fiber not in self._missed:
            self._missed.append(fiber)

    def pause(self) -> None:
        """Stop the process, as SIGSTOP does."""
        self.paused = True

    def resume(self) -> None:
        """Let it go on."""
        self.paused = False
        missed, self._missed = self._missed, []
        for fiber in missed:
            fiber.wake()

    def die(self) -> None:
        """End at once. Nothing of it has a turn any more; if this one had it, it is taken away here."""
        if self.alive:
            self.alive = False
            self.clockwork.bury(self._fibers)
            self._fibers = []
            self.clockwork.leave_dead()


class Fiber:
    """A line of control of one process."""

    def __init__(self, process: Process, run: Callable[[], object], name: str) -> None:
        self.process = process
        self.name = name
        #: Is in the queue of those that are ready.
        self.queued = False
        self._run = run
        self._greenlet = greenlet.greenlet(self._body)
        self._sleeps = 0
        self._raise: BaseException | None = None
        self._loop: AbstractEventLoop | None = None
        self._hooks: tuple[Any, Any] = (None, None)

    def interrupt(self, error: BaseException) -> None:
        """Have this raised where it sleeps, or at its next sleep."""
        self._raise = error
        self.wake()

    def wake(self) -> None:
        """Let it have a turn soon. More than once before it has come makes one."""
        if not self.queued and self.process.alive:
            self.queued = True
            self.process.clockwork.enqueue(self)

    def sleep(self, until: int = 0) -> None:
        """Give the turn back until somebody wakes it, or until its host reads this boot time (0: none). Only from
        inside."""
        clockwork = self.process.clockwork
        self._sleeps += 1
        if until:
            sleep = self._sleeps

            def time_is_up() -> None:
                if self._sleeps == sleep:
                    self.wake()

            clockwork.at(self.process.clock.true(until), time_is_up)
        clockwork.hub.switch()
        error, self._raise = self._raise, None
        if error is not None:
            raise error

    def take_turn(self, hub: greenlet.greenlet) -> None:
        """Run until it sleeps or ends."""
        if self._greenlet.parent is not hub:
            self._greenlet.parent = hub
        self._with_own_loop(self._greenlet.switch)

    def drop(self) -> None:
        """Unwind what is left of it. At the end of the world only."""
        if self._greenlet and not self._greenlet.dead:
            self._with_own_loop(self._greenlet.throw)

    def _with_own_loop(self, go_on: Callable[[], object]) -> None:
        """asyncio has one running loop a thread; here, each fiber may have one."""
        loop, hooks = events._get_running_loop(), sys.get_asyncgen_hooks()
        # Most fibers never have a loop, and nobody around them has: nothing is set in vain.
        if self._loop is not loop:
            events._set_running_loop(self._loop)
            sys.set_asyncgen_hooks(*self._hooks)
        try:
            go_on()
        finally:
            self._loop = events._get_running_loop()
            if self._loop is not loop:
                self._hooks = sys.get_asyncgen_hooks()
                events._set_running_loop(loop)
                sys.set_asyncgen_hooks(*hooks)

    def _body(self) -> None:
        try:
            self._run()
        finally:
            if self.process.alive:
                self.process.forget(self)


class Clockwork:
    """The turns and the time of one simulated world."""

    def __init__(self, choose: Callable[[int], int] = lambda _: 0, steps_max: int = STEPS_MAX) -> None:
        """`choose(count)` picks whose turn it is among so many, by its place in the order."""
        self.clock = VirtualClock()
        self.network = SimNetwork(self.clock)
        #: Turns that were taken.
        self.steps = 0
        self.closed = False
        self._choose = choose
        self._steps_max = steps_max
        self._ready: deque[Fiber] = deque()
        self._agenda: Agenda[Callable[[], object]] = Agenda()
        self._current: Fiber | None = None
        self._graves: list[Fiber] = []
        self._clocks: dict[str, HostClock] = {}
        #: Everybody who was ever there.
        self.processes: list[Process] = []
        #: The greenlet that hands out turns at present.
        self.hub: greenlet.greenlet = greenlet.getcurrent()

    @property
    def now(self) -> Now:
        """The present instant."""
        return self.clock()

    def clock_of(self, host: str) -> HostClock:
        """Return the clock of a host."""
        clock = self._clocks.get(host)
        if clock is None:
            clock = self._clocks[host] = HostClock(self.clock)
        return clock

    @property
    def clocks(self) -> list[HostClock]:
        """The clocks of all hosts."""
        return list(self._clocks.values())

    @property
    def current(self) -> Fiber | None:
        """Who has the turn; None: the test itself, or something that was due."""
        return self._current

    def enqueue(self, fiber: Fiber) -> None:
        """A fiber is ready."""
        self._ready.append(fiber)

    def at(self, boot: int, action: Callable[[], object]) -> None:
        """Do this at that boot time, or soon if it is past."""
        self._agenda.enter(max(boot, self.clock().boot), action)

    def after(self, microseconds: int, action: Callable[[], object]) -> None:
        """Do this so much later."""
        self._agenda.enter(self.clock().boot + microseconds, action)

    def run(self, until: Callable[[], bool], limit: int) -> bool:
        """Let the world go on until `until()`, for at most `limit` microseconds; tell whether it came to that.

        To be called by the test, not by a fiber. Raises Endless, and whatever a fiber raises.
        """
        self.hub = greenlet.getcurrent()
        end = self.clock().boot + limit
        steps = self.steps + self._steps_max
        while not until():
            if self.steps >= steps:
                raise Endless(f"the world did not come to rest within {self._steps_max} turns; {self._busiest()}")
            if self._ready:
                self._turn()
                continue
            next_at = self._next_at()
            if not next_at or next_at > end:
                self.clock.advance_to(end)
                return until()
            self.clock.advance_to(next_at)
            self._do_what_is_due()
        return True

    def run_for(self, microseconds: int) -> None:
        """Let so much time pass."""
        self.run(lambda: False, microseconds)

    def wait(self, until: Callable[[], bool], limit: int, waiter: Callable[[Fiber], object]) -> bool:
        """Wait where one stands: a fiber sleeps, after `waiter` has taken it down to be woken; the test runs the world.

        Returns whether it came to that within `limit` microseconds, as the fiber's host counts them.
        """
        fiber = self._current
        if fiber is None:
            return self.run(until, limit)
        process = fiber.process
        end = process.now.boot + limit
        while not until():
            if process.now.boot >= end:
                return False
            waiter(fiber)
            fiber.sleep(end)
        return True

    def bury(self, fibers: list[Fiber]) -> None:
        """These never run again."""
        self._graves += fibers

    def leave_dead(self) -> None:
        """If whoever has the turn is dead now, take the turn away for ever."""
        fiber = self._current
        if fiber is not None and not fiber.process.alive and not self.closed:
            self.hub.switch()
            # Nobody resumes the dead, but `close`, by an exception.

    def close(self) -> None:
        """End the world: unwind what is left, without any effect on it."""
        self.closed = True
        self._ready.clear()
        fibers = [*self._graves, *(fiber for process in self.processes for fiber in process.fibers)]
        self._graves, self.processes = [], []
        # Nobody is interested in what the dead say.
        disabled = logging.root.manager.disable
        logging.disable()
        try:
            for fiber in fibers:
                fiber.drop()
        finally:
            logging.disable(disabled)

    # --- turns ---------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        ready = self._ready
        if len(ready) > 1 and (index := self._choose(len(ready))):
            fiber = ready[index]
            del ready[index]
        else:
            fiber = ready.popleft()
        fiber.queued = False
        process = fiber.process
        if not process.alive:
            return
        if process.paused:
            process.miss(fiber)
            return
        self.steps += 1
        self._current = fiber
        try:
            fiber.take_turn(self.hub)
        finally:
            self._current = None

    def _next_at(self) -> int:
        times = [at for at in (self._agenda.next_at, self.network.next_at) if at]
        return min(times, default=0)

    def _do_what_is_due(self) -> None:
        boot = self.clock().boot
        self.network.step()
        for action in self._agenda.take_due(boot):
            action()

    def _busiest(self) -> str:
        turns: Counter[str] = Counter(fiber.name for fiber in self._ready)
        return f"ready are {', '.join(name for name, _ in turns.most_common(5)) or 'none'}"
