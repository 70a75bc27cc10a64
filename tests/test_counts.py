"""The hot path by counting: what a message costs in calls, memory, frames, commits and statements.

Wall time on a shared machine tells little; these counts are the same each time. Each bound stands a little above what
was counted when it was written: a call more for each message, or a batch that falls apart into messages, goes over it.
Who makes the path shorter lowers the bound. Python's own versions differ by a few calls, so no bound is exact.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, cast

import msgspec
import pytest

from greenroom import App
from greenroom.actors.signals import Signal
from greenroom.actors.worker import execute, tasklog
from greenroom.actors.worker.consumer import Consumer
from greenroom.actors.worker.events import ConsumerSettings
from greenroom.actors.worker.execute import Executor
from greenroom.actors.worker.outcomes import Outcomes
from greenroom.actors.worker.station import Station
from greenroom.transport import codec, payload_msgpack, verbs
from greenroom.transport.broker.settings import BrokerSettings
from greenroom.transport.clock import Now
from greenroom.transport.message import Delivery, Envelope, Flag, Outcome, Result, State
from greenroom.transport.page_marks import Page
from greenroom.transport.peer.attachment import Attachment
from greenroom.transport.peer.line import Line
from greenroom.transport.peer.publisher import cut
from greenroom.transport.peer.results import ResultBook
from greenroom.transport.processes import ProcessName
from greenroom.transport.sim.broker import SimBroker
from greenroom.transport.store.connection import Columns, Sqlite3Connection, Value
from greenroom.transport.store.sqlite import SqliteStore
from greenroom.transport.verbs import Known, Role
from greenroom.transport.wire.answers import Kept

#: Messages of a measurement, in publishes of PUBLISH and settles of SETTLE.
COUNT = 8_192
PUBLISH = 2_048
SETTLE = 128
WINDOW = 2_048

BOOT = 1_000_000_000
NOW = Now(BOOT, 1_700_000_000_000_000)
RESULT = msgspec.msgpack.encode(Result(State.SUCCESS, body=b"\x07", done_at=NOW.wall, worker="celery@here"))


@pytest.fixture(autouse=True)
def nobody_listens(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Who listens to bodies, or reads of each in the log, has them go the long way; other tests may have done so."""
    for signal in cast("Sequence[Signal]", getattr(execute, "_AROUND_BODIES")):  # noqa: B009 - it has no other name
        monkeypatch.setattr(signal, "receivers", ())
    level = tasklog.logger.level
    tasklog.logger.setLevel(logging.WARNING)
    yield
    tasklog.logger.setLevel(level)


class Calls:
    """Calls of Python's and of C's functions by code under these folders of the package, in this thread."""

    def __init__(self, *folders: str) -> None:
        root = Path(__file__).resolve().parent.parent
        self._paths = tuple(str(root / folder) for folder in folders)
        self.python = 0
        self.c = 0

    def __enter__(self) -> Calls:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(self._paths):
            self.python += 1
        elif event == "c_call" and frame.f_code.co_filename.startswith(self._paths):
            self.c += 1


class CountingConnection(Sqlite3Connection):
    """A connection of the standard library that counts statements, and rows that are written by one."""

    statements: Counter[str]

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> list[Columns]:
        self.statements[sql.partition(" ")[0]] += 1
        return super().execute(sql, parameters)

    def executemany(self, sql: str, rows: Any) -> None:
        # The library runs the statement once a row, and gives the interpreter away each time.
        self.statements[sql.partition(" ")[0]] += len(rows)
        super().executemany(sql, rows)


class Cluster:
    """A broker on SQLite, a client and two children, each of them a few lines; everything goes through the codec."""

    def __init__(self, folder: Path, *, results: bool) -> None:
        self.statements: Counter[str] = Counter()
        statements = self.statements

        def connect(database: str) -> CountingConnection:
            connection = CountingConnection(database)
            connection.statements = statements
            return connection

        self.frames = 0
        self.sim = SimBroker(SqliteStore(folder / "data", connect=connect), BrokerSettings(), eager=False)
        self.results = results
        self._client = self._attach(Role.CLIENT, "client")
        self._children = [self._attach(Role.CHILD, f"node/{number}") for number in (1, 2)]
        for child in self._children:
            self._say(child, verbs.Attach(["celery"], 1, WINDOW))
        self._held: dict[int, list[tuple[int, int]]] = {child: [] for child in self._children}
        self._numbers = dict.fromkeys(self._children, 0)
        self.confirmed = 0
        self.received = 0
        self.settled = 0
        self._turn()

    def _attach(self, role: Role, session: str) -> int:
        link = self.sim.connect()
        self.sim.say(link, verbs.Hello(verbs.PROTOCOL_VERSION, role, "celery@here", session, 1, 1))
        self.sim.settle()
        return link

    def _say(self, link: int, *said: verbs.ToBroker) -> None:
        self.frames += 1
        self.sim.say(link, *said)

    def _turn(self) -> None:
        """One commit, and what everybody hears by then: a frame each, as a driver would send it."""
        while self.sim.commit():
            pass
        for link in (self._client, *self._children):
            heard = self.sim.heard(link)
            self.frames += bool(heard)
            for verb in heard:
                if isinstance(verb, verbs.Confirm):
                    assert not verb.refusal, verb
                    self.confirmed += 1
                elif isinstance(verb, verbs.Results):
                    self.received += len(verb.results)
                elif isinstance(verb, verbs.Deliver):
                    self._held[link] += [(delivery.position, verb.lease) for delivery in verb.deliveries]
                elif isinstance(verb, verbs.Ping):
                    self._say(link, verbs.Pong(verb.number))

    def publish(self, count: int) -> None:
        """Publish, and wait for the confirms."""
        flags = Flag.ACKS_LATE | (Flag.WATCHED if self.results else Flag.IGNORE_RESULT)
        for start in range(0, count, PUBLISH):
            self.frames += 1
            envelopes = [envelope(start + index, flags=int(flags)) for index in range(min(PUBLISH, count - start))]
            self.sim.publish(self._client, self.confirmed + 1, "celery", envelopes, answered=self.confirmed)
            self._turn()

    def work(self, count: int) -> None:
        """Settle so many, SETTLE at a time."""
        result = RESULT if self.results else b""
        goal = self.settled + count
        while self.settled < goal:
            for child in self._children:
                batch, self._held[child] = self._held[child][:SETTLE], self._held[child][SETTLE:]
                if batch:
                    self._numbers[child] += 1
                    self.settled += len(batch)
                    outcomes = [Outcome(position, lease, State.SUCCESS, 15, result) for position, lease in batch]
                    self._say(child, verbs.Settle(self._numbers[child], outcomes))
            self._turn()


def envelope(number: int, *, flags: int = 0, body: bytes = b"\x92\x90\x80") -> Envelope:
    """A message as a client sends it."""
    return Envelope(f"018bcfe5-6805-7000-8000-{number:012x}", "shop.noop", "msgpack", body, flags, origin="gen1@here")


@pytest.fixture(name="cluster")
def _cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, results=request.param)
    # What a task type takes is learned, and every code path was walked once.
    cluster.publish(PUBLISH)
    cluster.work(PUBLISH)
    cluster.frames = cluster.sim.commits = cluster.received = 0
    cluster.statements.clear()
    yield cluster
    cluster.sim.store.close()


def within(counted: float, bound: float, what: str) -> None:
    """Fail if more was counted than `bound`, or so much less that the bound guards nothing."""
    assert counted <= bound, f"{what}: {counted:.2f}, the bound is {bound}; what was one for a batch is one a message?"
    assert counted >= bound / 2, f"{what}: {counted:.2f}, far below the bound of {bound}: lower it to guard the gain"


@pytest.mark.parametrize(
    ("cluster", "python", "c"),
    [(False, 0.7, 13.5), (True, 0.75, 19.0)],
    indirect=["cluster"],
    ids=["ignored", "stored"],
)
def test_a_message_takes_few_calls_through_the_brokers_core(cluster: Cluster, python: float, c: float) -> None:
    with Calls("transport/broker/") as calls:
        cluster.publish(COUNT)
        cluster.work(COUNT)
    within(calls.python / COUNT, python, "functions of the core a message")
    within(calls.c / COUNT, c, "functions of C that the core calls a message")


@pytest.mark.parametrize(
    ("cluster", "frames", "statements"),
    [(False, 19.5, 13.0), (True, 23.5, 30.0)],
    indirect=["cluster"],
    ids=["ignored", "stored"],
)
def test_a_thousand_tasks_take_few_frames_commits_and_statements(
    cluster: Cluster, frames: float, statements: float
) -> None:
    for _ in range(COUNT // PUBLISH):
        cluster.publish(PUBLISH)
        cluster.work(PUBLISH)
    assert cluster.settled == COUNT + PUBLISH
    assert cluster.received == (COUNT if cluster.results else 0)
    thousands = COUNT / 1_000
    within(cluster.frames / thousands, frames, "frames a thousand tasks, both ways")
    within(cluster.sim.commits / thousands, 4.9, "commits a thousand tasks")
    written = sum(cluster.statements[verb] for verb in ("INSERT", "DELETE", "UPDATE"))
    within(written / thousands, statements, "statements that write, a thousand tasks")


@pytest.mark.parametrize("cluster", [False], indirect=True)
def test_a_message_that_waits_takes_little_memory(cluster: Cluster) -> None:
    gc.collect()
    before = sys.getallocatedblocks()
    cluster.publish(COUNT)
    within((sys.getallocatedblocks() - before) / COUNT, 10.0, "blocks of memory a waiting message")


# --- a child --------------------------------------------------------------------------------------------------


class Link:
    """A broker that has everything ready and applies at once."""

    token = b""
    closed = False

    def __init__(self, frames: list[list[bytes]]) -> None:
        self._inbox: list[list[bytes]] = []
        self._frames = frames
        self.sent = 0
        self.settled = 0

    def send(self, parts: Sequence[bytes]) -> bool:
        self.sent += 1
        said = codec.decode_to_broker(parts)
        assert isinstance(said, list)
        for verb in said:
            if isinstance(verb, verbs.Hello):
                self._hear(verbs.Welcome(verbs.PROTOCOL_VERSION, "broker", 1, 0, 1 << 20))
            elif isinstance(verb, verbs.Attach):
                self._hear(verbs.Attached(1))
                self._inbox += self._frames
            elif isinstance(verb, verbs.Settle):
                self.settled += len(verb.outcomes)
                self._hear(verbs.Applied(verb.number))
        return True

    def _hear(self, verb: verbs.FromBroker) -> None:
        self._inbox.append(codec.encode([verb]))

    def receive(self) -> list[list[bytes]]:
        inbox, self._inbox = self._inbox, []
        return inbox

    def close(self, linger_milliseconds: int = 0) -> None:
        self.closed = True


class PlayedLine(Line[Link]):
    """A line to it."""

    def wait(self, timeout_milliseconds: int) -> list[int]:
        return []


class Parent:
    """A parent who says nothing."""

    closed = False

    def send(self, word: object) -> None:
        raise AssertionError(f"nothing is said to the parent: {word}")

    def flush(self) -> None:
        return

    def receive(self) -> list[Any]:
        return []


class Child:
    """One runner: the loop of `prefork`, without its threads and signals."""

    def __init__(self, task: Callable[..., Any], flags: int) -> None:
        app = App("shop", broker="tcp://127.0.0.1:1")
        app.task(name="shop.noop")(task)
        deliveries = [Delivery(1 + index, envelope(index, flags=flags), "celery") for index in range(WINDOW)]
        self.link = Link([codec.encode([verbs.Deliver(0, 1, 7, deliveries)])])
        attachment = Attachment(role=Role.CHILD, node="celery@here", session="n/1", addresses=("tcp://127.0.0.1:1",))
        self.page = Page.in_memory(
            session="n/1", node="n", incarnation=1, runners=1, heard=BOOT, process=ProcessName(1, 1, 1)
        )
        consumer = Consumer(ConsumerSettings(mailboxes=["celery"], outcomes_max=self.page.entries // 4))
        self._boot = BOOT
        clock = lambda: Now(self._boot, NOW.wall)  # noqa: E731 - a clock of this child's own
        line = PlayedLine(attachment, clock, lambda _address: self.link)
        self.station = Station(consumer, line, self.page, Parent(), clock)
        outcomes = Outcomes("celery@here", lambda: NOW.wall)
        nobody = cast("Any", None)
        self.executor = Executor(app, outcomes, nobody, nobody, hostname="celery@here")
        self.station.start()
        for _ in range(4):
            self.station.glance()

    def run(self, count: int) -> None:
        station, executor = self.station, self.executor
        for _ in range(count):
            began = self._boot
            held = station.next_body(began)
            assert held is not None
            done = executor.run(held)
            assert isinstance(done, Outcome)
            self._boot = began + 15
            settled = station.settled
            station.finished(done, began, self._boot)
            if station.settled != settled:
                station.glance()
        executor.refresh()


@pytest.mark.parametrize(
    ("flags", "python", "c"),
    [(int(Flag.ACKS_LATE | Flag.IGNORE_RESULT), 14.5, 14.5), (int(Flag.ACKS_LATE), 17.5, 17.5)],
    ids=["ignored", "stored"],
)
def test_a_body_takes_few_calls_through_a_child(flags: int, python: float, c: float) -> None:
    child = Child(lambda: 7, flags)
    child.run(256)
    sent, count = child.link.sent, 1_024
    with Calls("transport/", "actors/") as calls:
        child.run(count)
    within(calls.python / count, python, "functions a body")
    within(calls.c / count, c, "functions of C a body")
    within((child.link.sent - sent) * 1_000 / count, 9.0, "frames a thousand bodies")


# --- a client -------------------------------------------------------------------------------------------------


class Answering:
    """A client of which every message is accepted, and every result is there."""

    def publish(self, mailbox: str, envelopes: Sequence[Envelope], **_options: Any) -> Future[None]:
        cut(mailbox, envelopes)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def result_future(self, id: str) -> Kept[Known]:
        return Kept(Known(id, State.SUCCESS, RESULT))

    def flush(self, timeout: float | None = None) -> None:
        return

    def close(self) -> None:
        return


def _answering(_app: App) -> Any:
    return Answering()


@contextmanager
def application() -> Generator[App]:
    app = App("shop", broker="tcp://127.0.0.1:1")
    app.sender.make_client = _answering
    try:
        yield app
    finally:
        app.close()


def _echo(value: int) -> int:
    return value


def test_a_call_among_many_and_its_result_take_few_calls() -> None:
    with application() as app:
        task: Any = app.task(name="shop.echo")(_echo)
        assert task.send_many([(1,)])[0].get(timeout=1) == 7
        with Calls("transport/", "actors/") as calls:
            results = task.send_many([(number,) for number in range(PUBLISH)])
        within(calls.python / PUBLISH, 5.5, "functions a call")
        within(calls.c / PUBLISH, 9.0, "functions of C a call")
        with Calls("transport/", "actors/") as calls:
            assert [result.get(timeout=1) for result in results] == [7] * PUBLISH
        within(calls.python / PUBLISH, 20.5, "functions a result that is there")
        within(calls.c / PUBLISH, 6.6, "functions of C a result that is there")


def test_a_result_is_learned_by_few_calls() -> None:
    book = ResultBook()
    known = [Known(envelope(number).id, State.SUCCESS, RESULT) for number in range(PUBLISH)]
    book.attached()
    book.expect(one.id for one in known)
    with Calls("transport/peer/") as calls:
        book.learn(known)
    within(calls.python / PUBLISH, 2.2, "functions a result that comes")
    within(calls.c / PUBLISH, 5.5, "functions of C a result that comes")


def test_calls_are_counted_where_they_are_made() -> None:
    with Calls("transport/") as calls:
        payload_msgpack.dumps([1])
    assert (calls.python, calls.c) != (0, 0)
    with Calls("actors/") as calls:
        payload_msgpack.dumps([1])
    assert (calls.python, calls.c) == (0, 0)
