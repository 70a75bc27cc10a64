"""The contract of a network, tried on ZeroMQ and on the one in memory.

A network has broker's ends, which number their links, and peers' ends. What holds on one must hold on the other: what
the machines' tests show over the simulated network is worth nothing else.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.transport import codec
from greenroom.transport.broker.events import CloseLink, Drain, Effect, Event, LinksClosed, Received, Send, Stop
from greenroom.transport.broker.settings import BrokerSettings
from greenroom.transport.clock import Now
from greenroom.transport.codec import BadFrame, Parts, decode_to_broker
from greenroom.transport.sim.clock import BOOT_START, VirtualClock
from greenroom.transport.sim.network import (
    HEARTBEAT_TIMEOUT,
    HIGH_WATER_MARK,
    LATENCY_DEFAULT,
    SimBrokerEnd,
    SimLink,
    SimNetwork,
    Way,
)
from greenroom.transport.store.memory import MemoryStore
from greenroom.transport.store.records import Recovered
from greenroom.transport.verbs import FromBroker, Hello, Ping, Pong, Role
from greenroom.transport.wire.link import Link
from greenroom.transport.wire.server import BrokerServer

PATIENCE_SECONDS = 15.0


class PeerEnd(Protocol):
    """What `Link` and `SimLink` have in common."""

    @property
    def closed(self) -> bool: ...

    def send(self, parts: Sequence[bytes]) -> bool: ...

    def receive(self) -> list[Parts]: ...

    def close(self, linger_milliseconds: int = 0) -> None: ...


class Network(Protocol):
    """What a test of the contract needs: one broker's end, peers, and time that passes until something is so."""

    def connect(self) -> PeerEnd: ...

    def connect_to_nobody(self) -> PeerEnd: ...

    def heard(self) -> list[tuple[int, int]]:
        """Every ping that the broker's end was told of, as (link, number), in order."""
        ...

    def closed(self) -> list[int]:
        """Every link that the broker's end was told is over, in order."""
        ...

    def heard_before(self, link: int) -> int:
        """How many pings the broker's end had heard when it was told that this link is over."""
        ...

    def say(self, link: int, verbs: list[FromBroker]) -> None: ...

    def close(self, link: int) -> None: ...

    def until(self, so: Callable[[], bool]) -> None: ...


class SimulatedNetwork:
    """The network in memory, on virtual time."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.network = SimNetwork(self.clock)
        self._end: SimBrokerEnd = self.network.listen("tcp://a:1")
        self._heard: list[tuple[int, int]] = []
        self._closed: dict[int, int] = {}

    def connect(self) -> SimLink:
        link = self.network.connect("tcp://a:1")
        assert link.send(hello(link.token))
        return link

    def connect_to_nobody(self) -> SimLink:
        return self.network.connect("tcp://nobody:1")

    def heard(self) -> list[tuple[int, int]]:
        return self._heard

    def closed(self) -> list[int]:
        return list(self._closed)

    def heard_before(self, link: int) -> int:
        return self._closed[link]

    def say(self, link: int, verbs: list[FromBroker]) -> None:
        assert self._end.send(link, codec.encode(verbs))

    def close(self, link: int) -> None:
        self._end.close(link)

    def until(self, so: Callable[[], bool]) -> None:
        for _ in range(200_000):
            self.network.step()
            for link, parts in self._end.receive():
                self._heard += pings(link, parts)
            for link in self._end.take_closed():
                self._closed[link] = len(self._heard)
            if so():
                return
            assert self.network.next_at, "nothing will happen any more, and it is not so"
            self.clock.advance_to(self.network.next_at)


class ZeroMQNetwork:
    """The real one: a BrokerServer with a core that only listens."""

    def __init__(self) -> None:
        self._core = Listening()
        self._server = BrokerServer(
            ["tcp://127.0.0.1:0"], MemoryStore(), BrokerSettings(), "b", make_core=self._make_core
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        assert self._server.wait_until_bound(PATIENCE_SECONDS)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._links: list[Link] = []
        self._nudge = self._open()
        self._nudge.send(hello(self._nudge.token))

    def _make_core(self, recovered: Recovered, settings: BrokerSettings, name: str, now: Now) -> Listening:
        return self._core

    def _open(self, address: str = "") -> Link:
        link = Link(address or self._server.address, self._context)
        self._links.append(link)
        return link

    def connect(self) -> Link:
        link = self._open()
        assert link.send(hello(link.token))
        return link

    def connect_to_nobody(self) -> Link:
        return self._open("tcp://127.0.0.1:1")

    def heard(self) -> list[tuple[int, int]]:
        return list(self._core.heard)

    def closed(self) -> list[int]:
        return list(self._core.closed)

    def heard_before(self, link: int) -> int:
        return self._core.closed[link]

    def say(self, link: int, verbs: list[FromBroker]) -> None:
        self._core.orders.append(Send(link, verbs))
        self._nudge.send(codec.encode([Pong()]))

    def close(self, link: int) -> None:
        self._core.orders.append(CloseLink(link, "the test wants it"))
        self._nudge.send(codec.encode([Pong()]))

    def until(self, so: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while not so():
            assert time.monotonic() < until, "it did not happen in time"
            for link in self._links:
                if not link.closed:
                    link.poll(1)

    def shut_down(self) -> None:
        for link in self._links:
            if not link.closed:
                link.close()
        self._context.destroy(linger=0)
        self._server.stop()
        self._thread.join(PATIENCE_SECONDS)


class Listening:
    """A core that writes down what it hears and does what a test orders."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, int]] = []
        self.closed: dict[int, int] = {}
        self.orders: list[Effect] = []

    def start(self, now: Now) -> list[Effect]:
        return []

    def apply(self, event: Event, now: Now) -> list[Effect]:
        if isinstance(event, Received):
            for frame in event.frames:
                if isinstance(frame.verbs, list):
                    self.heard += [(frame.link, verb.number) for verb in frame.verbs if isinstance(verb, Ping)]
        elif isinstance(event, LinksClosed):
            for link in event.links:
                self.closed[link] = len(self.heard)
        elif isinstance(event, Drain):
            return [Stop(0, "drained")]
        orders, self.orders = self.orders, []
        return orders


_sessions = itertools.count(1)


def hello(token: bytes) -> Parts:
    return codec.encode([Hello(1, Role.CLIENT, "n", f"s{next(_sessions)}", 1, 1, token=token)])


def ping(number: int) -> Parts:
    return codec.encode([Ping(number)])


def pings(link: int, parts: Parts) -> list[tuple[int, int]]:
    verbs = codec.decode_to_broker(parts)
    assert not isinstance(verbs, codec.BadFrame)
    return [(link, verb.number) for verb in verbs if isinstance(verb, Ping)]


def received(peer: PeerEnd) -> list[FromBroker]:
    verbs: list[FromBroker] = []
    for message in peer.receive():
        found = codec.decode_from_broker(message)
        assert not isinstance(found, codec.BadFrame)
        verbs += found
    return verbs


@pytest.fixture(params=["simulated", pytest.param("zeromq", marks=pytest.mark.live)])
def network(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    if request.param == "simulated":
        yield SimulatedNetwork()
        return
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    real = ZeroMQNetwork()
    yield real
    real.shut_down()


def link_of(network: Network, peer: PeerEnd, number: int) -> int:
    """The number that the broker's end gave to this peer's link."""
    assert peer.send(ping(number))
    network.until(lambda: any(found == number for _, found in network.heard()))
    return next(link for link, found in network.heard() if found == number)


def test_what_a_peer_sends_arrives_whole_and_in_order(network: Network) -> None:
    peers = [network.connect() for _ in range(3)]
    for number in range(300):
        for index, peer in enumerate(peers):
            assert peer.send(ping(1000 * index + number))
    network.until(lambda: len(network.heard()) == 900)
    by_link: dict[int, list[int]] = {}
    for link, number in network.heard():
        by_link.setdefault(link, []).append(number)
    assert sorted(by_link.values()) == [[1000 * index + number for number in range(300)] for index in range(3)]


def test_what_the_broker_says_arrives_in_order_at_the_peer_that_it_is_for(network: Network) -> None:
    peer, other = network.connect(), network.connect()
    link = link_of(network, peer, 1)
    link_of(network, other, 2)
    for number in range(100):
        network.say(link, [Pong(number)])
    verbs: list[FromBroker] = []

    def all_there() -> bool:
        verbs.extend(received(peer))
        return len(verbs) == 100

    network.until(all_there)
    assert verbs == [Pong(number) for number in range(100)]
    assert received(other) == []


def test_d2_the_broker_hears_everything_of_a_peer_before_it_hears_that_its_link_is_over(network: Network) -> None:
    peer = network.connect()
    link = link_of(network, peer, 1)
    for number in range(2, 500):
        assert peer.send(ping(number))
    peer.close(linger_milliseconds=5_000)
    network.until(lambda: link in network.closed())
    assert [number for _, number in network.heard()] == list(range(1, 500))
    assert network.heard_before(link) == 499


def test_a_link_that_is_over_takes_no_more(network: Network) -> None:
    peer = network.connect()
    link = link_of(network, peer, 1)
    network.close(link)
    network.until(lambda: peer.closed)
    assert not peer.send(ping(2))
    assert peer.receive() == []


def test_a_link_that_the_broker_closed_is_not_heard_and_not_told_as_over(network: Network) -> None:
    bad, good = network.connect(), network.connect()
    link = link_of(network, bad, 1)
    other = link_of(network, good, 2)
    network.close(link)
    network.until(lambda: bad.closed)
    good.send(ping(3))
    network.until(lambda: (other, 3) in network.heard())
    assert network.closed() == []


def test_a_connection_to_nobody_is_over_soon(network: Network) -> None:
    peer = network.connect_to_nobody()
    network.until(lambda: peer.closed)


def test_d1_a_new_link_has_a_new_number(network: Network) -> None:
    numbers: list[int] = []
    for attempt in range(5):
        peer = network.connect()
        numbers.append(link_of(network, peer, attempt))
        peer.close()
        network.until(lambda: numbers[-1] in network.closed())
    assert numbers == sorted(set(numbers))
    assert network.closed() == numbers


def test_what_is_said_to_a_link_that_is_over_is_dropped(network: Network) -> None:
    gone, peer = network.connect(), network.connect()
    link = link_of(network, gone, 1)
    gone.close()
    network.until(lambda: link in network.closed())
    network.say(link, [Pong(1)])
    link_of(network, peer, 2)


# --- what only the network in memory can show --------------------------------------------------------------------


def test_d4_a_frozen_link_is_over_for_both_ends_after_six_seconds_and_not_before() -> None:
    network = SimulatedNetwork()
    peer = network.connect()
    link = link_of(network, peer, 1)
    network.network.freeze(peer)
    assert peer.send(ping(2))
    before = network.clock().boot
    network.until(lambda: peer.closed)
    assert network.clock().boot == before + HEARTBEAT_TIMEOUT
    assert network.closed() == [link]
    assert network.heard() == [(link, 1)]


def test_a_link_that_thaws_in_time_lost_nothing() -> None:
    network = SimulatedNetwork()
    peer = network.connect()
    link = link_of(network, peer, 1)
    for number in range(2, 6):
        network.network.freeze(peer)
        peer.send(ping(number))
        network.clock.advance(HEARTBEAT_TIMEOUT - 1)
        network.network.step()
        network.network.thaw(peer)
        network.until(lambda number=number: (link, number) in network.heard())  # type: ignore[misc]
    assert network.closed() == []


@pytest.mark.parametrize("way", [Way.TO_BROKER, Way.TO_PEER])
def test_a_link_that_is_silent_one_way_works_the_other_way_until_who_hears_nothing_gives_it_up(way: Way) -> None:
    network = SimulatedNetwork()
    peer = network.connect()
    link = link_of(network, peer, 1)
    network.network.freeze(peer, way)
    peer.send(ping(2))
    network.say(link, [Pong(3)])
    network.until(lambda: peer.closed or link in network.closed() or (link, 2) in network.heard())
    assert ((link, 2) in network.heard()) is (way is Way.TO_PEER)
    network.until(lambda: peer.closed and link in network.closed())
    assert network.clock().boot >= BOOT_START + HEARTBEAT_TIMEOUT


def test_what_a_parted_host_connects_to_is_silent_until_it_has_joined_again() -> None:
    network = SimulatedNetwork()
    old = network.network.connect("tcp://a:1", "one")
    other = network.network.connect("tcp://a:1", "other")
    network.network.part("one")
    new = network.network.connect("tcp://a:1", "one")
    for number, peer in enumerate((old, other, new)):
        peer.send(ping(number))
    network.until(lambda: bool(network.heard()))
    assert [number for _, number in network.heard()] == [1]
    network.network.rejoin("one")
    network.until(lambda: len(network.heard()) == 3)


def test_an_end_that_is_stopped_is_given_up_after_six_seconds_and_goes_on_if_it_was_shorter() -> None:
    network = SimulatedNetwork()
    short, long = network.connect(), network.connect()
    for peer in (short, long):
        network.network.mute(peer)
    network.clock.advance(HEARTBEAT_TIMEOUT - 1)
    network.network.unmute(short)
    network.until(lambda: network.closed() == [2])
    assert not short.closed
    assert not long.closed, "who is stopped hears nothing"
    network.network.unmute(long)
    network.until(lambda: long.closed)
    assert not short.closed


def test_what_a_peer_left_behind_arrives_after_its_next_link_is_up() -> None:
    network = SimulatedNetwork()
    old = network.connect()
    link_of(network, old, 1)
    old.send(ping(2))
    network.network.leave_behind(old, 2_000_000)
    network.until(lambda: old.closed)
    network.connect().send(ping(3))
    network.until(lambda: len(network.heard()) == 3)
    assert [number for _, number in network.heard()] == [1, 3, 2]


def test_a_damaged_message_is_no_frame_and_the_next_one_is() -> None:
    clock = VirtualClock()
    network = SimNetwork(clock)
    end, peer = network.listen("tcp://a:1"), network.connect("tcp://a:1")
    network.damage(peer, lambda parts: [parts[0][:-1]])
    for number in range(2):
        peer.send(ping(number))
    clock.advance(LATENCY_DEFAULT)
    network.step()
    assert [isinstance(decode_to_broker(parts), BadFrame) for _, parts in end.receive()] == [True, False]


def test_a_peer_that_reads_nothing_has_it_all_when_it_reads_again() -> None:
    network = SimulatedNetwork()
    peer = network.connect()
    link = link_of(network, peer, 1)
    network.network.stall(peer)
    network.say(link, [Pong(1)])
    network.clock.advance(1_000_000)
    network.network.step()
    assert peer.receive() == []
    network.network.stall(peer, stalled=False)
    assert len(peer.receive()) == 1


def test_the_end_of_a_link_does_not_overtake_what_was_sent_on_it() -> None:
    network = SimulatedNetwork()
    peer = network.connect()
    link = link_of(network, peer, 1)
    network.network.delay(peer, 1_000_000)
    peer.send(ping(2))
    network.network.delay(peer, 0)
    peer.close()
    network.until(lambda: link in network.closed())
    assert network.heard_before(link) == 2


def test_a_cut_loses_what_is_underway_if_it_shall() -> None:
    for lose, expected in ((True, [1]), (False, [1, 2])):
        network = SimulatedNetwork()
        peer = network.connect()
        link = link_of(network, peer, 1)
        peer.send(ping(2))
        network.network.cut(peer, lose_underway=lose)
        network.until(lambda network=network, link=link: link in network.closed())  # type: ignore[misc]
        assert [number for _, number in network.heard()] == expected


def test_a_link_holds_its_high_water_mark_and_not_one_more() -> None:
    network = SimulatedNetwork()
    peer = network.connect()
    link_of(network, peer, 0)
    for number in range(HIGH_WATER_MARK):
        assert peer.send(ping(number + 1))
    assert not peer.send(ping(0))


@given(delays=st.lists(st.integers(0, 1_000_000), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_delays_never_change_the_order_of_a_link(delays: list[int]) -> None:
    network = SimulatedNetwork()
    peer = network.connect()
    for number, delay in enumerate(delays):
        network.network.delay(peer, delay)
        peer.send(ping(number))
    network.until(lambda: len(network.heard()) == len(delays))
    assert [number for _, number in network.heard()] == list(range(len(delays)))
