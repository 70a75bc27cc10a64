"""The bodies of one simulated child: user code, each run of it in a fiber, or in the child's event loop.

Owns what the pools of `actors.worker` do around the executor: where a body runs, how an interruption gets into it, and
what is said of it in the trace. While a body runs it is in the world's realm: what it sees of time, chance and the
outside is the world's, and what it does that a simulation cannot contain fails the test, even if it says nothing.

A plain body runs at once until its end, except where it waits: for a result, in `time.sleep`, at a `yield_point`. With
the asyncio pool coroutines share one loop a child, as in production.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ...actors.errors import SoftTimeLimitExceeded, Terminated
from ...actors.worker.afterwards import Afterwards
from ...actors.worker.assembly import Assembly
from ...actors.worker.coroutines import Interruptible
from ...actors.worker.events import Held
from ...actors.worker.execute import Done
from ...actors.worker.io_loop import IoLoop
from ...transport.message import Kind as MessageKind
from ...transport.message import State
from .clockwork import Fiber, Process
from .loop import VirtualLoop
from .realm import Realm, enter
from .trace import Kind, Trace


class Bodies:
    """What runs in one child. `leave` is called with the exit code of a body that ends its process."""

    def __init__(
        self,
        process: Process,
        trace: Trace,
        realm: Realm,
        parts: Assembly,
        *,
        pool: str,
        leave: Callable[[int], object],
    ) -> None:
        #: The child's own loop, which hears of endings; set once there is one.
        self.io: IoLoop
        #: Ids of messages whose body the page has as started and not as finished, by position.
        self.running: dict[int, str] = {}
        #: When each was taken to be started, by position: from then on nobody asks whether it may be.
        self.taken_at: dict[int, int] = {}
        self._process = process
        self._trace = trace
        self._realm = realm
        self._executor = parts.executor
        self._hosting = parts.hosting
        self._pool = pool
        self._leave = leave
        #: By position, where a body runs.
        self._fibers: dict[int, Fiber] = {}
        self._interruptibles: dict[int, Interruptible] = {}
        self._aio: VirtualLoop | None = None

    def submit(self, runner: int, held: Held) -> None:
        """Begin a body."""
        position = held.delivery.position
        self.running[position] = held.delivery.envelope.id
        self.taken_at[position] = self._process.clockwork.now.boot
        if self._pool == "asyncio" and self._is_coroutine(held):
            self._aio_loop().call_soon_threadsafe(self._begin_in_loop, runner, held)
        else:
            name = f"{self._process.lane}'s {held.delivery.envelope.name}"
            self._fibers[position] = self._process.fiber(lambda: self._run(runner, held), name)

    def interrupt(self, position: int, error: BaseException) -> None:
        """Have this raised where the body waits: one that does not wait is over before anybody can interrupt it."""
        if position in self._interruptibles:
            self._aio_loop().call_soon_threadsafe(self._interruptibles[position].interrupt, error)
        elif position in self._fibers:
            self._fibers[position].interrupt(error)

    def stop(self, reason: str) -> None:
        """Let the actors of this child go, in order."""
        enter(self._realm)
        self._hosting.stop(reason)
        self._tell_of_escape()

    # --- in a fiber -----------------------------------------------------------------------------------------------

    def _run(self, runner: int, held: Held) -> None:
        enter(self._realm)
        self._note_start(held)
        try:
            done = self._executor.run(held)
        except SystemExit as leaving:
            # As in a real child: the process ends, and nothing is said of the body.
            self._leave(_code(leaving))
            return
        except (SoftTimeLimitExceeded, Terminated) as error:
            # Just before or after the body's own code.
            done = self._executor.interrupted(held, error)
        finally:
            self._fibers.pop(held.delivery.position, None)
        self._over(runner, held, done)

    # --- in the child's event loop --------------------------------------------------------------------------------

    def _is_coroutine(self, held: Held) -> bool:
        return self._executor.is_coroutine(held) or held.delivery.envelope.kind == MessageKind.ACTOR

    def _aio_loop(self) -> VirtualLoop:
        if self._aio is None:
            self._aio = VirtualLoop(self._realm)
            self._process.fiber(self._run_loop, f"{self._process.lane}'s event loop")
        return self._aio

    def _run_loop(self) -> None:
        enter(self._realm)
        self._aio_loop().run_forever()

    def _begin_in_loop(self, runner: int, held: Held) -> None:
        # The context is that of who has called: the child's own loop, which is outside of the realm.
        enter(self._realm)
        task = self._aio_loop().create_task(self._run_in_loop(runner, held))
        task.add_done_callback(self._ended_in_loop)

    async def _run_in_loop(self, runner: int, held: Held) -> None:
        self._note_start(held)
        position = held.delivery.position
        body = self._executor if self._executor.is_coroutine(held) else self._hosting
        interruptible = self._interruptibles[position] = Interruptible(body.run_async(held))
        try:
            done: Done = await interruptible
        except (SoftTimeLimitExceeded, Terminated) as error:
            done = self._executor.interrupted(held, error)
        except SystemExit as leaving:
            # As above.
            self._leave(_code(leaving))
            return
        except Exception as error:
            # Whoever waits for the result learns of it.
            done = self._executor.broken(held, error)
        finally:
            self._interruptibles.pop(position, None)
        self._over(runner, held, done)

    def _ended_in_loop(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._raise(error)

    # --- either way -----------------------------------------------------------------------------------------------

    def _note_start(self, held: Held) -> None:
        envelope = held.delivery.envelope
        self._trace.note(
            Kind.STARTED,
            self._process.lane,
            id=envelope.id,
            task=envelope.name,
            position=held.delivery.position,
            delivery=held.delivery.deliveries,
            flags=envelope.flags,
            of=MessageKind(envelope.kind).name,
        )

    def _over(self, runner: int, held: Held, done: Done) -> None:
        envelope, position = held.delivery.envelope, held.delivery.position
        outcome = done.outcome if isinstance(done, Afterwards) else done
        state = State(outcome.state).name
        self._trace.note(
            Kind.RAN, self._process.lane, id=envelope.id, task=envelope.name, position=position, state=state
        )
        if isinstance(done, Afterwards):
            self.io.ended(runner, done, lambda: self._do_afterwards(runner, done))
            del self.running[position]
        else:
            self.io.ended(runner, done)
            del self.running[position]
            self.io.free(runner)
        self._tell_of_escape()

    def _do_afterwards(self, runner: int, done: Afterwards) -> None:
        def run() -> None:
            enter(self._realm)
            done.run()
            self.io.free(runner)
            self._tell_of_escape()

        self._process.fiber(run, f"{self._process.lane}'s hooks")

    def _tell_of_escape(self) -> None:
        """User code may have swallowed the error, or its outcome did: the test shall not."""
        if self._realm.escaped is not None:
            self._raise(self._realm.escaped)

    def _raise(self, error: BaseException) -> None:
        """Raise it where the test lets the world go on."""

        def fail() -> None:
            raise error

        self._process.fiber(fail, "a failure")


def _code(leaving: SystemExit) -> int:
    return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
