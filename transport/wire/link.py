"""One link: one DEALER socket, one connection, and never a second one on the same socket (spec D1).

Owns the socket options that the protocol relies on, and the monitor that notices a closed connection. It
does not reconnect, keeps no frame and knows no verb: whoever holds it closes it when `closed` turns true
and opens a new one. It is used by one thread.

Limits: HIGH_WATER_MARK frames either way, then `send` answers False; MESSAGE_BYTES_MAX a part, then libzmq
drops the connection; HANDSHAKE_MILLISECONDS for a peer to greet; a silent peer is given up after 6 s.
"""

from __future__ import annotations

import itertools
import select
from collections.abc import Sequence
from typing import Final

import zmq

from ..codec import BODY_BYTES_MAX
from ..errors import GreenroomError, OperationalError
from .address import Address, parse_address
from .socket_calls import has_input, receive_rest, send_parts
from .token import find_token

HIGH_WATER_MARK: Final = 10_000
#: The largest body, and room for the encoding around it.
MESSAGE_BYTES_MAX: Final = BODY_BYTES_MAX + (64 << 10)
HEARTBEAT_MILLISECONDS: Final = 2_000
HEARTBEAT_TIMEOUT_MILLISECONDS: Final = 6_000
HANDSHAKE_MILLISECONDS: Final = 5_000
#: Earlier ones can be crashed, or made to hand data to strangers, by whoever reaches their port.
LIBZMQ_VERSION_MIN: Final = (4, 3, 5)
#: Messages that one call of `receive` returns at most; the next call has the rest.
RECEIVE_MESSAGES_MAX: Final = 256

_CLOSING_EVENTS: Final = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_monitor_numbers = itertools.count(1)


class UnsupportedLibrary(GreenroomError):
    """Raised when the libzmq that Python loaded has known holes."""


def check_libzmq(version: tuple[int, ...] | None = None) -> None:
    """Refuse a libzmq older than LIBZMQ_VERSION_MIN. Raises UnsupportedLibrary."""
    found = zmq.zmq_version_info() if version is None else version
    if tuple(found) < LIBZMQ_VERSION_MIN:
        raise UnsupportedLibrary(
            f"libzmq {'.'.join(map(str, found))} was loaded, and {'.'.join(map(str, LIBZMQ_VERSION_MIN))} or "
            "newer is needed: earlier ones can be attacked through an open port; install a newer pyzmq"
        )


def libzmq_version() -> str:
    """The version of the libzmq that was loaded."""
    return zmq.zmq_version()


def set_common_options(socket: zmq.Socket[bytes]) -> None:
    """Set what both ends of every link have in common."""
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.SNDHWM, HIGH_WATER_MARK)
    socket.set(zmq.RCVHWM, HIGH_WATER_MARK)
    socket.set(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
    socket.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MILLISECONDS)
    socket.set(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MILLISECONDS)
    socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MILLISECONDS)


def open_monitor(context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes], events: int) -> zmq.Socket[bytes]:
    """Return a socket that receives the connection events of `socket`."""
    endpoint = f"inproc://greenroom.monitor.{next(_monitor_numbers)}"
    socket.monitor(endpoint, events)
    monitor = context.socket(zmq.PAIR)
    monitor.set(zmq.LINGER, 0)
    monitor.connect(endpoint)
    # A descriptor tells only of what comes after its socket was found empty, so that must have been asked once.
    has_input(monitor)
    return monitor


class Link:
    """A connection to a broker. `token` is what its Hello presents; found by the address if not given."""

    def __init__(
        self,
        address: str | Address,
        context: zmq.Context[zmq.Socket[bytes]],
        *,
        token: bytes | None = None,
    ) -> None:
        """Begin to connect. Raises AddressError, BrokerUnavailable (unknown host) or UnsupportedLibrary."""
        check_libzmq()
        self.address = parse_address(address) if isinstance(address, str) else address
        version_6 = self.address.is_version_6()
        self.token = find_token(self.address) if token is None else token
        #: True once the connection is over, also when it never came to be. Looked up by `receive`, `poll` and
        #: `suspect`, never by `wait`.
        self.closed = False
        try:
            self._open(context, version_6)
        except zmq.ZMQError as error:
            raise OperationalError(f"cannot open a connection to {self.address}: {error.strerror}") from error

    def _open(self, context: zmq.Context[zmq.Socket[bytes]], version_6: bool) -> None:
        self._socket = context.socket(zmq.DEALER)
        set_common_options(self._socket)
        self._socket.set(zmq.RECONNECT_IVL, -1)
        if version_6:
            self._socket.set(zmq.IPV6, 1)
        self._monitor = open_monitor(context, self._socket, _CLOSING_EVENTS)
        #: False once libzmq said that there is nothing to receive, until its descriptor or a send may change
        #: that. It spares the hot path libzmq's own polling, which costs several times a bare system call.
        self._unsure = True
        #: True when the monitor's descriptor has signalled and nobody has asked the monitor since.
        self._in_doubt = False
        self._poll = select.poll()
        #: The same once more: one object of this kind cannot be waited for by two threads.
        self._beside = select.poll()
        self._descriptor = self._socket.FD
        self._monitor_descriptor = self._monitor.FD
        self._poll.register(self._descriptor, select.POLLIN)
        self._poll.register(self._monitor_descriptor, select.POLLIN)
        self._beside.register(self._descriptor, select.POLLIN)
        self._beside.register(self._monitor_descriptor, select.POLLIN)
        self._socket.connect(str(self.address))

    def send(self, parts: Sequence[bytes]) -> bool:
        """Send one message, whole or not at all; False when there is no room for it or no connection."""
        self._unsure = True  # a send takes in what the descriptor would have told
        try:
            send_parts(self._socket, parts)
        except zmq.Again:
            return False
        return True

    def receive(self) -> list[list[bytes]]:
        """Return the messages that are there, at most RECEIVE_MESSAGES_MAX, without waiting."""
        messages: list[list[bytes]] = []
        if not self._unsure:
            self._look(0)
        if self._in_doubt:
            self._ask_monitor()
        if not self._unsure:
            return messages
        socket = self._socket
        while has_input(socket):
            messages.append(receive_rest(socket))
            if len(messages) == RECEIVE_MESSAGES_MAX:
                return messages
        self._unsure = False
        return messages

    def watch(self, descriptor: int, *, beside: bool = False) -> None:
        """Let `poll` and `wait` wait for this file descriptor's input too; `wait_beside` only if so."""
        self._poll.register(descriptor, select.POLLIN)
        if beside:
            self._beside.register(descriptor, select.POLLIN)

    def unwatch(self, descriptor: int) -> None:
        """Undo `watch`."""
        self._poll.unregister(descriptor)

    def poll(self, timeout_milliseconds: int | None) -> list[int]:
        """Wait for input; return the descriptors that may have some: `fileno()` for the link, or watched ones.

        A connection that has closed counts as input. None waits without an end. An empty list: time is up.
        """
        ready = [self._descriptor, *self._look(0)] if self.pending() else self._look(timeout_milliseconds)
        if self._in_doubt:
            self._ask_monitor()
        return ready

    def pending(self) -> bool:
        """Tell whether a message is there for sure, without a system call where libzmq need not be asked."""
        if self._unsure and not has_input(self._socket):
            self._unsure = False
        return self._unsure

    def wait(self, timeout_milliseconds: int | None) -> list[int]:
        """Wait and return as `poll` does, without touching the sockets, which another thread may use, and even close.

        Right after `pending` said no; whoever sends meanwhile must ask `pending` himself, and see to it that this
        wait ends if there is something: a send takes in what the descriptor would have told. Who closes the link
        must end this wait, too, by a descriptor that is watched.
        """
        return self._look(timeout_milliseconds)

    def suspect(self) -> None:
        """Look what there is without polling, which another thread may be doing: for `receive`, `pending`, `closed`."""
        self._unsure = True
        self._ask_monitor()

    def wait_beside(self, timeout_milliseconds: int) -> list[int] | None:
        """Wait as `wait` does, also while another thread is in it; None when the connection seems to close."""
        ready = [descriptor for descriptor, _ in self._beside.poll(timeout_milliseconds)]
        return None if self._monitor_descriptor in ready else ready

    def fileno(self) -> int:
        """Return libzmq's descriptor. It signals edges, not levels: only `poll` may wait for it."""
        return self._descriptor

    def close(self, linger_milliseconds: int = 0) -> None:
        """End the connection without waiting; nothing else may be called afterwards.

        What has not left yet is dropped after `linger_milliseconds`, by libzmq's own thread.
        """
        self.closed = True
        self._socket.set(zmq.LINGER, linger_milliseconds)
        self._socket.disable_monitor()
        self._monitor.close()
        self._socket.close()

    def _look(self, timeout_milliseconds: int | None) -> list[int]:
        """Poll the descriptors, and note what libzmq's two of them may mean."""
        ready: list[int] = []
        for descriptor, _ in self._poll.poll(timeout_milliseconds):
            if descriptor == self._monitor_descriptor:
                self._in_doubt = True
                ready.append(self._descriptor)
            else:
                if descriptor == self._descriptor:
                    self._unsure = True
                ready.append(descriptor)
        return ready

    def _ask_monitor(self) -> None:
        """See whether the connection is over."""
        self._in_doubt = False
        if not self.closed and has_input(self._monitor):
            # Only events that end the connection were asked for. What had arrived before is gone with
            # libzmq's pipe: the peer says it again on the next link (spec D3).
            self.closed = True
            self._poll.unregister(self._monitor_descriptor)
