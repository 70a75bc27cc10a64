"""Addresses of brokers: what a user writes, what libzmq is given, and whether it stays on this machine.

Owns `Address` and `parse_address`. Three spellings are known: `tcp://host:port`, `greenroom://host[:port]`
(the same), and `ipc:///path/of/a/socket`. An address is *local* when nobody on another machine can reach
it: that is decided on the addresses that the name resolves to, so that no spelling of "everywhere" passes
for loopback.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Final

import msgspec

from ..errors import BrokerUnavailable, GreenroomError

PORT_DEFAULT: Final = 5670
#: Longest path of a Unix socket (sun_path without its final zero), on Linux.
IPC_PATH_BYTES_MAX: Final = 107

_SPELLINGS = "tcp://HOST:PORT, greenroom://HOST:PORT or ipc:///PATH"


class AddressError(GreenroomError, ValueError):
    """Raised when a text is not the address of a broker."""


class Address(msgspec.Struct, frozen=True):
    """One parsed address. `host` is empty for ipc, `path` for tcp; IPv6 hosts stand without brackets."""

    kind: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        """Return it as `tcp://host:port` or `ipc://path`."""
        if self.kind == "ipc":
            return f"ipc://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"

    def resolve(self) -> list[str]:
        """Return the IP addresses that the host stands for, in the resolver's order; none for ipc.

        `*` and an empty host stand for every address of the machine. Raises BrokerUnavailable when the name
        is not known.
        """
        if self.kind == "ipc":
            return []
        if self.host in ("*", ""):
            return ["0.0.0.0", "::"]
        try:
            return [str(ipaddress.ip_address(self.host.partition("%")[0]))]
        except ValueError:
            pass
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise BrokerUnavailable(
                f"the host {self.host!r} of {self} cannot be resolved: {error}; correct the address",
                addresses=(str(self),),
            ) from error
        return list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))

    def is_local(self) -> bool:
        """Tell whether only this machine can reach it. A name with one foreign address is not local."""
        if self.kind == "ipc":
            return True
        return all(_is_loopback(address) for address in self.resolve())

    def is_version_6(self) -> bool:
        """Tell whether libzmq needs its IPV6 option for this host: none of its addresses is an IPv4 one."""
        if self.kind == "ipc" or self.host in ("*", ""):
            return False
        return all(":" in address for address in self.resolve())


def parse_address(text: str) -> Address:
    """Return what `text` means. Raises AddressError in words."""
    scheme, separator, rest = text.strip().partition("://")
    if not separator:
        raise AddressError(f"{text!r} is not the address of a broker; write {_SPELLINGS}")
    if scheme == "ipc":
        if not rest.startswith("/"):
            rest = os.path.abspath(rest)
        if len(os.fsencode(rest)) > IPC_PATH_BYTES_MAX:
            raise AddressError(f"the path of {text!r} is longer than {IPC_PATH_BYTES_MAX} bytes; use a shorter one")
        return Address("ipc", path=rest)
    if scheme not in ("tcp", "greenroom"):
        raise AddressError(f"{text!r} begins with {scheme!r}; write {_SPELLINGS}")
    host, port = _cut_port(text, rest)
    return Address("tcp", host=host, port=port)


def _cut_port(text: str, rest: str) -> tuple[str, int]:
    """Cut `host:port`, `[v6]:port`, or a bare host."""
    if rest.startswith("["):
        host, bracket, tail = rest[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise AddressError(f"{text!r} has a bracket that is not closed; write tcp://[::1]:{PORT_DEFAULT}")
        tail = tail[1:]
    else:
        host, _, tail = rest.rpartition(":")
        if not _:
            host, tail = rest, ""
        elif ":" in host:
            raise AddressError(f"{text!r} has an IPv6 host without brackets; write tcp://[{rest}]:{PORT_DEFAULT}")
    if not host:
        raise AddressError(f"{text!r} names no host; write {_SPELLINGS}")
    if not tail:
        return host, PORT_DEFAULT
    if tail == "*":
        return host, 0
    if not tail.isascii() or not tail.isdigit() or int(tail) > 65_535:
        raise AddressError(f"{tail!r} in {text!r} is not a port; ports are numbers from 0 to 65535")
    return host, int(tail)


def _is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)
