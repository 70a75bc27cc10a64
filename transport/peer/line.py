"""One attachment and the link that it has: what its machine asks for is done here, by its owner's calls.

Owns the link that is there at present and the clock's readings for the machine. It decides nothing, waits for nothing
and opens links by the function that it is given: over sockets (`transport.wire.line`) or in a simulated network.
Whoever calls `receive` gets what the machine had to tell. It is used by one thread at a time; that may be another one
each time, under the owner's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from ..clock import Now
from ..codec import Parts, decode_from_broker
from ..errors import GreenroomError
from .attachment import (
    Attached,
    Attachment,
    CloseLink,
    Detached,
    Effect,
    Ended,
    Event,
    Heard,
    Leave,
    LinkLost,
    LinkOpened,
    OpenLink,
    Passed,
    Refused,
    Start,
    State,
    Tick,
    Transmit,
    WakeAt,
)

#: What was said last may take this long to leave, in libzmq's own thread.
LINGER_MILLISECONDS: Final = 500

#: What the owner is told: the rest of the machine's effects is carried out here.
News = Attached | Detached | Passed | Refused | Ended


class AnyLink(Protocol):
    """A connection to a broker: `transport.wire.link.Link`, or a simulated one."""

    @property
    def token(self) -> bytes:
        """What its Hello presents."""
        ...

    @property
    def closed(self) -> bool:
        """Whether the connection is over."""
        ...

    def send(self, parts: Sequence[bytes]) -> bool:
        """Send one message, whole or not at all; False when there is no room for it or no connection."""
        ...

    def receive(self) -> list[Parts]:
        """Return the messages that are there, without waiting."""
        ...

    def close(self, linger_milliseconds: int = 0) -> None:
        """End the connection without waiting."""
        ...


L = TypeVar("L", bound=AnyLink)


class Line(Generic[L]):
    """An attachment and the link that it has."""

    def __init__(self, attachment: Attachment, clock: Callable[[], Now], open_link: Callable[[str], L]) -> None:
        """`open_link` begins to connect to an address; it may raise GreenroomError or OSError."""
        self.attachment = attachment
        self._clock = clock
        self._open_link = open_link
        self._link: L | None = None
        self._link_number = 0
        self._wake = 0
        self._news: list[News] = []

    @property
    def attached(self) -> bool:
        """Whether what is said now can be sent."""
        return self.attachment.state is State.ATTACHED

    @property
    def wake_at(self) -> int:
        """When `receive` must be called though nothing came (boot microseconds); 0: not so far."""
        return self._wake

    def start(self) -> None:
        """Begin to connect."""
        self._apply(Start())

    def send(self) -> None:
        """Send what the attachment has to say; what finds no room costs the link."""
        messages = self.attachment.flush()
        if messages:
            self._carry_out_all(self._send_all(self._link_number, messages))

    def receive(self) -> list[News]:
        """Return what has happened on the line until now, without waiting."""
        link = self._link
        if link is not None:
            for message in link.receive():
                self._apply(Heard(self._link_number, decode_from_broker(message)))
                if self._link is not link:
                    break
            else:
                if link.closed:
                    self._apply(LinkLost(self._link_number))
        if self._wake and self._clock().boot >= self._wake:
            self._apply(Tick())
        news, self._news = self._news, []
        return news

    def lose(self, reason: str) -> None:
        """Give up the present link; a new one is made."""
        self._apply(LinkLost(self._link_number, reason))

    def leave(self, reason: str) -> None:
        """Say goodbye and end; what was said before still leaves, within LINGER_MILLISECONDS."""
        self._apply(Leave(reason))

    def close(self) -> None:
        """Let go of the link."""
        self._close_link(orderly=False)

    # --- carrying out --------------------------------------------------------------------------------------------

    def _apply(self, event: Event) -> None:
        self._carry_out_all(self.attachment.apply(event, self._clock()))

    def _carry_out_all(self, effects: list[Effect]) -> None:
        waiting = deque(effects)
        while waiting:
            # What a step leads to comes before what was to follow it.
            waiting.extendleft(reversed(self._carry_out(waiting.popleft())))

    def _carry_out(self, effect: Effect) -> list[Effect]:
        if isinstance(effect, OpenLink):
            return self._open(effect)
        if isinstance(effect, Transmit):
            return self._send_all(effect.link, effect.messages)
        if isinstance(effect, CloseLink):
            if effect.link == self._link_number:
                self._close_link(orderly=effect.orderly)
        elif isinstance(effect, WakeAt):
            self._wake = effect.boot
        else:
            self._news.append(effect)
        return []

    def _open(self, effect: OpenLink) -> list[Effect]:
        self._link_number = effect.link
        try:
            link = self._open_link(effect.address)
        except (GreenroomError, OSError) as error:
            return self.attachment.apply(LinkLost(effect.link, str(error)), self._clock())
        self._link = link
        return self.attachment.apply(LinkOpened(effect.link, link.token), self._clock())

    def _send_all(self, number: int, messages: list[Parts]) -> list[Effect]:
        link = self._link
        if link is None or number != self._link_number:
            return []
        for message in messages:
            if not link.send(message):
                return self.attachment.apply(LinkLost(number, "the link takes no more frames"), self._clock())
        return []

    def _close_link(self, *, orderly: bool) -> None:
        if self._link is not None:
            self._link.close(LINGER_MILLISECONDS if orderly else 0)
            self._link = None
