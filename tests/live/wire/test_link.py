"""A link, used as its owners use it: by one thread, with another one that waits."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
import zmq

from greenroom.transport.wire.link import Link
from greenroom.transport.wire.wakeup import Wakeup

pytestmark = pytest.mark.live

ENOUGH = 10


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.term()


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of somebody who takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"


def unused() -> str:
    """An address that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def test_whoever_waits_at_a_link_is_not_hurt_when_another_thread_closes_it(
    context: zmq.Context[zmq.Socket[bytes]], silent: str
) -> None:
    link = Link(silent, context)
    wakeup = Wakeup()
    link.watch(wakeup.fileno())
    assert not link.pending()
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            while wakeup.fileno() not in link.wait(ENOUGH * 1000):
                pass
            link.wait(0)  # as one who comes to it after it was closed
        except BaseException as error:
            errors.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    link.close()
    wakeup.wake()
    waiting.join(ENOUGH)
    assert not waiting.is_alive()
    assert errors == []
    wakeup.close()


def test_a_wait_asks_nothing_of_the_sockets_and_who_is_on_duty_learns_of_the_end(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    link = Link(unused(), context)
    assert not link.pending()
    assert link.fileno() in link.wait(ENOUGH * 1000)
    assert not link.closed
    assert link.receive() == []
    assert link.closed
    assert link.wait(0) == []  # it does not tell again and again
    link.close()
