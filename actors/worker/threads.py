"""The pool of threads: `slots` runner threads, and the main thread for the I/O.

A soft limit and a cancel are raised in the runner's thread asynchronously: at its next step in Python, so that a body
that waits in C gets it when that returns. A hard limit kills the whole child, with what else runs in it.
"""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable
from typing import Any

from ...transport.message import Outcome
from ...transport.wire.wakeup import Wakeup
from ..errors import SoftTimeLimitExceeded, Terminated
from .control import LimitsChanged
from .events import Held, Interrupt
from .execute import Done, Executor
from .io_loop import HOOKS_PATIENCE, IoLoop
from .leaving import guarded, leave_now
from .limits import SECOND, Deadlines, ThreadTarget, error_of
from .station import Station


class RunnerThread:
    """One thread that runs one body at a time."""

    def __init__(self, number: int, executor: Executor, loop: Callable[[], IoLoop]) -> None:
        self._number = number
        self._executor = executor
        self._loop = loop
        self._deliveries: queue.SimpleQueue[Held | None] = queue.SimpleQueue()
        self.target = ThreadTarget()
        self._thread = threading.Thread(target=guarded(self._work), name=f"greenroom-runner-{number}", daemon=True)

    def start(self) -> None:
        """Begin to wait for deliveries."""
        self._thread.start()

    def submit(self, held: Held) -> None:
        """Run this next."""
        self._deliveries.put(held)

    def stop(self) -> None:
        """End once nothing is left to run."""
        self._deliveries.put(None)

    def _work(self) -> None:
        loop = self._loop()
        while (held := self._deliveries.get()) is not None:
            done = run_in_thread(self._executor, held, self.target)
            if isinstance(done, Outcome):
                loop.ended(self._number, done)
            else:
                stored = threading.Event()
                loop.ended(self._number, done, stored.set)
                stored.wait(HOOKS_PATIENCE / SECOND)
                done.run()
            loop.free(self._number)


def run_in_thread(executor: Executor, held: Held, target: ThreadTarget) -> Done:
    """Run a delivery in this thread, where it can be interrupted. Ends the process when its body says sys.exit."""
    try:
        target.arm(held.delivery.position)
        done = executor.run(held)
    except (SoftTimeLimitExceeded, Terminated) as error:
        # It hit beside the body, in what surrounds it.
        done = executor.interrupted(held, error)
    except Exception as error:
        # Whoever waits for the result learns of it; the process goes on, with what else runs in it.
        done = executor.broken(held, error)
    except SystemExit as error:
        leave_now(error)
    finally:
        target.disarm()
    return done


class Threads:
    """Runs bodies in threads."""

    def __init__(
        self,
        station: Station,
        wakeup: Wakeup,
        executor: Executor,
        deadlines: Deadlines,
        boot: Callable[[], int],
    ) -> None:
        self._executor = executor
        slots = station.consumer.settings.slots
        self._runners = [RunnerThread(number, executor, lambda: self._loop) for number in range(slots)]
        self._loop = IoLoop(station, wakeup, deadlines, boot, self._submit, self._soft_limit, executor.refresh)
        station.interrupt = self._interrupt
        station.limits_changed = self._limits_changed

    def run(self) -> None:
        """Work until the station is over."""
        before = signal.signal(signal.SIGUSR1, self._on_signal)
        try:
            for runner in self._runners:
                runner.start()
            self._loop.run()
        finally:
            for runner in self._runners:
                runner.stop()
            signal.signal(signal.SIGUSR1, before)

    def _submit(self, runner: int, held: Held) -> None:
        self._runners[runner].submit(held)

    def _soft_limit(self, position: int) -> None:
        self._hit(position, SoftTimeLimitExceeded)

    def _interrupt(self, interrupt: Interrupt) -> None:
        # A thread cannot be killed: whatever the signal was to be, its body is to end.
        self._hit(interrupt.position, type(error_of(interrupt)))

    def _hit(self, position: int, error: type[SoftTimeLimitExceeded | Terminated]) -> None:
        for runner in self._runners:
            if runner.target.hit(position, error):
                return

    def _on_signal(self, *_: Any) -> None:
        """SIGUSR1 from outside means the soft limit of whatever runs."""
        for runner in self._runners:
            runner.target.hit_any(SoftTimeLimitExceeded)

    def _limits_changed(self, word: LimitsChanged) -> None:
        self._executor.set_limits(word.time_limit, word.soft_time_limit)
