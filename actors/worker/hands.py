"""What a station does its I/O with: sockets and pipes in a child process, simulated ones in a simulated child.

And what an executor tells of the bodies that it runs: to whoever limits them, and to the broker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ...transport.peer.attachment import Attachment
from ...transport.peer.line import News
from .control import FromChild, ToChild
from .events import Held


class AnyLine(Protocol):
    """The way to the broker: `transport.wire.line.SocketLine`, or a simulated one."""

    @property
    def attachment(self) -> Attachment:
        """The machine whose hands these are."""
        ...

    def start(self) -> None:
        """Begin to connect."""
        ...

    def send(self) -> None:
        """Send what the attachment has to say."""
        ...

    def receive(self) -> Sequence[News]:
        """Return what has happened on the line until now, without waiting."""
        ...

    def wait(self, timeout_milliseconds: int) -> object:
        """Wait for something to happen, on the line or elsewhere."""
        ...

    def lose(self, reason: str) -> None:
        """Give up the present link; a new one is made."""
        ...

    def leave(self, reason: str) -> None:
        """Say goodbye and end."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class AnyPipe(Protocol):
    """The way to the parent: `pipe.Pipe`, or a simulated one."""

    @property
    def closed(self) -> bool:
        """Whether the parent is gone."""
        ...

    def send(self, word: FromChild) -> None:
        """Tell the parent, now or as soon as there is room."""
        ...

    def flush(self) -> None:
        """Send what there is room for."""
        ...

    def receive(self) -> list[ToChild]:
        """Return what the parent has said."""
        ...


class AnyWakeup(Protocol):
    """What ends the wait of whoever owns the station: `transport.wire.wakeup.Wakeup`, or a simulated one."""

    def wake(self) -> None:
        """End the wait, now or as soon as it begins. For any thread."""
        ...

    def clear(self) -> None:
        """Take back what woke it."""
        ...

    def wait(self, timeout_milliseconds: int) -> None:
        """Wait until somebody wakes it, so long at most."""
        ...


class Limits(Protocol):
    """How a pool keeps a body within its time. Times are microseconds, 0: none."""

    def begin(self, held: Held, soft: int, hard: int) -> None:
        """This runner's body begins now, with these limits: raise SoftTimeLimitExceeded into it after `soft`."""
        ...

    def end(self, held: Held) -> None:
        """It is over: nothing may be raised into it any more."""
        ...


class Reporter(Protocol):
    """How a body's own states get to the broker."""

    def progress(self, held: Held, result: bytes) -> None:
        """Send an encoded result for a delivery that still runs."""
        ...
