"""Where a broker may listen, and the token that it asks for there.

Owns the rule of security statements 1 and 5: loopback with a token, or a Unix socket in a folder of one's
own; anything that another machine could reach is refused in words before a socket exists. A name is
resolved once, and what was checked is what is bound.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import zmq
from msgspec.structs import replace

from ..errors import GreenroomError, SecurityError
from .address import Address, AddressError, parse_address
from .link import check_libzmq, open_monitor, set_common_options
from .token import check_ipc_folder, keep_token, publish_token, withdraw_token

_MONITORED = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_ACCEPT_FAILED


class AddressInUse(GreenroomError, OSError):
    """Raised when a broker cannot listen where it was told to."""


def check_bind(text: str) -> Address:
    """Return the resolved address if a broker may listen there.

    Raises AddressError, BrokerUnavailable (an unknown host) or SecurityError.
    """
    address = parse_address(text)
    if address.kind == "ipc":
        check_ipc_folder(address.path)
        return address
    if not address.is_local():
        raise SecurityError(
            f"{text} can be reached from other machines: binding off loopback needs keys, which this version "
            "does not have yet; use an SSH tunnel or loopback (tcp://127.0.0.1:5670)"
        )
    found = address.resolve()
    return replace(address, host=next((host for host in found if ":" not in host), found[0]))


class Binding:
    """The listening end: a ROUTER socket with its monitor, and the token for addresses on TCP.

    `addresses` are the actual ones, ports filled in.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], bind: Sequence[str], data_folder: Path | None) -> None:
        """Listen. The token is kept in `data_folder`, or in memory without one.

        Raises AddressError, SecurityError, AddressInUse or UnsupportedLibrary.
        """
        check_libzmq()
        checked = [check_bind(text) for text in bind]
        if not checked:
            raise AddressError("a broker needs an address to listen on, none was given")
        self.token = keep_token(data_folder)
        self.addresses: list[Address] = []
        self._published: list[Path] = []
        #: Kept for the day when the process has no descriptor left.
        self._spare: int | None = None
        self.regain_spare()
        self.socket = context.socket(zmq.ROUTER)
        set_common_options(self.socket)
        self.socket.set(zmq.ROUTER_MANDATORY, 1)
        self.socket.set(zmq.BACKLOG, 1024)
        # A socket with a ZAP domain turns away peers of ZMTP 1 and 2 as soon as they say so. With NULL security it
        # needs no handler. Noise on the port looks like such a peer, and libzmq 4.3.5 aborts the whole process
        # when the socket is closed while one is half greeted.
        self.socket.set(zmq.ZAP_DOMAIN, b"greenroom")
        self.monitor = open_monitor(context, self.socket, _MONITORED)
        try:
            for address in checked:
                self._listen(address)
        except BaseException:
            self.close()
            raise

    def spend_spare(self) -> bool:
        """Free the spare descriptor, so that one connection can be accepted, and cut; False if it is spent."""
        if self._spare is None:
            return False
        os.close(self._spare)
        self._spare = None
        return True

    def regain_spare(self) -> bool:
        """Hold a spare descriptor again; False if there is none to be had."""
        if self._spare is None:
            try:
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return False
        return True

    def close(self, linger_milliseconds: int = 0) -> None:
        """Stop listening and take the published tokens back; what was sent may still leave for so long."""
        for path in self._published:
            withdraw_token(path, self.token)
        self._published = []
        self.spend_spare()
        self.socket.disable_monitor()
        self.monitor.close()
        self.socket.close(linger_milliseconds)

    def _listen(self, address: Address) -> None:
        if address.kind == "ipc":
            _refuse_living_socket(address.path)
        self.socket.set(zmq.IPV6, int(":" in address.host))
        # Port 0 is any port to us, and to libzmq under another spelling.
        spelled = str(address) if address.port or address.kind == "ipc" else f"{str(address)[:-1]}*"
        try:
            self.socket.bind(spelled)
        except zmq.ZMQError as error:
            raise AddressInUse(
                f"cannot listen on {address}: {error.strerror}; stop what listens there, or choose another address"
            ) from error
        if address.kind == "tcp":
            endpoint = self.socket.get(zmq.LAST_ENDPOINT)
            assert isinstance(endpoint, bytes)
            address = parse_address(endpoint.rstrip(b"\0").decode())
            # Bound first, published second: a broker that could not bind leaves the owner's token alone. A
            # client that comes in between reads no token or an old one, is turned away, and reads again as it
            # retries.
            self._published.append(publish_token(address.port, self.token))
        self.addresses.append(address)


def _refuse_living_socket(path: str) -> None:
    """libzmq takes a socket's path from whoever listens there; so ask first."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return
    raise AddressInUse(f"another broker listens on ipc://{path}; stop it, or choose another address")
