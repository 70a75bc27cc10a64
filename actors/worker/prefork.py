"""The pool of a child with one slot: its main thread runs the bodies and does the I/O between them (spec D5).

Owns the hot loop. Of prefork's children, of a solo node's only child and of quarantine's. The runner holds the
station's lock all the time but while user code runs; then the watcher may have it. Soft limits and cancels are raised
in the body by a signal (SIGUSR1, as in Celery, also when somebody else sends it), and only there: `_armed` is set
just around the body, and the handler raises once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final

from ...transport.message import Outcome
from ..errors import SoftTimeLimitExceeded, Terminated
from .afterwards import Afterwards
from .control import LimitsChanged
from .events import Held, Interrupt
from .execute import Executor
from .limits import Deadlines, error_of
from .processor import waiting_of_this_thread
from .station import Station
from .watcher import Watcher

#: How long a child waits for the broker's word that a state is stored before it calls the hooks all the same.
HOOKS_PATIENCE: Final = 10_000_000
_HOOKS_POLL_MILLISECONDS: Final = 50


class Prefork:
    """Runs bodies one after the other, in the main thread."""

    def __init__(self, station: Station, executor: Executor, deadlines: Deadlines, boot: Callable[[], int]) -> None:
        self._station = station
        self._executor = executor
        self._boot = boot
        self._watcher = Watcher(station, boot, deadlines, self._soft_limit, waiting_of_this_thread())
        self._armed = False
        self._error: SoftTimeLimitExceeded | Terminated | None = None
        station.interrupt = self._interrupt
        station.limits_changed = self._limits_changed

    def run(self) -> None:
        """Work until the station is over. Raises SystemExit when a body does."""
        station, watcher, boot_now = self._station, self._watcher, self._boot
        acquire, release = station.lock.acquire, station.lock.release
        before = signal.signal(signal.SIGUSR1, self._on_signal)
        acquire()
        try:
            watcher.start()
            station.start()
            boot = boot_now()
            while station.over is None:
                held = station.next_body(boot)
                if held is None:
                    station.idle()
                    self._executor.refresh()
                    boot = boot_now()
                    continue
                watcher.began = began = boot
                if watcher.parked:
                    watcher.wake()
                release()
                done = self._run_body(held)
                acquire()
                watcher.began = 0
                boot = boot_now()
                if type(done) is Outcome:
                    settled = station.settled
                    station.finished(done, began, boot)
                    if station.settled != settled:
                        station.glance()
                else:
                    assert isinstance(done, Afterwards)
                    self._finish(done, began, boot)
                    boot = boot_now()
            release()
        finally:
            watcher.stop()
            signal.signal(signal.SIGUSR1, before)

    def _run_body(self, held: Held) -> Outcome | Afterwards:
        try:
            self._armed = True
            done = self._executor.run(held)
            self._armed = False
            return done
        except (SoftTimeLimitExceeded, Terminated) as error:
            # It hit beside the body, in what surrounds it.
            self._armed = False
            return self._executor.interrupted(held, error)
        except Exception as error:
            # Whoever waits for the result learns of it; the process goes on.
            self._armed = False
            return self._executor.broken(held, error)

    def _finish(self, done: Afterwards, began: int, boot: int) -> None:
        """Settle, wait for the broker's word if hooks are due, and run what comes afterwards."""
        station, watcher = self._station, self._watcher
        station.finished(done.outcome, began, boot)
        station.settle(boot)
        if done.wait:
            number, patience_over = station.settled, boot + HOOKS_PATIENCE
            while station.applied < number and station.over is None and self._boot() < patience_over:
                station.pump(_HOOKS_POLL_MILLISECONDS)
        watcher.began = self._boot()
        if watcher.parked:
            watcher.wake()
        station.lock.release()
        try:
            done.run()
        finally:
            station.lock.acquire()
            watcher.began = 0

    # --- interrupting --------------------------------------------------------------------------------------------

    def _soft_limit(self, position: int) -> None:
        self._raise(SoftTimeLimitExceeded())

    def _interrupt(self, interrupt: Interrupt) -> None:
        if interrupt.how not in (0, signal.SIGUSR1):
            # What a revoke with this signal means is the end of the process, as if somebody else had sent it.
            os.kill(os.getpid(), interrupt.how)
            return
        self._raise(error_of(interrupt))

    def _raise(self, error: SoftTimeLimitExceeded | Terminated) -> None:
        """Have it raised in the main thread. The caller has the lock, so that this body cannot be over unnoticed."""
        self._error = error
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        error, self._error = self._error, None
        if self._armed:
            self._armed = False
            raise error or SoftTimeLimitExceeded()

    def _limits_changed(self, word: LimitsChanged) -> None:
        self._executor.set_limits(word.time_limit, word.soft_time_limit)
