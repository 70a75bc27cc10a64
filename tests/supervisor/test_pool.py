"""The pool's driver where the system or a child's user code does what it should not. Its spawner is played."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from greenroom.actors.worker.control import ChildConfig, FromChild, Ready
from greenroom.supervisor.pool import pool as pool_module
from greenroom.supervisor.pool.channel import Channel
from greenroom.supervisor.pool.events import BrokerReachable, Bury, Fork, Notice, StartPool, Stop, StopAsked
from greenroom.supervisor.pool.limits import PoolLimits
from greenroom.supervisor.pool.machine import PoolMachine
from greenroom.supervisor.pool.orders import Answer, HasEnded, HasForked, SpawnerConfig, TakesOrders
from greenroom.supervisor.pool.pool import Evidence, Pool
from greenroom.supervisor.pool.spawner_link import SpawnerLink, SpawnerStartFailed
from greenroom.transport.clock import Now
from greenroom.transport.page import DamagedPage
from greenroom.transport.page_marks import Page

SECOND = 1_000_000
encode = msgspec.msgpack.Encoder().encode


class PlayedSpawner:
    """Takes the place of a `SpawnerLink`. The test has the other end of its socket, and of each child's pipe."""

    latest: PlayedSpawner
    #: Raised by the next fork.
    refuses: OSError | None = None

    def __init__(self, generation: int, _: SpawnerConfig) -> None:
        self.generation = generation
        self.pid = 0
        ours, self.other_end = socket.socketpair()
        self.channel = Channel(ours)
        self.children: dict[int, socket.socket] = {}
        self.killed = False
        PlayedSpawner.latest = self

    def fork(self, number: int, mark: str, config: bytes) -> Channel:
        refuses, PlayedSpawner.refuses = PlayedSpawner.refuses, None
        if refuses is not None:
            raise refuses
        ours, self.children[number] = socket.socketpair()
        self.children[number].setblocking(False)
        return Channel(ours)

    def answers(self) -> list[Answer]:
        return SpawnerLink.answers(self)  # type: ignore[arg-type]

    def signal(self, number: int, signal_number: int) -> None:
        return

    def kill(self) -> None:
        self.killed = True

    def close(self) -> None:
        self.channel.close()
        self.other_end.close()
        for child in self.children.values():
            child.close()


class Bench:
    """A pool with one child, and all that it says."""

    def __init__(self, folder: Path) -> None:
        self.boot = 1_000 * SECOND
        self.folder = folder
        self.notices: list[Notice] = []
        self.buried: list[tuple[Bury, Evidence]] = []
        self.selector = selectors.DefaultSelector()
        self.pool = Pool(
            PoolMachine(PoolLimits(concurrency=1)),
            self.selector,
            SpawnerConfig(control=-1, parent=0),
            child=self.config,
            bury=lambda end, evidence: self.buried.append((end, evidence)),
            notice=self.notices.append,
            ready=lambda ready: None,
            troubled=lambda troubled: None,
            clock=lambda: Now(self.boot, self.boot),
        )
        self.pool.tell(StartPool())
        self.pool.tell(BrokerReachable(True))

    def page(self, number: int) -> str:
        return str(self.folder / f"{number}.page")

    def config(self, fork: Fork) -> ChildConfig:
        return ChildConfig(
            app="x",
            broker="tcp://x",
            node="n@h",
            node_session="s",
            incarnation=1,
            number=fork.number,
            page=self.page(fork.number),
        )

    @property
    def spawner(self) -> PlayedSpawner:
        return PlayedSpawner.latest

    def listen(self) -> None:
        """Let the pool take in what was written to it."""
        for key, mask in self.selector.select(0):
            key.data(mask)

    def spawner_says(self, answer: Answer) -> None:
        encoded = encode(answer)
        self.spawner.other_end.sendall(len(encoded).to_bytes(4, "big") + encoded)
        self.listen()

    def child_says(self, number: int, word: FromChild) -> None:
        encoded = encode(word)
        self.spawner.children[number].sendall(len(encoded).to_bytes(4, "big") + encoded)
        self.listen()

    def comes_up(self, number: int) -> None:
        self.spawner_says(TakesOrders())
        self.spawner_says(HasForked(number, 10_000_000 + number))
        self.child_says(number, Ready(["tasks.add"]))

    def said(self, kind: str) -> list[str]:
        return [notice.text for notice in self.notices if notice.kind == kind]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(pool_module, "SpawnerLink", PlayedSpawner)
    bench = Bench(tmp_path)
    yield bench
    bench.pool.close()
    bench.selector.close()


def hears_the_end(child: socket.socket) -> bool:
    try:
        return child.recv(1) == b""
    except BlockingIOError:
        return False


def test_a_child_that_gets_no_pipe_is_a_failed_start_and_tried_again(bench: Bench) -> None:
    bench.comes_up(1)
    PlayedSpawner.refuses = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    bench.spawner_says(HasEnded(1, None, int(signal.SIGKILL), False, 0))
    (text,) = bench.said("start_failed")
    assert "Too many open files" in text
    wake = bench.pool.wake_at()
    assert wake is not None
    bench.boot = wake
    bench.pool.tick()
    assert 3 in bench.spawner.children


def test_a_spawner_that_gets_no_socket_has_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket, "socketpair", refuse)
    with pytest.raises(SpawnerStartFailed, match="Too many open files"):
        SpawnerLink(1, SpawnerConfig(control=-1, parent=0))


@pytest.mark.parametrize("junk", [b"\0\0\0\0", b"print this\n"])
def test_a_child_whose_pipe_was_written_into_sees_its_end_and_holds_up_no_stop(bench: Bench, junk: bytes) -> None:
    bench.comes_up(1)
    child = bench.spawner.children[1]
    assert not hears_the_end(child)
    child.sendall(junk)
    bench.listen()
    assert bench.said("bad_word")
    assert hears_the_end(child), "or it would never learn that it should stop"
    bench.pool.tell(StopAsked(Stop.WARM))
    bench.spawner_says(HasEnded(1, 4, 0, False, 0))
    assert bench.pool.over is not None


def test_a_spawner_that_nobody_understands_is_killed(bench: Bench) -> None:
    bench.comes_up(1)
    bench.spawner.other_end.sendall(b"\0\0\0\1\xc0")
    bench.listen()
    assert bench.said("bad_word")
    assert bench.spawner.killed


def test_the_pipe_of_a_dead_child_is_closed_before_its_page_is_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a descriptor is free for that, where there are no others."""
    bench.comes_up(1)
    child = bench.spawner.children[1]
    closed: list[bool] = []

    def read(path: str) -> DamagedPage:
        closed.append(hears_the_end(child))
        return DamagedPage(path, "it cannot be read")

    monkeypatch.setattr(pool_module, "read_page", read)
    bench.spawner_says(HasEnded(1, None, int(signal.SIGKILL), False, 0))
    assert closed == [True]
    assert len(bench.buried) == 1


def test_d19_a_page_that_could_not_be_opened_at_first_is_stamped_later(bench: Bench) -> None:
    bench.comes_up(1)
    page = Page.create(bench.page(1), session="s/1", node="n@h", incarnation=1, runners=1, heard=0)
    bench.pool.broker_heard(7 * SECOND)
    assert page.heard() == 7 * SECOND
    page.close()
