"""Wrong calls, bad messages and noise: each has a clear error, and changes nothing for the others.

One broker on a TCP port, one node.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uuid_utils
import zmq

from greenroom import App, BrokerUnavailable, EncodeError, MailboxFull, NotRegistered, OperationalError
from greenroom import TimeoutError as ResultTimeout
from greenroom.actors.errors import DecodeError
from greenroom.transport.errors import NotAllowed
from greenroom.transport.message import Envelope, Flag
from greenroom.transport.requests import PurgeMailbox
from greenroom.transport.verbs import Op

from . import crashes
from .cluster import Cluster

pytestmark = pytest.mark.live

RESULT_SECONDS = 30.0
MAILBOX_MAX = 50
SEED = 20


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(crashes.app, tcp=True) as cluster:
        cluster.start_broker("--max-messages", str(MAILBOX_MAX))
        cluster.start_worker("crashes", "-c", "1")
        yield cluster


@pytest.fixture(autouse=True)
def nothing_changed(cluster: Cluster) -> Iterator[None]:
    """After each of these tests the same broker and the same child serve as before."""
    before = cluster.status()
    child = cluster.children(cluster.workers[0])[0].pid
    yield
    assert crashes.whoami.delay().get(timeout=RESULT_SECONDS) == child
    after = cluster.status()
    assert after.epoch == before.epoch
    assert after.dead == before.dead == 0
    assert cluster.broker is not None
    assert cluster.broker.running


# ---- calls ----


def test_wrong_arguments_are_a_type_error_at_the_call_and_nothing_is_sent(cluster: Cluster) -> None:
    accepted = cluster.status().accepted
    task: Any = crashes.count
    with pytest.raises(TypeError, match="run"):
        task.delay()
    with pytest.raises(TypeError, match="surplus"):
        task.delay("run", surplus=1)
    assert cluster.status().accepted == accepted


def test_an_argument_that_cannot_be_sent_is_named_by_its_path_and_nothing_is_sent(cluster: Cluster) -> None:
    accepted = cluster.status().accepted
    task: Any = crashes.count
    with pytest.raises(EncodeError, match=r"args\[0\]\['deep'\]\[1\]") as caught:
        task.delay({"deep": [0, object()]})
    assert caught.value.path == "args[0]['deep'][1]"
    assert cluster.status().accepted == accepted


def test_no_broker_is_a_typed_error_within_the_connection_timeout() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with App("alone", broker=address, set_as_current=False, broker_connection_timeout=1.0) as app:
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable, match=address) as caught:
            app.send_task("whoami")
        assert 0.9 < time.monotonic() - began < 2.0
        assert isinstance(caught.value, OperationalError)
        assert "greenroom broker" in str(caught.value)
        began = time.monotonic()
        with pytest.raises(ResultTimeout):
            app.AsyncResult("some-id").get(timeout=0.5)
        assert time.monotonic() - began < 1.5


def test_a_full_mailbox_refuses_the_call_and_takes_it_again_when_there_is_room(cluster: Cluster) -> None:
    # Nobody serves it.
    crashes.whoami.send_many([()] * MAILBOX_MAX, queue="full")
    with pytest.raises(MailboxFull, match="full") as caught:
        crashes.whoami.apply_async(queue="full")
    assert caught.value.mailbox == "full"
    assert str(MAILBOX_MAX) in str(caught.value)
    # A batch is accepted whole or not at all.
    with pytest.raises(MailboxFull):
        crashes.whoami.send_many([()] * 2, queue="full")
    assert cluster.mailbox("full").depth == MAILBOX_MAX
    cluster.client.request(Op.PURGE, PurgeMailbox("full"))
    crashes.whoami.apply_async(queue="full")
    assert cluster.mailbox("full").depth == 1
    cluster.client.request(Op.PURGE, PurgeMailbox("full"))


# ---- messages ----


def test_an_unknown_task_is_a_failure_that_names_it(cluster: Cluster) -> None:
    result = crashes.app.send_task("no.such.task", (1, 2))
    error = result.get(timeout=RESULT_SECONDS, propagate=False)
    assert result.state == "FAILURE"
    assert isinstance(error, NotRegistered)
    assert "no.such.task" in str(error)
    cluster.wait_until_empty()


@pytest.mark.parametrize(
    ("content", "body"),
    [
        ("msgpack", b"\xc1\xc1\xc1"),
        ("msgpack", b""),
        ("msgpack", b"\x93\x01\x02\x03"),
        ("json", b"{"),
        ("msgpack+gzip", b"no gzip"),
        ("pickle", b"\x80\x04."),
        ("nothing-known", b"x"),
        ("msgpack", b"\xdd\xff\xff\xff\xff"),
        ("msgpack", b"\x91" * 5000),
    ],
)
def test_a_body_that_cannot_be_decoded_is_a_failure_in_words(cluster: Cluster, content: str, body: bytes) -> None:
    envelope = Envelope(id=str(uuid_utils.uuid7()), name="whoami", content=content, body=body, flags=int(Flag.WATCHED))
    cluster.client.publish("celery", [envelope]).result(RESULT_SECONDS)
    result = crashes.app.AsyncResult(envelope.id)
    error = result.get(timeout=RESULT_SECONDS, propagate=False)
    assert result.state == "FAILURE"
    assert isinstance(error, DecodeError) or "signed" in str(error), repr(error)
    assert str(error)
    cluster.wait_until_empty()


# ---- noise ----


def test_random_bytes_on_the_port_are_dropped(cluster: Cluster) -> None:
    random_bytes = random.Random(SEED)
    host, port = "127.0.0.1", int(cluster.address.rpartition(":")[2])
    for size in (1, 9, 64, 1_000, 65_536):
        try:
            with socket.create_connection((host, port), timeout=RESULT_SECONDS) as connection:
                connection.sendall(random_bytes.randbytes(size))
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):
                    pass
        except TimeoutError:
            pytest.fail(f"the broker kept a connection that had sent {size} random bytes")
        except OSError:
            # It may hang up at any byte.
            continue


def frames(make: Callable[[random.Random], list[bytes]]) -> Any:
    return pytest.param(make, id=make.__name__)


def noise(random_bytes: random.Random) -> list[bytes]:
    """Parts without any meaning."""
    return [random_bytes.randbytes(random_bytes.randrange(200)) for _ in range(random_bytes.randrange(1, 5))]


def lies(random_bytes: random.Random) -> list[bytes]:
    """Headers of arrays, maps and strings that promise more than comes."""
    return [bytes([random_bytes.choice([0xDD, 0xDF, 0xDB, 0xC6]), 0xFF, 0xFF, 0xFF, 0xFF]) + b"\x90" * 50]


def depths(random_bytes: random.Random) -> list[bytes]:
    """Arrays in arrays."""
    return [b"\x91" * random_bytes.randrange(100, 100_000)]


@pytest.mark.parametrize("make", [frames(noise), frames(lies), frames(depths)])
def test_frames_without_meaning_over_zmtp_change_nothing(
    cluster: Cluster, make: Callable[[random.Random], list[bytes]]
) -> None:
    random_bytes = random.Random(SEED)
    with zmq.Context() as context:
        for _ in range(30):
            with context.socket(zmq.DEALER) as dealer:
                dealer.set(zmq.LINGER, 500)
                dealer.connect(cluster.address)
                for _ in range(4):
                    dealer.send_multipart(make(random_bytes) or [b""])
    assert crashes.whoami.delay().get(timeout=RESULT_SECONDS) != os.getpid()


def test_a_hello_without_the_token_is_refused(cluster: Cluster, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with (
        App("stranger", broker=cluster.address, set_as_current=False) as app,
        pytest.raises(NotAllowed, match="token"),
    ):
        app.send_task("whoami")
