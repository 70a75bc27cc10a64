"""The asyncio pool: a loop in the main thread with up to `slots` coroutines, and a thread for the I/O.

Coroutine tasks run in the loop; plain functions run in threads of their own, up to `slots` together with the others,
so that they do not hold the loop up. A soft limit is raised at a coroutine's present wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from ...transport.message import Kind, Outcome
from ...transport.wire.wakeup import Wakeup
from ..errors import SoftTimeLimitExceeded, Terminated
from .control import LimitsChanged
from .coroutines import Interruptible
from .events import Held, Interrupt
from .execute import Done, Executor
from .hosting import Hosting
from .io_loop import HOOKS_PATIENCE, IoLoop
from .leaving import guarded, leave_now
from .limits import SECOND, Deadlines, ThreadTarget, error_of
from .station import Station
from .threads import run_in_thread

T = TypeVar("T")


class AsyncioPool:
    """Runs bodies in a loop."""

    def __init__(
        self,
        station: Station,
        wakeup: Wakeup,
        executor: Executor,
        deadlines: Deadlines,
        boot: Callable[[], int],
        hosting: Hosting | None,
    ) -> None:
        self._executor = executor
        self._hosting = hosting
        slots = station.consumer.settings.slots
        self._io = IoLoop(station, wakeup, deadlines, boot, self._submit, self._soft_limit, executor.refresh)
        self._loop = asyncio.new_event_loop()
        self._threads = ThreadPoolExecutor(max_workers=slots, thread_name_prefix="greenroom-sync")
        self._targets = [ThreadTarget() for _ in range(slots)]
        #: What waits in the loop, by position. Touched in the loop alone.
        self._interruptibles: dict[int, Interruptible] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        station.interrupt = self._interrupt
        station.limits_changed = self._limits_changed

    def run(self) -> None:
        """Work until the station is over."""
        asyncio.set_event_loop(self._loop)
        self._loop.add_signal_handler(signal.SIGUSR1, self._on_signal)
        io = threading.Thread(target=self._run_io, name="greenroom-io", daemon=True)
        self._loop.call_soon(io.start)
        self._loop.run_forever()
        io.join()
        if self._failure is not None:
            raise self._failure

    def _run_io(self) -> None:
        try:
            self._io.run()
        except BaseException as error:
            # Raised again in the main thread, which ends the child.
            self._failure = error
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)

    # --- in the I/O thread ---------------------------------------------------------------------------------------

    def _submit(self, runner: int, held: Held) -> None:
        self._loop.call_soon_threadsafe(self._begin, runner, held)

    def _soft_limit(self, position: int) -> None:
        self._hit(position, SoftTimeLimitExceeded)

    def _interrupt(self, interrupt: Interrupt) -> None:
        self._hit(interrupt.position, type(error_of(interrupt)))

    def _hit(self, position: int, error: type[SoftTimeLimitExceeded | Terminated]) -> None:
        if not any(target.hit(position, error) for target in self._targets):
            self._loop.call_soon_threadsafe(self._hit_coroutine, position, error)

    # --- in the loop ---------------------------------------------------------------------------------------------

    def _begin(self, runner: int, held: Held) -> None:
        task = self._loop.create_task(self._run(runner, held))
        self._tasks.add(task)
        task.add_done_callback(partial(self._over, runner, held))

    def _over(self, runner: int, held: Held, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            # By another body, before its first step: from then on a cancellation is the body's, or is passed over.
            self._io.ended(runner, self._executor.interrupted(held, asyncio.CancelledError()))
            self._io.free(runner)
        else:
            guarded(task.result)()

    async def _run(self, runner: int, held: Held) -> None:
        done = await self._body(runner, held)
        if isinstance(done, Outcome):
            self._io.ended(runner, done)
        else:
            stored: asyncio.Future[None] = self._loop.create_future()
            self._io.ended(runner, done, lambda: self._call_soon(partial(_keep, stored)))
            patience = self._loop.call_later(HOOKS_PATIENCE / SECOND, _keep, stored)
            await _whatever_happens(stored)
            patience.cancel()
            guarded(done.run)()
        self._io.free(runner)

    async def _body(self, runner: int, held: Held) -> Done:
        if self._executor.is_coroutine(held):
            body = self._executor.run_async(held)
        elif held.delivery.envelope.kind == Kind.ACTOR and self._hosting is not None:
            body = self._hosting.run_async(held)
        else:
            running = self._loop.run_in_executor(
                self._threads, run_in_thread, self._executor, held, self._targets[runner]
            )
            return await _whatever_happens(running)
        position = held.delivery.position
        interruptible = self._interruptibles[position] = Interruptible(body)
        try:
            done: Done = await interruptible
            return done
        except (SoftTimeLimitExceeded, Terminated) as error:
            return self._executor.interrupted(held, error)
        except Exception as error:
            # Whoever waits for the result learns of it; the process goes on, with what else runs in it.
            return self._executor.broken(held, error)
        except SystemExit as error:
            leave_now(error)
        finally:
            del self._interruptibles[position]

    def _hit_coroutine(self, position: int, error: type[SoftTimeLimitExceeded | Terminated]) -> None:
        interruptible = self._interruptibles.get(position)
        if interruptible is not None:
            interruptible.interrupt(error())

    def _on_signal(self) -> None:
        for interruptible in self._interruptibles.values():
            interruptible.interrupt(SoftTimeLimitExceeded())
        for target in self._targets:
            target.hit_any(SoftTimeLimitExceeded)

    def _call_soon(self, call: Callable[[], Any]) -> None:
        # The loop may be over already when the last states are stored.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)

    def _limits_changed(self, word: LimitsChanged) -> None:
        self._executor.set_limits(word.time_limit, word.soft_time_limit)


def _keep(promise: asyncio.Future[None]) -> None:
    if not promise.done():
        promise.set_result(None)


async def _whatever_happens(future: asyncio.Future[T]) -> T:
    """Wait for it to the end. A body that cancels every task of its loop does not mean this one, which is ours."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None, "a coroutine runs in a task"
            task.uncancel()
    return future.result()
