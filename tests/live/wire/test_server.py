"""The broker's driver on real sockets: who comes in, what the core is told, and when a link is over."""

from __future__ import annotations

import os
import random
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zmq

from greenroom.transport import codec
from greenroom.transport.broker.events import (
    CloseLink,
    LinkBlocked,
    LinksClosed,
    Persist,
    PersistFailed,
    Received,
    RoomRegained,
    Send,
)
from greenroom.transport.errors import SecurityError, StoreFailed, StoreFull
from greenroom.transport.store.memory import MemoryStore
from greenroom.transport.store.records import Committed, Record, Synchronous
from greenroom.transport.verbs import Hello, Known, Ping, Reset, Results, Role, Welcome
from greenroom.transport.wire import connections
from greenroom.transport.wire import link as link_module
from greenroom.transport.wire.binding import AddressInUse, check_bind
from greenroom.transport.wire.link import (
    HEARTBEAT_MILLISECONDS,
    HEARTBEAT_TIMEOUT_MILLISECONDS,
    HIGH_WATER_MARK,
    MESSAGE_BYTES_MAX,
    Link,
)

if TYPE_CHECKING:
    from tests.live.wire.conftest import Connect, Eventually, PuppetPeer, RecordingCore, RunningBroker, StartBroker

pytestmark = pytest.mark.live


@pytest.fixture(params=["tcp", "ipc"])
def bind(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "tcp":
        return "tcp://127.0.0.1:0"
    folder = tmp_path / "socket"
    folder.mkdir(mode=0o700)
    return f"ipc://{folder}/broker"


@pytest.fixture
def broker(start_broker: StartBroker, core: RecordingCore) -> RunningBroker:
    return start_broker(core=core)


def greet(connect: Connect, broker: RunningBroker, session: str) -> PuppetPeer:
    peer = connect(broker.address)
    peer.hello(session)
    assert isinstance(peer.heard()[0], Welcome)
    return peer


def was_closed(core: RecordingCore, link: int) -> bool:
    return link in core.closed()


# --- D1, D2, D4: links -------------------------------------------------------------------------------------------


def test_d1_a_frame_without_a_hello_is_answered_reset_and_never_reaches_the_core(
    broker: RunningBroker, core: RecordingCore, connect: Connect
) -> None:
    stranger = connect(broker.address)
    stranger.say(Ping(1))
    (reset,) = stranger.heard()
    assert isinstance(reset, Reset)
    assert not reset.final
    stranger.wait_until_closed()
    greet(connect, broker, "good").ping()
    assert list(core.links()) == ["good"]
    assert Ping(1) not in [verb for _, verb in core.verbs()]


def test_d2_every_frame_of_a_peer_comes_before_the_news_that_its_link_is_over(
    bind: str, start_broker: StartBroker, core: RecordingCore, connect: Connect, eventually: Eventually
) -> None:
    broker = start_broker(bind=[bind], core=core)
    for attempt in range(20):
        session = f"dying {attempt}"
        peer = greet(connect, broker, session)
        for number in range(200):
            peer.say(Ping(1_000_000 * attempt + number))
        peer.link.close(linger_milliseconds=5_000)
        link = core.links()[session]
        eventually(partial(was_closed, core, link))
        numbers = [verb.number for of, verb in core.verbs() if of == link and isinstance(verb, Ping)]
        assert numbers == [1_000_000 * attempt + number for number in range(200)]
        last = max(i for i, e in enumerate(core.events) if isinstance(e, Received) and e.frames[-1].link == link)
        closed = next(i for i, e in enumerate(core.events) if isinstance(e, LinksClosed) and link in e.links)
        assert last < closed


def test_d2_the_death_of_a_process_is_noticed_within_a_second(
    bind: str, start_broker: StartBroker, core: RecordingCore, eventually: Eventually
) -> None:
    broker = start_broker(bind=[bind], core=core)
    with attached_process(broker, "victim") as process:
        link = eventually(lambda: core.links().get("victim"))
        process.kill()
        killed_at = time.monotonic()
        eventually(lambda: link in core.closed())
        assert time.monotonic() - killed_at < 1.0


def test_d2_descriptors_that_are_used_again_confuse_nobody(
    broker: RunningBroker, core: RecordingCore, connect: Connect, eventually: Eventually
) -> None:
    survivors = [greet(connect, broker, f"survivor {n}") for n in range(3)]
    expected: list[int] = []
    for attempt in range(150):
        peer = connect(broker.address)
        peer.hello(f"brief {attempt}")
        if attempt % 3 == 0:
            peer.heard()
        peer.link.close(linger_milliseconds=1_000)
    eventually(lambda: len(core.links()) >= 3 and len(core.closed()) == len(core.links()) - 3)
    for survivor in survivors:
        survivor.ping()
    links = core.links()
    expected = sorted(link for session, link in links.items() if session.startswith("brief"))
    assert sorted(core.closed()) == expected


def test_d4_heartbeats_go_every_two_seconds_and_six_of_silence_are_the_end() -> None:
    assert HEARTBEAT_MILLISECONDS == 2_000
    assert HEARTBEAT_TIMEOUT_MILLISECONDS == 6_000


@pytest.mark.slow
def test_d4_a_stopped_process_is_noticed_though_its_connection_stays_open(
    broker: RunningBroker, core: RecordingCore, connect: Connect, eventually: Eventually
) -> None:
    good = greet(connect, broker, "good")
    with attached_process(broker, "stopped") as process:
        link = eventually(lambda: core.links().get("stopped"))
        process.send_signal(signal.SIGSTOP)
        stopped_at = time.monotonic()
        eventually(lambda: link in core.closed())
        silence = time.monotonic() - stopped_at
        process.send_signal(signal.SIGCONT)
    assert 5.5 < silence < 9.0
    good.ping()


def test_a_link_that_the_core_closes_is_cut_after_its_last_words_and_not_heard_any_more(
    bind: str, start_broker: StartBroker, core: RecordingCore, connect: Connect, eventually: Eventually
) -> None:
    broker = start_broker(bind=[bind], core=core)
    good = greet(connect, broker, "good")
    bad = greet(connect, broker, "bad")
    link = core.links()["bad"]
    core.answers[Received] = [Send(link, [Reset("out", final=True)]), CloseLink(link, "it has to go")]
    good.ping()
    assert bad.heard() == [Reset("out", final=True)]
    bad.say(Ping(13))
    bad.wait_until_closed()
    good.ping()
    assert Ping(13) not in [verb for _, verb in core.verbs()]
    assert core.closed() == []


def test_a_peer_that_does_not_read_comes_back_to_the_core_as_blocked(
    start_broker: StartBroker,
    core: RecordingCore,
    connect: Connect,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert HIGH_WATER_MARK == 10_000
    monkeypatch.setattr(link_module, "HIGH_WATER_MARK", 10)
    broker = start_broker(core=core)
    good = greet(connect, broker, "good")
    with attached_process(broker, "stalled") as process:
        link = eventually(lambda: core.links().get("stalled"))
        process.send_signal(signal.SIGSTOP)
        verb = Results([Known("i", 3, bytes(500_000))])

        def blocked() -> list[LinkBlocked]:
            core.answers[Received] = [Send(link, [verb])]
            good.ping()
            return [event for event in list(core.events) if isinstance(event, LinkBlocked)]

        assert eventually(blocked)[0] == LinkBlocked(link, [verb])
    good.ping()


# --- who comes in ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [b"", b"wrong", bytes(32)])
def test_without_the_token_a_tcp_peer_is_refused_and_the_core_hears_nothing(
    broker: RunningBroker, core: RecordingCore, connect: Connect, token: bytes
) -> None:
    stranger = connect(broker.address)
    stranger.hello("stranger", token=token)
    (reset,) = stranger.heard()
    assert isinstance(reset, Reset)
    assert reset.final
    assert "not allowed" in reset.reason
    stranger.say(Ping(1))
    stranger.wait_until_closed()
    greet(connect, broker, "good").ping()
    assert list(core.links()) == ["good"]
    assert Ping(1) not in [verb for _, verb in core.verbs()]


def test_a_unix_socket_needs_no_token(
    start_broker: StartBroker, core: RecordingCore, connect: Connect, tmp_path: Path
) -> None:
    folder = tmp_path / "socket"
    broker = start_broker(bind=[f"ipc://{folder}/broker", "tcp://127.0.0.1:0"], core=core)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    peer = connect(broker.server.addresses[0])
    peer.hello("local", token=b"")
    assert isinstance(peer.heard()[0], Welcome)
    other = connect(broker.server.addresses[1])
    other.hello("other", token=b"")
    assert isinstance(other.heard()[0], Reset)


def test_the_token_is_private_survives_a_restart_and_is_withdrawn(
    start_broker: StartBroker, core: RecordingCore, tmp_path: Path, runtime_folder: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    broker = start_broker(core=core, data_folder=data)
    port = broker.address.rpartition(":")[2]
    published = runtime_folder / "greenroom" / port
    for path in (published, data / "token"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert len(path.read_bytes()) == 32
    token = published.read_bytes()
    broker.stop()
    assert not published.exists()
    start_broker(bind=[broker.address], core=core, data_folder=data)
    assert published.read_bytes() == token


def test_a_folder_that_others_may_enter_is_no_place_for_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    with pytest.raises(SecurityError, match="chmod 700"):
        check_bind(f"ipc://{folder}/broker")


@pytest.mark.parametrize(
    "address",
    [
        "tcp://0.0.0.0:5670",
        "tcp://*:5670",
        "tcp://10.1.2.3:5670",
        "tcp://[::]:5670",
        "tcp://[2001:db8::1]:5670",
        "tcp://[::ffff:10.0.0.1]:5670",
        "tcp://[::ffff:0.0.0.0]:5670",
        "tcp://[fe80::1%eth0]:5670",
        "greenroom://192.168.0.1",
    ],
)
def test_binding_where_other_machines_reach_is_refused_in_words(address: str) -> None:
    with pytest.raises(SecurityError, match=r"needs keys.*SSH tunnel or loopback"):
        check_bind(address)


def test_a_name_with_a_foreign_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(2, 1, 6, "", ("127.0.0.1", 5670)), (2, 1, 6, "", ("10.0.0.1", 5670))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(SecurityError):
        check_bind("tcp://db.example:5670")


@pytest.mark.parametrize(
    "address",
    ["tcp://127.0.0.1:0", "tcp://127.9.9.9:0", "tcp://localhost:0", "tcp://[::1]:0", "tcp://[::ffff:127.0.0.1]:0"],
)
def test_every_spelling_of_loopback_serves(
    address: str, start_broker: StartBroker, core: RecordingCore, connect: Connect
) -> None:
    broker = start_broker(bind=[address], core=core)
    greet(connect, broker, "good").ping()


def test_an_address_in_use_is_said_so_and_the_owners_token_stays(
    broker: RunningBroker, start_broker: StartBroker, connect: Connect
) -> None:
    with pytest.raises(AddressInUse, match="cannot listen"):
        start_broker(bind=[broker.address])
    greet(connect, broker, "good").ping()


def test_a_unix_socket_is_not_taken_from_a_living_broker(
    start_broker: StartBroker, core: RecordingCore, connect: Connect, tmp_path: Path
) -> None:
    bind = f"ipc://{tmp_path}/own/broker"
    (tmp_path / "own").mkdir(mode=0o700)
    broker = start_broker(bind=[bind], core=core)
    with pytest.raises(AddressInUse, match="another broker"):
        start_broker(bind=[bind])
    greet(connect, broker, "good").ping()


# --- what is not protocol ----------------------------------------------------------------------------------------


def test_random_bytes_on_the_port_change_nothing(broker: RunningBroker, core: RecordingCore, connect: Connect) -> None:
    good = greet(connect, broker, "good")
    before = len(core.verbs())
    chance = random.Random(18)
    host, _, port = broker.address.removeprefix("tcp://").rpartition(":")
    greeting = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
    for attempt in range(120):
        with socket.create_connection((host, int(port))) as raw:
            junk = chance.randbytes(chance.randrange(1, 4_000))
            try:
                raw.sendall(junk if attempt % 3 else greeting[: chance.randrange(65)] + junk)
            except OSError:
                continue
    good.ping()
    assert [verb for _, verb in core.verbs()[before:]] == [Ping(77)]


def test_random_frames_over_zmtp_change_nothing(broker: RunningBroker, core: RecordingCore, connect: Connect) -> None:
    good = greet(connect, broker, "good")
    chance = random.Random(19)
    for _ in range(60):
        stranger = connect(broker.address)
        for _ in range(3):
            stranger.link.send([chance.randbytes(chance.randrange(0, 300)) for _ in range(chance.randrange(1, 4))])
        stranger.heard()
        stranger.link.close()
    good.ping()
    assert list(core.links()) == ["good"]


def test_a_part_at_the_limit_passes_and_one_byte_more_costs_the_link(
    broker: RunningBroker, core: RecordingCore, connect: Connect
) -> None:
    good, peer = greet(connect, broker, "good"), greet(connect, broker, "big")
    peer.link.send([b"\x90", bytes(MESSAGE_BYTES_MAX)])
    peer.ping()
    assert any(
        sum(map(len, frame.parts)) == MESSAGE_BYTES_MAX
        for event in core.events
        if isinstance(event, Received)
        for frame in event.frames
    )
    peer.link.send([b"\x90", bytes(MESSAGE_BYTES_MAX + 1)])
    peer.wait_until_closed()
    good.ping()


def test_bad_frames_of_a_known_peer_are_the_cores_business(
    broker: RunningBroker, core: RecordingCore, connect: Connect, eventually: Eventually
) -> None:
    peer = greet(connect, broker, "odd")
    peer.link.send([b"\x91\x92\x99\x00"])
    peer.ping()
    frames = [frame for event in core.events if isinstance(event, Received) for frame in event.frames]
    assert any(not isinstance(frame.verbs, list) for frame in frames)


def test_a_routing_id_of_its_own_choice_is_refused(broker: RunningBroker, core: RecordingCore) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.ROUTING_ID, b"chosen")
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(broker.address)
        link = Link(broker.address, context)
        dealer.send_multipart(codec.encode([Hello(1, Role.CLIENT, "n", "s", 1, 1, token=link.token)]))
        assert dealer.poll(5_000)
        (reset,) = codec.decode_from_broker(dealer.recv_multipart())  # type: ignore[misc]
        assert isinstance(reset, Reset)
        link.close()
    context.destroy(linger=0)
    assert core.links() == {}


def test_a_connection_that_says_nothing_is_cut(
    broker: RunningBroker, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HELLO_PATIENCE", 300_000)
    good = greet(connect, broker, "good")
    silent = connect(broker.address)
    silent.wait_until_closed()
    good.ping()


def test_noise_on_the_port_while_the_broker_stops_does_not_abort_the_process() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", _STOP_UNDER_NOISE], env=os.environ, capture_output=True, text=True, timeout=60
    )
    assert (finished.returncode, finished.stdout) == (0, "stopped\n"), finished.stderr


_STOP_UNDER_NOISE = """
import random, socket, threading
from greenroom.transport.broker.events import Drain, Stop
from greenroom.transport.broker.settings import BrokerSettings
from greenroom.transport.store.memory import MemoryStore
from greenroom.transport.wire.server import BrokerServer

class Core:
    def start(self, now):
        return []
    def apply(self, event, now):
        return [Stop(0, "drained")] if isinstance(event, Drain) else []

chance = random.Random(1)
for attempt in range(30):
    server = BrokerServer(["tcp://127.0.0.1:0"], MemoryStore(), BrokerSettings(), "b", make_core=lambda *_: Core())
    thread = threading.Thread(target=server.run)
    thread.start()
    server.wait_until_bound(10)
    host, _, port = server.address.removeprefix("tcp://").rpartition(":")
    for _ in range(30):
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(chance.randbytes(chance.randrange(1, 4000)))
    server.stop()
    thread.join()
print("stopped")
"""


def test_too_many_connections_for_the_process_leave_those_that_are_there_and_burn_no_cpu(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", _FEW_DESCRIPTORS], env=os.environ, capture_output=True, text=True, timeout=60
    )
    assert (finished.returncode, finished.stdout) == (0, "served\n"), finished.stderr
    assert finished.stderr.count("could not be accepted") == 1


_FEW_DESCRIPTORS = """
import os, resource, socket, threading, time
import zmq
from greenroom.transport import codec
from greenroom.transport.broker.settings import BrokerSettings
from greenroom.transport.store.memory import MemoryStore
from greenroom.transport.verbs import Hello, Ping
from greenroom.transport.wire.link import Link
from greenroom.transport.wire.server import BrokerServer

server = BrokerServer(["tcp://127.0.0.1:0"], MemoryStore(), BrokerSettings(), "b")
thread = threading.Thread(target=server.run, daemon=True)
thread.start()
server.wait_until_bound(10)
host, _, port = server.address.removeprefix("tcp://").rpartition(":")

def attach():
    link = Link(server.address, zmq.Context.instance())
    link.send(codec.encode([Hello(1, 1, "n", str(time.monotonic_ns()), 1, 1, token=link.token)]))
    return link

def ping(link):
    link.send(codec.encode([Ping(1)]))
    until = time.monotonic() + 10
    while "Pong" not in str([codec.decode_from_broker(message) for message in link.receive()]):
        assert time.monotonic() < until and not link.closed
        link.poll(100)

good = attach()
ping(good)
crowd = [socket.socket() for _ in range(40)]
used = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (used + 10, used + 10))
for raw in crowd:
    raw.setblocking(False)
    raw.connect_ex((host, int(port)))
time.sleep(0.5)
before = time.process_time()
time.sleep(2.0)
busy = (time.process_time() - before) / 2.0
assert busy < 0.2, busy
ping(good)
for raw in crowd:
    raw.close()
until = time.monotonic() + 10
while True:
    time.sleep(0.2)
    try:
        another = attach()
        ping(another)
        break
    except Exception:
        assert time.monotonic() < until
server.stop()
thread.join()
print("served")
"""


# --- the store ---------------------------------------------------------------------------------------------------


class MoodyStore(MemoryStore):
    """A store that is full, or broken, when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.broken = False

    def commit(self, records: Sequence[Record], synchronous: Synchronous) -> Committed:
        if self.full:
            raise StoreFull("no room")
        if self.broken:
            raise StoreFailed("the disk is gone")
        return super().commit(records, synchronous)

    def has_room(self) -> bool:
        return not self.full


def test_a_full_store_fails_what_waits_and_is_asked_until_it_has_room(
    start_broker: StartBroker, core: RecordingCore, connect: Connect, eventually: Eventually
) -> None:
    store = MoodyStore()
    broker = start_broker(core=core, store=store)
    peer = greet(connect, broker, "good")
    store.full = True
    core.answers[Received] = [Persist(number, [], Synchronous.NORMAL) for number in (1, 2, 3)]
    peer.ping()
    failed = eventually(lambda: [event for event in list(core.events) if isinstance(event, PersistFailed)])
    assert failed == [PersistFailed(1, 3, True, "no room")]
    store.full = False
    eventually(lambda: RoomRegained() in list(core.events))


def test_a_store_that_fails_stops_the_broker(start_broker: StartBroker, core: RecordingCore, connect: Connect) -> None:
    store = MoodyStore()
    broker = start_broker(core=core, store=store)
    peer = greet(connect, broker, "good")
    store.broken = True
    core.answers[Received] = [Persist(1, [], Synchronous.NORMAL)]
    # Nobody waits for its answer: the broker may be over before it could be sent.
    peer.say(Ping(77))
    assert broker.join() == 1
    (failed,) = [event for event in core.events if isinstance(event, PersistFailed)]
    assert not failed.full
    assert "the disk is gone" in failed.reason


def test_stopping_ends_the_run_with_the_cores_exit_code(broker: RunningBroker) -> None:
    assert broker.stop() == 0


# --- processes that are killed -----------------------------------------------------------------------------------


class attached_process:
    """A process that says Hello as `session` and then waits; killed at the end."""

    def __init__(self, broker: RunningBroker, session: str) -> None:
        program = (
            "import sys, zmq\n"
            "from greenroom.transport import codec\n"
            "from greenroom.transport.verbs import Hello\n"
            "from greenroom.transport.wire.link import Link\n"
            "link = Link(sys.argv[1], zmq.Context())\n"
            "link.send(codec.encode([Hello(1, 3, 'n', sys.argv[2], 1, 1, token=link.token)]))\n"
            "while not link.closed:\n"
            "    link.poll(1000)\n"
            "    link.receive()\n"
        )
        self._process = subprocess.Popen([sys.executable, "-c", program, broker.address, session], env=os.environ)

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
