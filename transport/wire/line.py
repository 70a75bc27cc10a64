"""A line over real sockets: it waits for its link, the attachment's time and its owner's descriptors together."""

from __future__ import annotations

import select
from collections.abc import Callable

import zmq

from ..clock import Now
from ..peer.attachment import Attachment
from ..peer.line import Line
from .link import Link


class SocketLine(Line[Link]):
    """An attachment and the ZeroMQ link that it has. It starts no thread."""

    def __init__(self, attachment: Attachment, clock: Callable[[], Now], descriptors: tuple[int, ...] = ()) -> None:
        """`descriptors` are waited for together with the link."""
        super().__init__(attachment, clock, self._connect)
        self._descriptors = descriptors
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def wait(self, timeout_milliseconds: int) -> list[int]:
        """Wait for something to happen, on the line or on a descriptor; return the descriptors that have input."""
        if self._wake:
            until = (self._wake - self._clock().boot) // 1000 + 1
            timeout_milliseconds = max(0, min(timeout_milliseconds, until))
        if self._link is not None:
            own = self._link.fileno()
            return [ready for ready in self._link.poll(timeout_milliseconds) if ready != own]
        poll = select.poll()
        for descriptor in self._descriptors:
            poll.register(descriptor, select.POLLIN)
        return [ready for ready, _ in poll.poll(timeout_milliseconds)]

    def close(self) -> None:
        """Let go of the sockets."""
        super().close()
        self._context.term()

    def _connect(self, address: str) -> Link:
        link = Link(address, self._context)
        for descriptor in self._descriptors:
            link.watch(descriptor)
        return link
