"""The hands of simulated processes: a line through the simulated network, a pipe between two of them, and a wake-up.

They keep the contracts of `actors.worker.hands` and of what production does with sockets and descriptors; whoever
waits at them gives its turn back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from ...actors.worker.control import FromChild, ToChild
from ...transport.codec import decode_to_broker
from ...transport.message import State
from ...transport.peer.attachment import Attachment
from ...transport.peer.line import Line
from ...transport.sim.network import SimLink
from ...transport.verbs import Report, Return, Settle, ToBroker
from .clockwork import Fiber, Process
from .trace import Kind, Trace

_to_child: msgspec.msgpack.Decoder[ToChild] = msgspec.msgpack.Decoder(ToChild)
_from_child: msgspec.msgpack.Decoder[FromChild] = msgspec.msgpack.Decoder(FromChild)
_encode = msgspec.msgpack.Encoder().encode


class WatchedLink:
    """A simulated link that notes what its peer says, and says nothing once its process is dead."""

    def __init__(self, link: SimLink, process: Process, trace: Trace) -> None:
        self.link = link
        self.token = link.token
        self._process = process
        self._trace = trace

    @property
    def closed(self) -> bool:
        """Whether this end knows that the connection is over."""
        return self.link.closed

    def send(self, parts: Sequence[bytes]) -> bool:
        """Send one message, whole or not at all; False when there is no room for it or no connection."""
        verbs = decode_to_broker(parts)
        if isinstance(verbs, list):
            for verb in verbs:
                self._note(verb)
        return self.link.send(parts) if self._process.alive else True

    def receive(self) -> list[list[bytes]]:
        """Return the messages that are there, without waiting."""
        return self.link.receive()

    def close(self, linger_milliseconds: int = 0) -> None:
        """End the connection without waiting."""
        self.link.close(linger_milliseconds)

    def _note(self, verb: ToBroker) -> None:
        lane = self._process.lane
        if isinstance(verb, Settle):
            self._trace.note(
                Kind.SETTLE,
                lane,
                number=verb.number,
                positions=[outcome.position for outcome in verb.outcomes],
                states=[State(outcome.state).name for outcome in verb.outcomes],
            )
        elif isinstance(verb, Return):
            self._trace.note(Kind.RETURN, lane, positions=list(verb.positions))
        elif isinstance(verb, Report):
            self._trace.note(Kind.REPORT, lane, session=verb.session, number=verb.number, node_lost=verb.node_lost)


class SimLine(Line[WatchedLink]):
    """A line of a simulated process. `wait` gives the turn back."""

    def __init__(self, attachment: Attachment, process: Process, trace: Trace, wake: Callable[[], object]) -> None:
        """`wake` is called when something has come on the line."""
        self._process = process
        self._trace = trace
        self._woken = wake
        super().__init__(attachment, process.clock, self._connect)

    @property
    def link(self) -> SimLink | None:
        """The connection of the moment."""
        return None if self._link is None else self._link.link

    def wait(self, timeout_milliseconds: int) -> None:
        """Wait for something to happen to the fiber that has the turn."""
        clockwork = self._process.clockwork
        until = self._process.now.boot + timeout_milliseconds * 1_000
        if self.wake_at:
            until = min(until, self.wake_at)
        fiber = clockwork.current
        assert fiber is not None
        if until > self._process.now.boot:
            fiber.sleep(until)

    def _connect(self, address: str) -> WatchedLink:
        link = self._process.clockwork.network.connect(address, self._process.host)
        link.on_news(self._woken)
        return WatchedLink(link, self._process, self._trace)


class SimWakeup:
    """What `transport.wire.wakeup.Wakeup` is to a process with descriptors."""

    def __init__(self) -> None:
        self.fiber: Fiber | None = None

    def fileno(self) -> int:
        """There is nothing to poll."""
        return -1

    def wake(self) -> None:
        """End the wait of the fiber that owns this."""
        if self.fiber is not None:
            self.fiber.wake()

    def clear(self) -> None:
        """Nothing is kept: a fiber that was woken has its turn once."""

    def wait(self, timeout_milliseconds: int) -> None:
        """Give the turn back until somebody wakes the owner, so long at most."""
        if self.fiber is not None:
            self.fiber.sleep(self.fiber.process.now.boot + timeout_milliseconds * 1_000)

    def close(self) -> None:
        """Wake nobody any more."""
        self.fiber = None


class SimPipe:
    """The child's end of the pipe to its parent. Words really are encoded: what cannot travel fails here too."""

    def __init__(self, to_parent: Callable[[FromChild], object], wake: Callable[[], object]) -> None:
        self.closed = False
        self._to_parent = to_parent
        self._wake = wake
        self._words: deque[ToChild] = deque()

    def send(self, word: FromChild) -> None:
        """Tell the parent."""
        if not self.closed:
            self._to_parent(_from_child.decode(_encode(word)))

    def flush(self) -> None:
        """There is always room."""

    def receive(self) -> list[ToChild]:
        """Return what the parent has said."""
        words = list(self._words)
        self._words.clear()
        return words

    def tell(self, word: ToChild) -> None:
        """The parent says this."""
        if not self.closed:
            self._words.append(_to_child.decode(_encode(word)))
            self._wake()

    def close(self) -> None:
        """The other end is gone."""
        self.closed = True
        self._wake()
