"""Brokers and peers on real sockets, in threads of the test's process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import zmq

from greenroom.transport import codec
from greenroom.transport.broker.core import Broker
from greenroom.transport.broker.events import (
    Drain,
    Effect,
    Event,
    Frame,
    LinksClosed,
    Received,
    Send,
    Stop,
)
from greenroom.transport.broker.settings import BrokerSettings
from greenroom.transport.clock import Now
from greenroom.transport.store.base import Store
from greenroom.transport.store.memory import MemoryStore
from greenroom.transport.store.records import Recovered
from greenroom.transport.verbs import FromBroker, Hello, Ping, Pong, Role, ToBroker, Welcome
from greenroom.transport.wire.link import Link
from greenroom.transport.wire.server import BrokerServer, Core

#: What a step of a test may take before the test fails: far above what any step needs.
PATIENCE_SECONDS = 15.0

T = TypeVar("T")


def eventually(what: Callable[[], T], patience: float = PATIENCE_SECONDS) -> T:
    """Return what `what` returns once that is true. Fails the test when it never is."""
    until = time.monotonic() + patience
    while not (found := what()):
        assert time.monotonic() < until, "it did not happen in time"
        threading.Event().wait(0.002)
    return found


class RecordingCore:
    """A core that welcomes everybody, answers pings, and writes down what it was told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        #: What to answer to the next events, put there by a test in any thread.
        self.answers: dict[type, list[Effect]] = {}

    def start(self, now: Now) -> list[Effect]:
        return []

    def apply(self, event: Event, now: Now) -> list[Effect]:
        self.events.append(event)
        effects: list[Effect] = []
        if isinstance(event, Received):
            for frame in event.frames:
                if not isinstance(frame.verbs, codec.BadFrame):
                    effects += self._answer(frame, frame.verbs)
        elif isinstance(event, Drain):
            effects.append(Stop(0, "drained"))
        return effects + self.answers.pop(type(event), [])

    def _answer(self, frame: Frame, verbs: list[ToBroker]) -> list[Effect]:
        effects: list[Effect] = []
        for verb in verbs:
            if isinstance(verb, Hello):
                effects.append(Send(frame.link, [Welcome(1, "b", 1, 0, 8 << 20)]))
            elif isinstance(verb, Ping):
                effects.append(Send(frame.link, [Pong(verb.number)]))
        return effects

    def verbs(self) -> list[tuple[int, ToBroker]]:
        """Every verb so far, with its link."""
        return [
            (frame.link, verb)
            for event in list(self.events)
            if isinstance(event, Received)
            for frame in event.frames
            if not isinstance(frame.verbs, codec.BadFrame)
            for verb in frame.verbs
        ]

    def links(self) -> dict[str, int]:
        """The link of each session that has said Hello."""
        return {verb.session: link for link, verb in self.verbs() if isinstance(verb, Hello)}

    def closed(self) -> list[int]:
        """Links that ended, in order."""
        return [link for event in list(self.events) if isinstance(event, LinksClosed) for link in event.links]


class RunningBroker:
    """A BrokerServer in a thread."""

    def __init__(self, server: BrokerServer) -> None:
        self.server = server
        self.exit_code: int | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert server.wait_until_bound(PATIENCE_SECONDS)

    def _run(self) -> None:
        try:
            self.exit_code = self.server.run()
        except BaseException as error:
            self.error = error

    @property
    def address(self) -> str:
        return self.server.address

    def join(self) -> int | None:
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), "the broker did not stop"
        return self.exit_code

    def stop(self) -> int | None:
        self.server.stop()
        return self.join()


class PuppetPeer:
    """A link that a test drives by hand."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def say(self, *verbs: ToBroker) -> None:
        assert self.link.send(codec.encode(verbs))

    def hello(self, session: str, role: Role = Role.CLIENT, token: bytes | None = None) -> None:
        self.say(Hello(1, role, "node", session, 1, 1, token=self.link.token if token is None else token))

    def heard(self) -> list[FromBroker]:
        """Wait for a frame with verbs in it, or for the end of the connection (then nothing)."""
        until = time.monotonic() + PATIENCE_SECONDS
        verbs: list[FromBroker] = []
        while not verbs and not self.link.closed:
            assert time.monotonic() < until, "nothing was heard in time"
            self.link.poll(1000)
            for message in self.link.receive():
                found = codec.decode_from_broker(message)
                assert not isinstance(found, codec.BadFrame)
                verbs += found
        return verbs

    def ping(self) -> None:
        self.say(Ping(77))
        assert self.heard() == [Pong(77)]

    def wait_until_closed(self) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while not self.link.closed:
            assert time.monotonic() < until, "the connection was not closed in time"
            self.link.poll(100)
            self.link.receive()


Eventually = Callable[[Callable[[], Any]], Any]
StartBroker = Callable[..., RunningBroker]
Connect = Callable[[str], PuppetPeer]


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tokens of a test lie in the test's own folder."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


@pytest.fixture
def core() -> RecordingCore:
    return RecordingCore()


@pytest.fixture(name="eventually")
def eventually_fixture() -> Eventually:
    return eventually


@pytest.fixture
def start_broker() -> Iterator[StartBroker]:
    running: list[RunningBroker] = []

    def start(
        *,
        bind: Sequence[str] = ("tcp://127.0.0.1:0",),
        store: Store | None = None,
        settings: BrokerSettings | None = None,
        core: RecordingCore | None = None,
        data_folder: Path | None = None,
    ) -> RunningBroker:
        def make_core(recovered: Recovered, settings: BrokerSettings, name: str, now: Now) -> Core:
            return core or Broker(recovered, settings, name, now)

        server = BrokerServer(
            bind,
            store or MemoryStore(),
            settings or BrokerSettings(),
            "b",
            make_core=make_core,
            data_folder=data_folder,
        )
        broker = RunningBroker(server)
        running.append(broker)
        return broker

    yield start
    for broker in running:
        if broker.exit_code is None and broker.error is None:
            broker.stop()
        assert broker.error is None, f"the broker failed: {broker.error!r}"


@pytest.fixture
def connect() -> Iterator[Connect]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    peers: list[PuppetPeer] = []

    def make(address: str) -> PuppetPeer:
        peer = PuppetPeer(Link(address, context))
        peers.append(peer)
        return peer

    yield make
    for peer in peers:
        if not peer.link.closed:
            peer.link.close()
    context.destroy(linger=0)
