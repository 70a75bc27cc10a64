"""A network in memory, on virtual time: the links of transport.wire without sockets, threads or chance.

It carries the same encoded messages in the same way, and `tests/contract/test_network.py` holds both to it:

- a message arrives whole or not at all, on each link in the order of sending;
- a broker's end numbers its links, never twice, and hears what a peer sent before it hears that its link is over;
- a peer's end learns that its link is over from `closed`, and may lose what had arrived and was not received;
- a link that is over takes no more messages; a connection to nobody is over soon.

Faults are the test's to make: `cut` a link, with or without what is underway; `freeze` it, one way or both, so that
nothing arrives and nobody knows until the heartbeats say so; `mute` it, as it is when one of its ends is stopped;
`stall` it, as it is when the peer reads nothing; `leave_behind` what is underway; `damage` the next message; `delay`
it. `part` a host from its brokers, and what it connects to meanwhile is as silent, until they are `rejoin`ed. Without
faults everything arrives after `latency`, first in first out. Nothing here iterates a set or draws a number: the same
calls give the same world.

Limits: as on the wire, HIGH_WATER_MARK messages underway a direction, then `send` answers False; a part over
MESSAGE_BYTES_MAX costs the link; an end that hears nothing for HEARTBEAT_TIMEOUT gives its link up.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from ..codec import BODY_BYTES_MAX, Parts
from .clock import Agenda, VirtualClock

HIGH_WATER_MARK: Final = 10_000
MESSAGE_BYTES_MAX: Final = BODY_BYTES_MAX + (64 << 10)
HEARTBEAT_TIMEOUT: Final = 6_000_000
#: One way, in microseconds.
LATENCY_DEFAULT: Final = 100


#: What `damage` does to a message.
Damage = Callable[[Parts], Parts]


class Way(enum.Flag):
    """Which way a link is silent."""

    TO_BROKER = enum.auto()
    TO_PEER = enum.auto()
    BOTH = TO_BROKER | TO_PEER


def _nobody() -> None:
    """Nobody waits: whoever wants to know looks."""


class _Direction:
    """One way of a connection: what is underway, and what has arrived."""

    __slots__ = (
        "arrived",
        "closed",
        "damage",
        "frozen",
        "last_arrival",
        "news",
        "stalled",
        "underway",
        "waiting",
        "way",
    )

    def __init__(self, way: Way) -> None:
        self.way = way
        #: Called when something has arrived at the receiving end, or it knows of the end.
        self.news: Callable[[], object] = _nobody
        self.underway: deque[Parts] = deque()
        self.arrived: deque[Parts] = deque()
        self.last_arrival = 0
        #: Since when nothing arrives; 0: it does.
        self.frozen = 0
        #: The receiving end reads nothing, and its heartbeats go on.
        self.stalled = False
        #: The receiving end is a process that is stopped, and this waits for it; None: it runs.
        self.waiting: list[Callable[[], None]] | None = None
        #: What becomes of the next message.
        self.damage: Damage | None = None
        #: The receiving end knows that nothing more comes.
        self.closed = False


class _Wire:
    """One connection, between a peer's end and a broker's (None: nobody listened)."""

    __slots__ = ("broker", "delay", "host", "muted", "number", "over", "to_broker", "to_peer")

    def __init__(self, number: int, broker: SimBrokerEnd | None, host: str) -> None:
        self.number = number
        self.broker = broker
        self.host = host
        self.to_broker = _Direction(Way.TO_BROKER)
        self.to_peer = _Direction(Way.TO_PEER)
        self.delay = 0
        #: Since when one of its ends is stopped; 0: none is.
        self.muted = 0
        #: Neither end can send any more.
        self.over = False

    def directions(self, way: Way = Way.BOTH) -> list[_Direction]:
        """The ways of it that `way` names."""
        return [direction for direction in (self.to_broker, self.to_peer) if direction.way in way]


class SimLink:
    """A peer's end: the interface of `transport.wire.link.Link`, as far as it is about messages."""

    def __init__(self, network: SimNetwork, wire: _Wire, address: str) -> None:
        self.address = address
        self.token = b""
        self.wire = wire
        self._network = network

    @property
    def closed(self) -> bool:
        """Whether this end knows that the connection is over."""
        return self.wire.to_peer.closed

    def on_news(self, news: Callable[[], object]) -> None:
        """Have this called when something has arrived, or the connection is over."""
        self.wire.to_peer.news = news

    def send(self, parts: Sequence[bytes]) -> bool:
        """Send one message; False when there is no room for it or no connection."""
        return self._network.carry(self.wire, self.wire.to_broker, parts)

    def receive(self) -> list[Parts]:
        """Return the messages that have arrived."""
        if self.closed or self.wire.to_peer.stalled:
            return []
        messages = list(self.wire.to_peer.arrived)
        self.wire.to_peer.arrived.clear()
        return messages

    def close(self, linger_milliseconds: int = 0) -> None:
        """End the connection. What was sent arrives, and then the broker's end hears of the end."""
        self._network.hang_up(self.wire)


class SimBrokerEnd:
    """A listening end."""

    def __init__(self, network: SimNetwork) -> None:
        self._network = network
        self._received: list[tuple[int, Parts]] = []
        self._closed: list[int] = []
        #: By number, in the order of connecting.
        self._wires: dict[int, _Wire] = {}
        #: Called when something has arrived, or a link is over.
        self.news: Callable[[], object] = _nobody

    @property
    def links(self) -> list[int]:
        """The numbers of the links that are not over."""
        return list(self._wires)

    def receive(self) -> list[tuple[int, Parts]]:
        """Return what has arrived, each with its link, in order of arrival."""
        received, self._received = self._received, []
        return received

    def take_closed(self) -> list[int]:
        """Return the links that are over since the last call; what came on them must have been received before."""
        if self._received:
            return []
        closed, self._closed = self._closed, []
        return closed

    def send(self, link: int, parts: Sequence[bytes]) -> bool:
        """Send one message; False when the link's buffer is full. To a link that is over it is dropped."""
        wire = self._wires.get(link)
        return wire is None or wire.over or self._network.carry(wire, wire.to_peer, parts)

    def close(self, link: int) -> None:
        """Cut a connection after what was sent on it. It is not heard any more, and not told as closed."""
        wire = self._wires.pop(link, None)
        if wire is not None:
            self._received = [(number, parts) for number, parts in self._received if number != link]
            self._network.hang_up(wire)

    # --- for the network -----------------------------------------------------------------------------------------

    def plug(self, wire: _Wire) -> None:
        """A peer has connected."""
        self._wires[wire.number] = wire

    def arrive(self, number: int, parts: Parts) -> None:
        """A message came; on a link that was closed here it is not heard."""
        if number in self._wires:
            self._received.append((number, parts))
            self.news()

    def unplug(self, number: int) -> None:
        """A link is over."""
        if self._wires.pop(number, None) is not None:
            self._closed.append(number)
            self.news()


class SimNetwork:
    """Broker ends by address, and links to them."""

    def __init__(self, clock: VirtualClock, latency: int = LATENCY_DEFAULT) -> None:
        self._clock = clock
        self._latency = latency
        self._agenda: Agenda[Callable[[], None]] = Agenda()
        self._ends: dict[str, SimBrokerEnd] = {}
        self._numbers = 0
        #: Connections by the host of their peer, those that are over among them until they are looked for.
        self._wires: dict[str, list[_Wire]] = {}
        #: Hosts that are parted from brokers, and which way.
        self._parted: dict[str, Way] = {}

    # --- ends ----------------------------------------------------------------------------------------------------

    def listen(self, address: str) -> SimBrokerEnd:
        """Return a broker's end at this address, in the place of whoever listened there."""
        self.unlisten(address)
        end = self._ends[address] = SimBrokerEnd(self)
        return end

    def unlisten(self, address: str) -> None:
        """The broker at this address is gone: its links are over."""
        end = self._ends.pop(address, None)
        if end is not None:
            for number in end.links:
                end.close(number)

    def connect(self, address: str, host: str = "") -> SimLink:
        """Return a link from this host to whoever listens at this address; to nobody, one that is over soon."""
        self._numbers += 1
        end = self._ends.get(address)
        wire = _Wire(self._numbers, end, host)
        if end is None:
            self.hang_up(wire)
        else:
            end.plug(wire)
            self._wires_of(host).append(wire)
        if host in self._parted:
            # A connection is made by words both ways.
            self._freeze(wire, Way.BOTH)
        return SimLink(self, wire, address)

    def _wires_of(self, host: str) -> list[_Wire]:
        wires = self._wires[host] = [
            wire for wire in self._wires.get(host, ()) if not all(direction.closed for direction in wire.directions())
        ]
        return wires

    # --- time ----------------------------------------------------------------------------------------------------

    @property
    def next_at(self) -> int:
        """The boot time at which something happens here by itself; 0: nothing will."""
        return self._agenda.next_at

    def step(self) -> bool:
        """Let happen what is due now; tell whether anything was."""
        happened = False
        while due := self._agenda.take_due(self._clock().boot):
            happened = True
            for happen in due:
                happen()
        return happened

    # --- faults --------------------------------------------------------------------------------------------------

    def cut(self, link: SimLink, *, lose_underway: bool = True) -> None:
        """The connection breaks. Both ends hear of it after the latency; what is underway is lost, or arrives."""
        self._break(link.wire, lose_underway=lose_underway)

    def freeze(self, link: SimLink, way: Way = Way.BOTH) -> None:
        """Let nothing arrive, one way or both, and nobody know. An end that hears nothing for HEARTBEAT_TIMEOUT gives
        the link up; the other one hears of that, unless it hears nothing either."""
        self._freeze(link.wire, way)

    def thaw(self, link: SimLink, way: Way = Way.BOTH) -> None:
        """Let what was held up by `freeze` arrive now, if the link was not given up."""
        self._thaw(link.wire, way)

    def part(self, host: str, way: Way = Way.BOTH) -> None:
        """Freeze every link of a host, and those that it opens until `rejoin`."""
        self._parted[host] = self._parted.get(host, way) | way
        for wire in self._wires_of(host):
            self._freeze(wire, way)

    def rejoin(self, host: str) -> None:
        """End what `part` began."""
        if self._parted.pop(host, None) is not None:
            for wire in self._wires.get(host, ()):
                self._thaw(wire, Way.BOTH)

    def rejoin_all(self) -> None:
        """Rejoin every host."""
        for host in list(self._parted):
            self.rejoin(host)

    def mute(self, link: SimLink, end: Way = Way.TO_PEER) -> None:
        """The receiving end of this way is stopped: nothing gets into it, its heartbeats stop too, and after
        HEARTBEAT_TIMEOUT the other end gives the link up."""
        wire = link.wire
        for direction in wire.directions(end):
            if direction.waiting is None:
                direction.waiting = []
        if not wire.muted:
            since = wire.muted = self._clock().boot
            self._agenda.enter(since + HEARTBEAT_TIMEOUT, partial(self._give_up_muted, wire, since))

    def unmute(self, link: SimLink, end: Way = Way.TO_PEER) -> None:
        """Whoever was stopped goes on. What happened meanwhile he hears of like anything else: a little later."""
        wire = link.wire
        for direction in wire.directions(end):
            waiting = direction.waiting or []
            direction.waiting = None
            for happen in waiting:
                self._agenda.enter(self._arrival(wire, direction), happen)
        if all(direction.waiting is None for direction in wire.directions()):
            wire.muted = 0

    def stall(self, link: SimLink, stalled: bool = True) -> None:
        """Let the peer read nothing, or read on; heartbeats, which libzmq answers, go on."""
        direction = link.wire.to_peer
        direction.stalled = stalled
        if not stalled:
            direction.news()

    def leave_behind(self, link: SimLink, microseconds: int) -> None:
        """The peer hears that the link is over, and what it has sent arrives, with the end, so much later."""
        wire = link.wire
        if not wire.over:
            wire.to_peer.underway.clear()
            self._freeze(wire, Way.TO_BROKER)
            self.hang_up(wire)
            later = self._clock().boot + microseconds
            self._agenda.enter(later, partial(self._thaw, wire, Way.TO_BROKER))

    def damage(self, link: SimLink, damage: Damage, way: Way = Way.BOTH) -> None:
        """Let something become of the next message, one way or both: what is damaged arrives whole, and other."""
        for direction in link.wire.directions(way):
            direction.damage = damage

    def delay(self, link: SimLink, microseconds: int) -> None:
        """Let what is sent from now on take so much longer."""
        link.wire.delay = microseconds

    # --- carrying ------------------------------------------------------------------------------------------------

    def carry(self, wire: _Wire, direction: _Direction, parts: Sequence[bytes]) -> bool:
        """Take a message for one direction; False if there is no room or the connection is over."""
        if wire.over or len(direction.underway) >= HIGH_WATER_MARK:
            return False
        if any(len(part) > MESSAGE_BYTES_MAX for part in parts):
            self._break(wire, lose_underway=True)
            return True
        carried = list(parts)
        if direction.damage is not None:
            damage, direction.damage = direction.damage, None
            carried = damage(carried)
        direction.underway.append(carried)
        if not direction.frozen:
            self._schedule(wire, direction)
        return True

    def hang_up(self, wire: _Wire) -> None:
        """End a connection: each end hears of it after what is underway. An end that is cut off does not hear yet."""
        if wire.over:
            return
        wire.over = True
        for direction in wire.directions():
            if not direction.frozen:
                self._schedule_end(wire, direction)

    def _freeze(self, wire: _Wire, way: Way) -> None:
        boot = self._clock().boot
        for direction in wire.directions(way):
            if not direction.frozen and not direction.closed:
                direction.frozen = boot
                self._agenda.enter(boot + HEARTBEAT_TIMEOUT, partial(self._give_up, wire, direction, boot))

    def _thaw(self, wire: _Wire, way: Way) -> None:
        for direction in wire.directions(way):
            if direction.frozen and not direction.closed:
                direction.frozen = 0
                for _ in range(len(direction.underway)):
                    self._schedule(wire, direction)
                if wire.over:
                    self._schedule_end(wire, direction)

    def _break(self, wire: _Wire, *, lose_underway: bool) -> None:
        if lose_underway:
            wire.to_broker.underway.clear()
            wire.to_peer.underway.clear()
        self.hang_up(wire)

    def _schedule(self, wire: _Wire, direction: _Direction) -> None:
        self._agenda.enter(self._arrival(wire, direction), partial(self._arrive, wire, direction))

    def _schedule_end(self, wire: _Wire, direction: _Direction) -> None:
        # A moment later: who waits for it can still read the last words.
        self._agenda.enter(self._arrival(wire, direction) + 1, partial(self._end, wire, direction))

    def _arrival(self, wire: _Wire, direction: _Direction) -> int:
        """When what is sent now arrives: never before what was sent earlier."""
        arrival = max(direction.last_arrival, self._clock().boot + self._latency + wire.delay)
        direction.last_arrival = arrival
        return arrival

    def _arrive(self, wire: _Wire, direction: _Direction) -> None:
        if direction.waiting is not None:
            direction.waiting.append(partial(self._arrive, wire, direction))
            return
        if direction.frozen or direction.closed or not direction.underway:
            return
        parts = direction.underway.popleft()
        if direction is wire.to_peer:
            direction.arrived.append(parts)
            direction.news()
        elif wire.broker is not None:
            wire.broker.arrive(wire.number, parts)

    def _end(self, wire: _Wire, direction: _Direction) -> None:
        if direction.waiting is not None:
            direction.waiting.append(partial(self._end, wire, direction))
            return
        if not direction.frozen and not direction.closed:
            self._close(wire, direction)

    def _give_up(self, wire: _Wire, direction: _Direction, since: int) -> None:
        """The end that hears nothing closes the link."""
        if direction.waiting is not None:
            direction.waiting.append(partial(self._give_up, wire, direction, since))
            return
        if direction.frozen == since and not direction.closed:
            direction.underway.clear()
            self._close(wire, direction)
            self.hang_up(wire)

    def _give_up_muted(self, wire: _Wire, since: int) -> None:
        if wire.muted == since:
            self.hang_up(wire)

    def _close(self, wire: _Wire, direction: _Direction) -> None:
        direction.closed = True
        direction.news()
        if direction is wire.to_broker and wire.broker is not None:
            wire.broker.unplug(wire.number)
