"""A simulated child process: the production parts of a child, its loop, and bodies that take turns.

Owns the process: how its parts are put together, how it ends, and what is left of it. The loop is production's
(`IoLoop`); what it runs is in `bodies`. The page is in memory, and is read by the parent when the child is dead, as a
file would be.
"""

from __future__ import annotations

import signal as signals
from collections.abc import Callable

from ...actors.app import App
from ...actors.errors import SoftTimeLimitExceeded
from ...actors.worker.assembly import Assembly, session_of
from ...actors.worker.control import ChildConfig, FromChild, Leaving, ToChild
from ...actors.worker.events import Interrupt
from ...actors.worker.io_loop import IoLoop
from ...actors.worker.limits import error_of
from ...transport.page import PageContents, contents_of
from ...transport.page_marks import Page
from ...transport.peer.attachment import Attachment
from ...transport.processes import ProcessName
from ...transport.verbs import RingEntry
from .bodies import Bodies
from .client import SimClient, SimPromise
from .clockwork import Clockwork, Process
from .hands import SimLine, SimPipe, SimWakeup
from .realm import Realm
from .trace import Kind, Trace

#: What a fork, and the way to being attached, take.
FORK_TIME = 5_000


class _Told(SimPromise[bytes]):
    """What somebody in this child waits for, with the words of `concurrent.futures.Future`."""

    def set_result(self, result: bytes, /) -> None:
        """It is there."""
        self.keep(result)

    def set_exception(self, exception: BaseException, /) -> None:
        """It will never be there."""
        self.break_(exception)


class ChildProcess(Process):
    """One child. `ended` is called once, with its exit code and signal, when it is dead."""

    def __init__(
        self,
        clockwork: Clockwork,
        trace: Trace,
        config: ChildConfig,
        app: App,
        pid: int,
        *,
        realm: Realm,
        lane: str,
        host: str,
        said: Callable[[FromChild], object],
        ended: Callable[[int | None, int], object],
    ) -> None:
        super().__init__(clockwork, lane)
        self.pid = pid
        self.session = session_of(config)
        self.page = Page.in_memory(
            session=self.session,
            node=config.node,
            incarnation=config.incarnation,
            runners=config.slots,
            heard=self.now.boot,
            process=ProcessName(pid, 1, 1),
        )
        #: What the page said when the process ended.
        self.evidence: PageContents | None = None
        #: When it ended, in true boot time; 0: it lives.
        self.ended_at = 0
        #: The link of what bodies send; made when one does.
        self.client: SimClient | None = None
        self._config = config
        #: Which kind of child it is.
        self.kind = config.kind
        self._app = app
        self._trace = trace
        self._ended = ended
        self._wakeup = SimWakeup()
        self._pipe = SimPipe(said, self._wakeup.wake)
        self._parts = Assembly(
            config,
            app,
            self.page,
            self._pipe,
            self._make_line,
            self.clock,
            host=host,
            pid=pid,
            promise=lambda: _Told(self),
        )
        station = self._parts.station
        station.end_now = self._end_now
        station.interrupt = self._interrupt
        self._bodies = Bodies(self, trace, realm, self._parts, pool=config.pool, leave=self.exit)
        self._loop = IoLoop(
            station,
            self._wakeup,
            self._parts.deadlines,
            lambda: self.now.boot,
            self._bodies.submit,
            self._soft_limit,
            lambda: None,
        )
        self._bodies.io = self._loop
        self._wakeup.fiber = self.fiber(self._run)

    @property
    def is_busy(self) -> bool:
        """Whether a body runs in it."""
        return bool(self._bodies.running)

    def tell(self, word: ToChild) -> None:
        """The parent says this on the pipe."""
        self._pipe.tell(word)

    def own_client(self) -> SimClient:
        """Return the link of what bodies send."""
        if self.client is None:
            self.client = SimClient(self, self._trace, [self._config.broker], f"{self.session}/client")
        return self.client

    def taken_at(self, position: int) -> int:
        """Return when this was taken to be started, in true boot time; 0: it was not."""
        return self._bodies.taken_at.get(position, 0)

    def look(self) -> list[RingEntry]:
        """Return what the page says of bodies now."""
        return contents_of(self.page.raw).ring

    def kill(self, signal: int, *, report: bool = True, by: str = "") -> None:
        """A signal ends it. `by`: who of Greenroom sent it, if it was one of us."""
        self._end(None, signal, report=report, by=by)

    def exit(self, code: int) -> None:
        """It ends by itself."""
        self._end(code, 0, report=True)

    def _end(self, code: int | None, signal: int, *, report: bool, by: str = "") -> None:
        if self.evidence is not None:
            # It is dead, or about to be: whoever is told of its death may kill it once more.
            return
        self.evidence = contents_of(self.page.raw)
        self.ended_at = self.clockwork.now.boot
        how = f"signal {signal}" if signal else f"exit {code}"
        running = list(self._bodies.running.values())
        if code != 0 or running:
            facts = {"how": how, "running": running}
            if by:
                facts["by"] = by
            self._trace.note(Kind.DEATH, self.lane, **facts)
        self._pipe.closed = True
        link = self.line.link
        if link is not None:
            link.close()
        if self.client is not None and self.client.link is not None:
            self.client.link.close()
        if report:
            self._ended(code, signal)
        self.die()

    # --- its life ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        parts = self._parts
        station = parts.station
        self._loop.run()
        reason = station.over or ""
        if not station.abandoned:
            self._bodies.stop(reason)
            station.leave(reason)
            self._pipe.send(Leaving(reason))
        self.exit(0)

    def _end_now(self, reason: str) -> None:
        self._parts.station.leave(reason)
        self._pipe.send(Leaving(reason))
        self.exit(0)

    def _make_line(self, attachment: Attachment) -> SimLine:
        self.line = SimLine(attachment, self, self._trace, self._wakeup.wake)
        return self.line

    # --- interruptions --------------------------------------------------------------------------------------------

    def _soft_limit(self, position: int) -> None:
        self._bodies.interrupt(position, SoftTimeLimitExceeded())

    def _interrupt(self, interrupt: Interrupt) -> None:
        # As prefork does; a thread or a coroutine cannot be killed, whatever the signal was to be.
        if interrupt.how not in (0, signals.SIGUSR1) and self._config.pool not in ("threads", "asyncio"):
            self.kill(interrupt.how, by="itself")
            return
        self._bodies.interrupt(interrupt.position, error_of(interrupt))
