"""One end of a stream socket between two of our processes, as a parent holds it: it never waits.

Owns the framing (4 bytes of length, big endian, then the message), the bytes that found no room yet, and the file
descriptors that go with them. What a message means is its users' business. A frame of zero bytes or of more than
`FRAME_BYTES_MAX` is a stream that somebody else wrote into: it is closed.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Sequence

#: A fork order carries the application where it is sent by value.
FRAME_BYTES_MAX = 64 << 20
#: Unsent bytes; whoever does not read for so long is not going to.
UNSENT_BYTES_MAX = 256 << 20
_RECEIVE_BYTES = 1 << 16
_LENGTH = struct.Struct(">I")
#: Room for 64 descriptors in one read.
_ANCILLARY_BYTES = socket.CMSG_SPACE(64 * array.array("i").itemsize)
_CLOSE_ON_EXEC: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Channel:
    """A connected stream socket (AF_UNIX) with messages on it."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        #: True once the other end is closed, or the stream is broken.
        self.closed = False
        #: Somebody has written what is no message.
        self.broken = False
        self._unsent: deque[tuple[memoryview, list[int]]] = deque()
        self._unsent_bytes = 0
        self._received = bytearray()
        #: Descriptors that came and were not taken yet, in order.
        self._descriptors: deque[int] = deque()

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    @property
    def wants_to_send(self) -> bool:
        """Whether something waits for room."""
        return bool(self._unsent) and not self.closed

    def send(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a message and these descriptors, now or when there is room. They are closed here once sent."""
        if self.closed or self._unsent_bytes + len(message) > UNSENT_BYTES_MAX:
            self.closed = True
            _close_all(descriptors)
            return
        framed = _LENGTH.pack(len(message)) + message
        self._unsent.append((memoryview(framed), list(descriptors)))
        self._unsent_bytes += len(framed)
        self.flush()

    def flush(self) -> None:
        """Send what there is room for."""
        while self._unsent and not self.closed:
            data, descriptors = self._unsent[0]
            try:
                sent = socket.send_fds(self._socket, [data], descriptors)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.closed = True
                return
            _close_all(descriptors)
            self._unsent_bytes -= sent
            if sent == len(data):
                self._unsent.popleft()
            else:
                self._unsent[0] = (data[sent:], [])

    def receive(self) -> list[bytes]:
        """Return the messages that are there. `closed` turns true at the end of the stream, after the last."""
        while not self.closed:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(_RECEIVE_BYTES, _ANCILLARY_BYTES, _CLOSE_ON_EXEC)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self.closed = True
                break
            self._take_descriptors(ancillary)
            if not data:
                self.closed = True
                break
            self._received += data
        return self._cut()

    def take_descriptor(self) -> int:
        """Return the next descriptor that came. Raises IndexError if there is none."""
        return self._descriptors.popleft()

    def close(self) -> None:
        """Close the socket and whatever was not sent or taken."""
        self.closed = True
        for _, descriptors in self._unsent:
            _close_all(descriptors)
        _close_all(self._descriptors)
        self._unsent.clear()
        self._descriptors.clear()
        self._socket.close()

    def _take_descriptors(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors = array.array("i")
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
                self._descriptors.extend(descriptors)

    def _cut(self) -> list[bytes]:
        messages: list[bytes] = []
        received = self._received
        while len(received) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(received)
            if not 0 < length <= FRAME_BYTES_MAX:
                self.closed = self.broken = True
                received.clear()
                break
            if len(received) < _LENGTH.size + length:
                break
            messages.append(bytes(received[_LENGTH.size : _LENGTH.size + length]))
            del received[: _LENGTH.size + length]
        return messages


def _close_all(descriptors: Sequence[int] | deque[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
