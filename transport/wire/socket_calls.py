"""The few libzmq calls of the hot paths, at their cheapest.

Flags are plain integers here, because each operation on pyzmq's enums makes a new member; and an empty
socket is asked about before it is read, because an exception costs more than the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import zmq

NOBLOCK: Final = int(zmq.NOBLOCK)
MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
#: Parts from here on are handed to libzmq without a copy.
COPY_BYTES_MAX: Final = 64 << 10
_POLLIN: Final = int(zmq.POLLIN)


def has_input(socket: zmq.Socket[bytes]) -> bool:
    """Tell whether a message can be received. This also takes in what the socket's descriptor signals."""
    events = socket.get(zmq.EVENTS)
    assert isinstance(events, int)
    return events & _POLLIN != 0


def receive_rest(socket: zmq.Socket[bytes]) -> list[bytes]:
    """Return the parts of the present message that have not been received; there must be at least one."""
    parts = [socket.recv(NOBLOCK)]
    while socket.get(zmq.RCVMORE):
        parts.append(socket.recv(NOBLOCK))
    return parts


def send_parts(socket: zmq.Socket[bytes], parts: Sequence[bytes]) -> None:
    """Send the parts as one message, or the rest of one. Raises zmq.Again before the first if there is no room."""
    if len(parts) > 1:
        for part in parts[:-1]:
            socket.send(part, MORE, len(part) < COPY_BYTES_MAX)
    last = parts[-1]
    socket.send(last, NOBLOCK, len(last) < COPY_BYTES_MAX)
