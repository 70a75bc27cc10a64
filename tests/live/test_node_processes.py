"""A whole worker node in processes, against a broker that only listens and answers."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psutil
import pytest
import zmq

from greenroom.supervisor.cluster.config import NodeConfig
from greenroom.supervisor.pool.limits import PoolLimits
from greenroom.transport import verbs
from greenroom.transport.codec import BadFrame, decode_to_broker, encode
from greenroom.transport.verbs import ChildKind, FromBroker, Hello, Report, RingEntry, Spawn, Terminate, ToBroker

pytestmark = [pytest.mark.live, pytest.mark.skipif(sys.platform != "linux", reason="prctl and /proc")]

HERE = Path(__file__).parent
PATIENCE_SECONDS = 20.0
SECOND = 1_000_000
T = TypeVar("T")


class StubBroker:
    """A ROUTER that greets, pings, confirms reports unless told not to, and keeps all that it hears."""

    def __init__(self, port: int = 0) -> None:
        """Listen at this port, or at a free one."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.set(zmq.LINGER, 0)
        if port:
            self._socket.bind(f"tcp://127.0.0.1:{port}")
        self.port = port or self._socket.bind_to_random_port("tcp://127.0.0.1")
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.heard: queue.Queue[ToBroker] = queue.Queue()
        self.applies = True
        self._stop = threading.Event()
        self._peers: dict[str, bytes] = {}
        self._say: queue.Queue[FromBroker] = queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def say(self, verb: FromBroker) -> None:
        """Say something to the node that greeted last."""
        self._say.put(verb)

    def wait_for(self, kind: type[T]) -> T:
        """Return the next verb of this kind, passing over others."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            verb = self.heard.get(timeout=max(0.0, deadline - time.monotonic()))
            if isinstance(verb, kind):
                return verb

    def close(self) -> None:
        """Stop, as often as wanted."""
        self._stop.set()
        self._thread.join()
        self._socket.close()
        self._context.term()

    def _run(self) -> None:
        last, pinged = b"", 0.0
        while not self._stop.is_set():
            if self._socket.poll(10):
                last, *parts = self._socket.recv_multipart()
                said = decode_to_broker(parts)
                assert not isinstance(said, BadFrame)
                for verb in said:
                    self._hear(last, verb)
            while not self._say.empty():
                self._send(last, self._say.get())
            if last and time.monotonic() - pinged > 0.2:
                pinged = time.monotonic()
                self._send(last, verbs.Ping(1))

    def _hear(self, peer: bytes, verb: ToBroker) -> None:
        if isinstance(verb, Hello):
            self._send(peer, verbs.Welcome(verbs.PROTOCOL_VERSION, "stub", 1, 0, 1 << 20))
        elif isinstance(verb, Report) and self.applies:
            self._send(peer, verbs.Applied(verb.number))
        if not isinstance(verb, verbs.Pong):
            self.heard.put(verb)

    def _send(self, peer: bytes, verb: FromBroker) -> None:
        self._socket.send_multipart([peer, *encode([verb])])


class NodeRun:
    """A node in a process of its own, and the sockets on which its children take orders from the test."""

    def __init__(
        self, folder: Path, broker: str, body: str = "ready_child", *, concurrency: int = 1, **options: Any
    ) -> None:
        self.commands = folder / "commands"
        self.commands.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.commands))
        self._listener.listen(64)
        self._children: dict[int, socket.socket] = {}
        stderr: int | None = options.pop("stderr", None)
        settings = {"commands": str(self.commands), **options.pop("settings", {})}
        limits = PoolLimits(**options.pop("limits", {}))
        config = NodeConfig(
            broker=broker,
            name="test@here",
            body=f"node_puppet:{body}",
            path=[str(HERE), str(HERE.parent / "supervisor")],
            settings=settings,
            limits=limits,
            concurrency=concurrency,
        )
        reader, writer = os.pipe()
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder)}
        self.errors = folder / "stderr"
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "greenroom.supervisor.cluster.node", str(reader)],
                pass_fds=[reader],
                env=environment,
                stderr=errors if stderr is None else stderr,
            )
        os.close(reader)
        with os.fdopen(writer, "wb") as file:
            file.write(msgspec.msgpack.encode(config))
        self.folder = folder / "greenroom" / "nodes"

    def child(self, number: int) -> socket.socket:
        """Wait until this child has come."""
        while number not in self._children:
            ready, _, _ = select.select([self._listener], [], [], PATIENCE_SECONDS)
            assert ready, f"child {number} did not come; the node says: {self.errors.read_text()}"
            connection, _ = self._listener.accept()
            self._children[_answer(connection)] = connection
        return self._children[number]

    def ask(self, number: int, *word: Any) -> Any:
        connection = self.child(number)
        _send(connection, word)
        return _answer(connection)

    def tell(self, number: int, *word: Any) -> None:
        _send(self.child(number), word)

    def pid(self, number: int) -> int:
        return int(self.ask(number, "who")["pid"])

    def spawner(self, number: int = 1) -> int:
        return int(self.ask(number, "who")["parent"])

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def exit_code(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def pages(self) -> list[Path]:
        return sorted(self.folder.glob("*/*.page"))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._listener.close()
        for connection in self._children.values():
            connection.close()


def _send(connection: socket.socket, word: Any) -> None:
    body = msgspec.msgpack.encode(word)
    connection.sendall(len(body).to_bytes(4, "big") + body)


def _answer(connection: socket.socket) -> Any:
    connection.settimeout(PATIENCE_SECONDS)
    length = int.from_bytes(connection.recv(4, socket.MSG_WAITALL), "big")
    return msgspec.msgpack.decode(connection.recv(length, socket.MSG_WAITALL))


def wait_until(condition: Callable[[], bool], within: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be in time"
        select.select([], [], [], 0.005)


def is_running(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def assert_gone(*pids: int, within: float = 2.0) -> None:
    wait_until(lambda: not any(is_running(pid) for pid in pids), within)


@pytest.fixture
def broker() -> Iterator[StubBroker]:
    broker = StubBroker()
    yield broker
    broker.close()


@pytest.fixture
def start(tmp_path: Path, broker: StubBroker) -> Iterator[Callable[..., NodeRun]]:
    nodes: list[NodeRun] = []

    def start(*arguments: Any, **options: Any) -> NodeRun:
        node = NodeRun(tmp_path, broker.address, *arguments, **options)
        nodes.append(node)
        return node

    yield start
    for node in nodes:
        node.close()


Start = Callable[..., NodeRun]

# ---- at work ----


def test_a_node_greets_as_such_and_says_goodbye_after_a_warm_stop(broker: StubBroker, start: Start) -> None:
    node = start(concurrency=2)
    hello = broker.wait_for(Hello)
    assert (hello.role, hello.node) == (verbs.Role.NODE, "test@here")
    assert hello.pid == node.process.pid
    node.child(1)
    node.child(2)
    node.signal(signal.SIGTERM)
    broker.wait_for(verbs.Goodbye)
    assert node.exit_code() == 0
    assert node.pages() == []
    assert list(node.folder.iterdir()) == []


def test_d19_the_broker_is_stamped_as_heard_into_the_pages(broker: StubBroker, start: Start) -> None:
    node = start()
    wait_until(lambda: node.ask(1, "heard") > 0)
    first = node.ask(1, "heard")
    wait_until(lambda: node.ask(1, "heard") > first)


def test_d14_a_killed_child_is_reported_with_its_evidence_and_replaced(broker: StubBroker, start: Start) -> None:
    node = start()
    hello = broker.wait_for(Hello)
    node.ask(1, "started", 71, 5)
    node.ask(1, "finished")
    node.ask(1, "started", 72, 6)
    pid = node.pid(1)
    before = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    report = broker.wait_for(Report)
    assert time.monotonic() - before < 1.0
    assert (report.session, report.pid, report.signal, report.exit_code) == (f"{hello.session}/1", pid, 9, None)
    assert report.ring == [RingEntry(71, 5, True), RingEntry(72, 6, False)]
    assert not report.orderly
    assert report.max_rss_kib > 1000
    assert node.pid(2) != pid
    wait_until(lambda: len(node.pages()) == 1)


@pytest.mark.parametrize(
    ("word", "exit_code", "number"), [(("os_exit", 3), 3, 0), (("sys_exit", 0), 0, 0), (("kill", 11), None, 11)]
)
def test_s15_exit_codes_and_signals_are_reported(
    broker: StubBroker, start: Start, word: tuple[Any, ...], exit_code: int | None, number: int
) -> None:
    node = start()
    node.ask(1, "started", 1, 1)
    node.tell(1, *word)
    report = broker.wait_for(Report)
    assert (report.exit_code, report.signal, report.orderly) == (exit_code, number, False)


def test_a_report_is_said_again_until_it_is_applied_and_only_then_is_its_page_removed(
    broker: StubBroker, start: Start
) -> None:
    broker.applies = False
    node = start()
    node.ask(1, "started", 1, 1)
    node.tell(1, "kill", 9)
    first = broker.wait_for(Report)
    node.child(2)
    assert len(node.pages()) == 2
    broker.close()
    again = StubBroker(broker.port)
    try:
        second = again.wait_for(Report)
        assert (second.number, second.session) == (first.number, first.session)
        wait_until(lambda: len(node.pages()) == 1)
        node.signal(signal.SIGTERM)
        assert node.exit_code() == 0
    finally:
        again.close()


def test_d25_children_for_suspects_and_for_actors_come_when_the_broker_asks(broker: StubBroker, start: Start) -> None:
    node = start()
    node.child(1)
    broker.say(Spawn(ChildKind.QUARANTINE, 1))
    node.child(2)
    broker.say(Spawn(ChildKind.ACTORS, 1))
    node.child(3)
    broker.say(Spawn(ChildKind.QUARANTINE, 1))
    os.kill(node.pid(2), signal.SIGKILL)
    # Its successor has the next number: the second word asked for nothing new.
    node.child(4)


def test_s16_a_revoke_with_terminate_ends_the_child_that_runs_the_message(broker: StubBroker, start: Start) -> None:
    node = start()
    session = broker.wait_for(Hello).session
    node.ask(1, "started", 8, 2)
    broker.say(Terminate(f"{session}/1", 8, int(signal.SIGTERM)))
    report = broker.wait_for(Report)
    assert (report.signal, report.terminated) == (signal.SIGTERM, [8])


def test_a_revoke_of_a_message_that_is_over_ends_nobody(broker: StubBroker, start: Start) -> None:
    node = start()
    session = broker.wait_for(Hello).session
    node.ask(1, "started", 8, 2)
    node.ask(1, "finished")
    broker.say(Terminate(f"{session}/1", 8, int(signal.SIGTERM)))
    node.ask(1, "started", 9, 2)
    broker.say(Terminate(f"{session}/1", 9, int(signal.SIGTERM)))
    assert broker.wait_for(Report).terminated == [9]


def test_a_child_past_its_hard_limit_is_killed_also_if_it_ignores_sigterm_and_fills_stderr(
    broker: StubBroker, start: Start
) -> None:
    reader, writer = os.pipe()  # nobody reads it
    try:
        node = start(stderr=writer)
        grandchild = node.ask(1, "child")
        node.ask(1, "ignore", int(signal.SIGTERM))
        node.ask(1, "started", 4, 1)
        node.tell(1, "thread", "fill_stderr")
        node.tell(1, "limited", 4, 1, SECOND // 10)
        report = broker.wait_for(Report)
        assert (report.signal, report.timed_out) == (signal.SIGKILL, [4])
        assert_gone(grandchild)
        node.child(2)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_body_that_ended_in_time_is_no_reason_to_kill(broker: StubBroker, start: Start) -> None:
    node = start()
    node.ask(1, "started", 4, 1)
    # The word of its end never comes; the page has it.
    node.ask(1, "finished")
    node.ask(1, "limited", 4, 1, SECOND // 100)
    node.ask(1, "started", 5, 1)
    node.ask(1, "limited", 5, 1, SECOND // 5)
    assert broker.wait_for(Report).timed_out == [5]


def test_recycling_replaces_a_child_that_leaves_and_reports_it_as_orderly(broker: StubBroker, start: Start) -> None:
    node = start()
    node.tell(1, "leave")
    report = broker.wait_for(Report)
    assert (report.exit_code, report.orderly) == (0, True)
    node.child(2)


def test_hup_replaces_every_child_by_one_of_a_new_spawner(broker: StubBroker, start: Start) -> None:
    node = start(concurrency=2)
    old = node.spawner(1)
    node.child(2)
    node.signal(signal.SIGHUP)
    first, second = node.spawner(3), node.spawner(4)
    assert first == second != old
    assert {broker.wait_for(Report).orderly, broker.wait_for(Report).orderly} == {True}
    assert_gone(old)


def test_ttin_and_ttou_grow_and_shrink_the_pool(broker: StubBroker, start: Start) -> None:
    node = start()
    node.child(1)
    node.signal(signal.SIGTTIN)
    node.child(2)
    node.signal(signal.SIGTTOU)
    assert broker.wait_for(Report).orderly


# ---- the ways to stop ----


def test_quit_ends_what_runs_without_blame(broker: StubBroker, start: Start) -> None:
    node = start(settings={"stubborn": True}, limits={"cold_grace": SECOND // 10})
    node.ask(1, "started", 3, 1)
    node.signal(signal.SIGQUIT)
    report = broker.wait_for(Report)
    assert (report.signal, report.orderly) == (signal.SIGTERM, True)
    assert report.ring == [RingEntry(3, 1, False)]
    assert node.exit_code() == 0


def test_a_second_quit_kills(broker: StubBroker, start: Start) -> None:
    node = start(settings={"stubborn": True}, limits={"cold_grace": 60 * SECOND})
    node.ask(1, "ignore", int(signal.SIGTERM))
    node.signal(signal.SIGQUIT)
    node.ask(1, "who")
    node.signal(signal.SIGQUIT)
    report = broker.wait_for(Report)
    assert (report.signal, report.orderly) == (signal.SIGKILL, True)
    assert node.exit_code() == 4


def test_a_stop_while_no_broker_is_there_leaves_the_pages_for_the_next_node(broker: StubBroker, start: Start) -> None:
    node = start()
    session = broker.wait_for(Hello).session
    node.ask(1, "started", 3, 1)
    broker.applies = False
    node.tell(1, "kill", 9)
    broker.wait_for(Report)
    node.child(2)
    node.process.kill()
    node.process.wait()
    assert_gone(node.process.pid)
    broker.applies = True
    start()
    reports = [broker.wait_for(Report), broker.wait_for(Report)]
    assert [report.session for report in reports] == [f"{session}/1", f"{session}/2"]
    assert all(report.node_lost for report in reports)
    assert reports[0].ring == [RingEntry(3, 1, False)]
    wait_until(lambda: not (node.folder / session).exists())


def test_an_application_that_cannot_be_imported_is_told_once_and_ends_the_worker(start: Start) -> None:
    node = start("broken_child", concurrency=3)
    assert node.exit_code() == 3
    assert node.errors.read_text().count("Traceback: shop") == 1


def test_children_that_never_start_are_no_fork_loop(start: Start) -> None:
    node = start("crashing_child", limits={"start_failures_max": 2})
    before = time.monotonic()
    assert node.exit_code() == 1
    assert time.monotonic() - before < 5.0
    assert "more than 2 times" in node.errors.read_text()


# ---- nothing stays behind ----


def family(node: NodeRun) -> list[int]:
    words = ("child", "detached_child", "daemon", "plain_fork")
    return [node.pid(1), *(int(node.ask(1, word)) for word in words)]


def test_s13f_nothing_outlives_the_parent(broker: StubBroker, start: Start) -> None:
    node = start()
    pids = [*family(node), node.spawner()]
    # A SIGKILL to the parent's whole process group leaves the spawner, to end the rest.
    assert os.getpgid(pids[-1]) == pids[-1]
    node.process.kill()
    assert_gone(*pids)


def test_s13f_nothing_outlives_the_spawner_and_the_pool_starts_anew(broker: StubBroker, start: Start) -> None:
    node = start()
    node.ask(1, "started", 6, 1)
    pids, spawner = family(node), node.spawner()
    os.kill(spawner, signal.SIGKILL)
    report = broker.wait_for(Report)
    assert (report.signal, report.ring) == (signal.SIGKILL, [RingEntry(6, 1, False)])
    assert_gone(*pids)
    assert node.spawner(2) != spawner


def test_s13f_nothing_outlives_a_child(broker: StubBroker, start: Start) -> None:
    node = start()
    pids = family(node)
    os.kill(pids[0], signal.SIGKILL)
    assert_gone(*pids)
    node.child(2)
