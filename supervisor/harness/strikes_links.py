"""Faults of links, and of whole hosts: what is lost, held up, late or damaged between a peer and the broker.

A link is a peer's connection of the moment. A fault of a host is about all links of it, and, in a partition, about
those that it opens meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ...transport.codec import BadFrame, Parts, decode_from_broker, decode_to_broker
from ...transport.sim.network import SimLink, SimNetwork, Way
from .blow import Blow

__all__ = [
    "Way",
    "corrupt",
    "cut",
    "drop",
    "flap",
    "freeze",
    "hold_up",
    "leave_behind",
    "part",
    "part_some",
    "slow",
    "stall",
    "truncate",
]

#: What a slow link adds one way.
SLOW_LINK: Final = 200_000
#: How often a flapping host is gone.
FLAPS: Final = 4
#: Never the first byte of anything in MessagePack.
_NEVER: Final = 0xC1


def _of(blow: Blow) -> tuple[SimNetwork, SimLink]:
    link = blow.world.link(blow.whom)
    assert link is not None
    return blow.world.clockwork.network, link


def drop(blow: Blow) -> None:
    """Break it; what is underway is lost."""
    network, link = _of(blow)
    network.cut(link, lose_underway=True)


def cut(blow: Blow) -> None:
    """Break it; what is underway arrives."""
    network, link = _of(blow)
    network.cut(link, lose_underway=False)


def freeze(blow: Blow) -> None:
    """Let nothing arrive, until heartbeats tell."""
    network, link = _of(blow)
    network.freeze(link)


def stall(blow: Blow) -> None:
    """Let its peer read nothing for a while."""
    network, link = _of(blow)
    network.stall(link)
    blow.later(lambda: network.stall(link, stalled=False))


def hold_up(blow: Blow) -> None:
    """Let nothing arrive for a while."""
    network, link = _of(blow)
    network.freeze(link)
    blow.later(lambda: network.thaw(link))


def slow(blow: Blow) -> None:
    """Let everything take long for a while."""
    network, link = _of(blow)
    network.delay(link, SLOW_LINK)
    blow.later(lambda: network.delay(link, 0))


def leave_behind(blow: Blow) -> None:
    """Let its peer open another one before what he has sent on it arrives."""
    network, link = _of(blow)
    network.leave_behind(link, blow.away)


# --- damage -------------------------------------------------------------------------------------------------------


def corrupt(blow: Blow) -> None:
    """Let one byte of the next message be wrong, and one that the codec can tell: it checks no sums."""
    _damage(blow, _with_wrong_byte)


def truncate(blow: Blow) -> None:
    """Let the end of the next message be missing."""
    _damage(blow, lambda parts: [parts[0][: len(parts[0]) // 2], *parts[1:]])


def _damage(blow: Blow, damage: Callable[[Parts], Parts]) -> None:
    network, link = _of(blow)
    done: list[Parts] = []

    def once(parts: Parts) -> Parts:
        if done:
            return parts
        done.append(parts)
        return damage(parts)

    network.damage(link, once)


def _with_wrong_byte(parts: Parts) -> Parts:
    frame = parts[0]
    for place in (len(frame) // 2, len(frame) // 3, 1, 0):
        wrong = [frame[:place] + bytes([_NEVER]) + frame[place + 1 :], *parts[1:]]
        if _is_none(wrong):
            return wrong
    return [bytes([_NEVER]), *parts[1:]]


def _is_none(message: Sequence[bytes]) -> bool:
    return isinstance(decode_to_broker(message), BadFrame) and isinstance(decode_from_broker(message), BadFrame)


# --- hosts --------------------------------------------------------------------------------------------------------


def part(way: Way) -> Callable[[Blow], None]:
    """Return what parts a host from the broker, or all hosts if it is the broker's, for a while."""

    def part_them(blow: Blow) -> None:
        network = blow.world.clockwork.network
        hosts = _hosts(blow)
        for host in hosts:
            network.part(host, way)

        def rejoin() -> None:
            for host in hosts:
                network.rejoin(host)

        blow.later(rejoin)

    return part_them


def part_some(blow: Blow) -> None:
    """Let nothing arrive on every second link of a host for a while."""
    network = blow.world.clockwork.network
    links = [link for host in _hosts(blow) for link in blow.world.links_of_host(host)]
    chosen = links[blow.fault.which % 2 :: 2] or links
    for link in chosen:
        network.freeze(link)

    def thaw() -> None:
        for link in chosen:
            network.thaw(link)

    blow.later(thaw)


def flap(blow: Blow) -> None:
    """Part a host again and again, each time for a while, and join it for as long between."""
    world = blow.world
    network = world.clockwork.network

    def begin(left: int) -> None:
        if world.is_calm:
            return
        hosts = _hosts(blow)
        for host in hosts:
            network.part(host)

        def end() -> None:
            for host in hosts:
                network.rejoin(host)
            if left:
                blow.later(lambda: begin(left - 1))

        blow.later(end)

    begin(FLAPS - 1)


def _hosts(blow: Blow) -> list[str]:
    world = blow.world
    if blow.whom != world.broker.host:
        return [blow.whom]
    return list(dict.fromkeys(process.host for process in world.peers))
