"""The client on real sockets, against a real broker: what was promised is kept, or broken in words and in time."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, cast

import msgspec
import pytest
import zmq

from greenroom.transport import codec
from greenroom.transport.broker.settings import BrokerSettings
from greenroom.transport.clock import system_now
from greenroom.transport.errors import BrokerUnavailable, MailboxFull, NotAllowed, OperationalError, UnknownOutcome
from greenroom.transport.message import Envelope, Flag, Outcome, Result, State
from greenroom.transport.peer import contract
from greenroom.transport.peer.attachment import (
    Attached,
    Attachment,
    CloseLink,
    Effect,
    Heard,
    LinkOpened,
    OpenLink,
    Passed,
    Start,
    Transmit,
)
from greenroom.transport.peer.client import RequestRefused
from greenroom.transport.requests import Declare, Mailboxes, StatusRequest
from greenroom.transport.store.sqlite import SqliteStore
from greenroom.transport.verbs import Attach, Deliver, Known, Op, Role, Settle, TaskPolicy
from greenroom.transport.wire import client as client_module
from greenroom.transport.wire.client import Client
from greenroom.transport.wire.link import Link

if TYPE_CHECKING:
    from tests.live.wire.conftest import Eventually, StartBroker

pytestmark = pytest.mark.live


def envelope(id: str, body: bytes = b"", *, watched: bool = False) -> Envelope:
    return Envelope(id, "shop.add", "msgpack", body, flags=Flag.WATCHED if watched else 0)


def envelopes(prefix: str, count: int, *, watched: bool = False) -> list[Envelope]:
    return [envelope(f"{prefix}-{number}", watched=watched) for number in range(count)]


def keeps_the_contract(client: Client) -> contract.Client:
    return client


MakeClient = Callable[..., Client]


@pytest.fixture
def make_client() -> Iterator[MakeClient]:
    clients: list[Client] = []

    def make(address: str | list[str], *, connect_timeout: float = 4.0, token: bytes | None = None) -> Client:
        client = Client(address, origin="tests", connect_timeout=connect_timeout, token=token)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


class PuppetWorker:
    """A child that settles whatever it is given with a result that names it, until told to stop."""

    def __init__(self, address: str, mailboxes: Sequence[str]) -> None:
        self._attachment = Attachment(
            role=Role.CHILD, node="celery@tests", session=f"{os.urandom(8).hex()}/1", addresses=[address]
        )
        self._mailboxes = list(mailboxes)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._link: Link | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> PuppetWorker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        self._context.destroy(linger=0)

    def _run(self) -> None:
        self._act(self._attachment.apply(Start(), system_now()))
        while not self._stop.is_set():
            link = self._link
            assert link is not None
            for message in link.receive():
                verbs = codec.decode_from_broker(message)
                self._act(self._attachment.apply(Heard(self._attachment.link, verbs), system_now()))
            for message in self._attachment.flush():
                link.send(message)
            link.poll(20)

    def _act(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, OpenLink):
                self._link = Link(effect.address, self._context)
                self._act(self._attachment.apply(LinkOpened(effect.link, self._link.token), system_now()))
            elif isinstance(effect, Transmit):
                assert self._link is not None
                for message in effect.messages:
                    self._link.send(message)
            elif isinstance(effect, CloseLink):
                self._stop.set()
            elif isinstance(effect, Attached):
                policies = [TaskPolicy("shop.add", 0)]
                self._attachment.say(Attach(self._mailboxes, slots=64, window=64, policies=policies))
            elif isinstance(effect, Passed):
                for verb in effect.verbs:
                    if isinstance(verb, Deliver):
                        self._settle(verb)

    def _settle(self, deliver: Deliver) -> None:
        outcomes = [
            Outcome(
                delivery.position,
                deliver.lease,
                State.SUCCESS,
                runtime=100,
                result=msgspec.msgpack.encode(Result(State.SUCCESS, body=delivery.envelope.id.encode())),
            )
            for delivery in deliver.deliveries
        ]
        self._attachment.add(lambda number: Settle(number, outcomes))


def body_of(known: Known) -> str:
    return msgspec.msgpack.decode(known.result, type=Result).body.decode()


def accepted(client: Client) -> int:
    return int(client.request(Op.STATUS, StatusRequest()).accepted)


# --- publishing --------------------------------------------------------------------------------------------------


def test_a_publish_is_done_when_the_broker_has_accepted_it(start_broker: StartBroker, make_client: MakeClient) -> None:
    client = make_client(start_broker().address)
    client.publish("m", [envelope("1")], deadline_seconds=4).result(5)
    client.publish("m", []).result(0)
    client.publish("m", envelopes("bulk", 10_000)).result(10)
    assert accepted(client) == 10_001
    (mailbox,) = client.request(Op.MAILBOXES, Mailboxes(["m"])).mailboxes
    assert mailbox.depth == 10_001


def test_large_bodies_arrive_whole(start_broker: StartBroker, make_client: MakeClient) -> None:
    broker = start_broker()
    client = make_client(broker.address)
    bodies = [os.urandom(size) for size in (0, 16_383, 16_384, 300_000, 3_000_000)]
    client.publish("m", [envelope(str(n), body) for n, body in enumerate(bodies)]).result(10)
    assert accepted(client) == len(bodies)


def test_without_a_broker_a_call_fails_in_words_within_its_time(make_client: MakeClient) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        client = make_client(address, connect_timeout=0.4)
        begun = time.monotonic()
        with pytest.raises(BrokerUnavailable, match=f"{address} within 0.4 s.*greenroom broker"):
            client.publish("m", [envelope("1")]).result(5)
        with pytest.raises(BrokerUnavailable):
            client.request(Op.STATUS, StatusRequest())
        assert 0.7 < time.monotonic() - begun < 2.5


def test_the_wrong_token_is_refused_in_words(start_broker: StartBroker, make_client: MakeClient) -> None:
    client = make_client(start_broker().address, token=b"wrong")
    with pytest.raises(NotAllowed, match="token"):
        client.publish("m", [envelope("1")]).result(5)
    with pytest.raises(NotAllowed):
        client.result_future("x").result(5)


def test_a_full_mailbox_is_an_error_at_the_call_and_nothing_of_it_is_accepted(
    start_broker: StartBroker, make_client: MakeClient
) -> None:
    client = make_client(start_broker(settings=BrokerSettings(mailbox_max_messages=5)).address)
    client.publish("m", envelopes("a", 4)).result(5)
    with pytest.raises(MailboxFull, match="holds 4 messages, its limit is 5"):
        client.publish("m", envelopes("b", 2)).result(5)
    client.publish("m", envelopes("c", 1)).result(5)
    assert accepted(client) == 5


def test_what_is_told_without_waiting_is_heard_before_what_is_published_after_it(
    make_client: MakeClient, start_broker: StartBroker
) -> None:
    client = make_client(start_broker().address)
    for number in range(20):
        client.tell(Op.DECLARE, Declare(f"box {number}", max_messages=1))
        with pytest.raises(MailboxFull, match="its limit is 1"):
            client.publish(f"box {number}", [envelope(f"{number}a"), envelope(f"{number}b")]).result(5)
        client.publish(f"box {number}", [envelope(f"{number}c")]).result(5)


def test_a_mailbox_that_blocks_makes_callers_wait_until_there_is_room_or_their_time_is_up(
    start_broker: StartBroker, make_client: MakeClient
) -> None:
    settings = BrokerSettings(mailbox_max_messages=2, mailbox_on_full="block")
    broker = start_broker(settings=settings)
    client = make_client(broker.address)
    client.publish("m", envelopes("a", 2)).result(5)
    with pytest.raises(MailboxFull):
        client.publish("m", envelopes("b", 1), deadline_seconds=0.3).result(5)
    waiting = client.publish("m", envelopes("c", 1))
    assert not wait([waiting], 0.3).done
    with PuppetWorker(broker.address, ["m"]):
        waiting.result(10)


def test_who_waits_for_room_is_told_so_after_a_while_and_may_give_up(
    start_broker: StartBroker, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    settings = BrokerSettings(mailbox_max_messages=1, mailbox_on_full="block")
    client = make_client(start_broker(settings=settings).address)
    client.publish("m", envelopes("a", 1)).result(5)
    waiting = client.publish("m", envelopes("b", 1))
    with pytest.raises(TimeoutError):
        waiting.result(4.0)
    [said] = [record.getMessage() for record in caplog.records if record.name == "greenroom.client"]
    assert said.startswith(
        "mailbox_full: mailbox 'm' holds 1 message, its limit is 1, and 1 more came; a call has waited"
    )
    client.give_up(waiting)
    with pytest.raises(MailboxFull) as caught:
        waiting.result(5)
    assert caught.value.mailbox == "m"
    # Nothing is left for the exit of the process to wait for.
    client.flush(0.1)


def test_what_is_sent_in_the_background_is_confirmed_by_a_flush_which_raises_the_first_failure(
    start_broker: StartBroker, make_client: MakeClient
) -> None:
    client = make_client(start_broker(settings=BrokerSettings(mailbox_max_messages=50)).address)
    for message in envelopes("a", 50):
        client.publish_nowait("m", [message])
    client.flush(10)
    assert accepted(client) == 50
    client.publish_nowait("m", envelopes("b", 1))
    with pytest.raises(MailboxFull):
        client.flush(10)
    client.flush(10)


def test_d9_background_publishes_wait_for_room_and_are_bounded(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "ROOM_SECONDS", 0.2)
    client = make_client("tcp://127.0.0.1:1")
    big = [envelope("1", bytes(3 << 20))]
    client.publish_nowait("m", big)
    client.publish_nowait("m", big)
    with pytest.raises(OperationalError, match="unconfirmed"):
        client.publish_nowait("m", big)
    with pytest.raises(TimeoutError, match="2 of 2 publishes"):
        client.flush(0.1)


def test_eight_threads_and_an_event_loop_lose_nothing(start_broker: StartBroker, make_client: MakeClient) -> None:
    client = make_client(start_broker().address)
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for number in range(200):
                client.publish(f"m{number % 3}", [envelope(f"t{thread}-{number}")], deadline_seconds=20).result(25)
        except BaseException as error:
            failures.append(error)

    async def loop() -> None:
        async def one(number: int) -> None:
            await asyncio.wrap_future(client.publish("a", [envelope(f"a-{number}")], deadline_seconds=20))

        await asyncio.gather(*(one(number) for number in range(500)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    asyncio.run(loop())
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert accepted(client) == 8 * 200 + 500


# --- results -----------------------------------------------------------------------------------------------------


def test_results_come_to_who_published_and_to_who_asks(start_broker: StartBroker, make_client: MakeClient) -> None:
    broker = start_broker()
    client = make_client(broker.address)
    other = make_client(broker.address)
    ids = [f"r-{number}" for number in range(100)]
    before = client.result_futures(ids[:50])
    watching = other.result_futures(ids[50:])
    with PuppetWorker(broker.address, ["m"]):
        client.publish("m", envelopes("r", 100, watched=True)).result(5)
        assert [body_of(future.result(10)) for future in before] == ids[:50]
        assert [body_of(future.result(10)) for future in client.result_futures(ids)] == ids
        assert [body_of(future.result(10)) for future in watching] == ids[50:]
        # Settled before anybody asked: from the store's snapshot, and in one request.
        late = make_client(broker.address)
        assert [body_of(future.result(10)) for future in late.result_futures(ids)] == ids
        assert sorted(body_of(known) for known in late.known(ids)) == sorted(ids)
        assert late.known(["nobody"]) == []


def test_the_same_future_serves_everybody_who_asks_and_no_one_cancels_it_for_the_others(
    start_broker: StartBroker, make_client: MakeClient
) -> None:
    broker = start_broker()
    client = make_client(broker.address)

    async def give_up(future: Future[Known]) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(future), 0.05)

    future = client.result_future("s-0")
    asyncio.run(give_up(cast("Future[Known]", client.result_future("s-0"))))
    assert client.result_future("s-0") is future
    with PuppetWorker(broker.address, ["m"]):
        client.publish("m", envelopes("s", 1)).result(5)
        assert body_of(future.result(10)) == "s-0"


def test_callbacks_hear_of_a_result_and_a_failing_one_harms_nobody(
    start_broker: StartBroker, make_client: MakeClient, eventually: Eventually
) -> None:
    broker = start_broker()
    client = make_client(broker.address)
    heard: list[Known] = []

    def fail(known: Known) -> None:
        raise RuntimeError("a user's mistake")

    client.on_result("c-0", fail)
    client.on_result("c-0", heard.append)
    with PuppetWorker(broker.address, ["m"]):
        client.publish("m", envelopes("c", 1)).result(5)
        eventually(lambda: heard and heard[-1].state == State.SUCCESS)
    client.request(Op.STATUS, StatusRequest())


def test_unwatching_breaks_the_promise_in_words(start_broker: StartBroker, make_client: MakeClient) -> None:
    client = make_client(start_broker().address)
    future = client.result_future("never")
    client.unwatch("never")
    with pytest.raises(UnknownOutcome, match="never"):
        future.result(5)


def test_a_request_that_is_refused_raises_the_brokers_words(start_broker: StartBroker, make_client: MakeClient) -> None:
    client = make_client(start_broker().address)
    with pytest.raises(RequestRefused, match="perhaps"):
        client.request(Op.DECLARE, Declare("m", on_full="perhaps"))


# --- links that come and go --------------------------------------------------------------------------------------


def test_d3_a_broker_that_restarts_finds_the_same_client_and_nothing_is_lost_or_doubled(
    start_broker: StartBroker, make_client: MakeClient, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    first = start_broker(store=SqliteStore(data), data_folder=data)
    address = first.address
    client = make_client(address)
    client.publish("m", envelopes("before", 10)).result(5)
    watching = client.result_future("during-3")
    first.stop()
    during = [client.publish_nowait("m", [message]) for message in envelopes("during", 20)]
    second = start_broker(bind=[address], store=SqliteStore(data), data_folder=data)
    client.flush(15)
    assert all(future.exception() is None for future in during)
    (mailbox,) = client.request(Op.MAILBOXES, Mailboxes(["m"])).mailboxes
    assert mailbox.depth == 30
    with PuppetWorker(second.address, ["m"]):
        assert body_of(watching.result(10)) == "during-3"


def test_d6_a_broker_that_lost_its_memory_is_published_to_in_a_new_session(
    start_broker: StartBroker, make_client: MakeClient
) -> None:
    first = start_broker()
    client = make_client(first.address)
    for number in range(3):
        client.publish("m", [envelope(str(number))]).result(5)
    first.stop()
    start_broker(bind=[first.address])
    client.publish("m", [envelope("3")], deadline_seconds=10).result(15)
    assert accepted(client) == 1


def test_closing_breaks_what_is_open_and_a_later_call_begins_anew(
    start_broker: StartBroker, make_client: MakeClient
) -> None:
    client = make_client(start_broker().address)
    future = client.result_future("open")
    client.close()
    with pytest.raises(UnknownOutcome, match="closed"):
        future.result(5)
    client.publish("m", [envelope("1")]).result(5)


def test_several_addresses_are_tried_in_turn(start_broker: StartBroker, make_client: MakeClient) -> None:
    client = make_client(["tcp://127.0.0.1:1", start_broker().address])
    client.publish("m", [envelope("1")]).result(5)


# --- standing in ---------------------------------------------------------------------------------------------------


def test_a_caller_who_waits_alone_receives_the_answer_himself(
    start_broker: StartBroker, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(start_broker().address)
    client.publish("m", [envelope("first")]).result(5)
    completed_in: list[threading.Thread] = []
    set_result: Callable[[Future[object], object], None] = Future[object].set_result

    def noted(future: Future[object], value: object) -> None:
        completed_in.append(threading.current_thread())
        set_result(future, value)

    monkeypatch.setattr(Future, "set_result", noted)
    for number in range(20):
        client.publish("m", [envelope(str(number))]).result(5)
    assert completed_in.count(threading.current_thread()) >= 18


def test_an_interrupt_while_standing_in_breaks_the_promise_and_the_next_call_begins_anew(
    start_broker: StartBroker, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(start_broker().address)
    client.publish("m", [envelope("first")]).result(5)
    future = client.result_future("nobody")
    receive = Link.receive
    main = threading.current_thread()

    def interrupted(link: Link) -> list[list[bytes]]:
        if threading.current_thread() is main:
            raise KeyboardInterrupt
        return receive(link)

    with monkeypatch.context() as patch:
        patch.setattr(Link, "receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            future.result(5)
    with pytest.raises(UnknownOutcome, match="interrupted"):
        future.result(5)
    client.publish("m", [envelope("second")]).result(5)
    assert accepted(client) == 2


def test_the_thread_is_there_for_whoever_comes_after_one_who_stood_in_for_the_first_link(
    start_broker: StartBroker, make_client: MakeClient
) -> None:
    broker = start_broker()
    for number in range(30):
        client = make_client(broker.address)
        client.publish("m", [envelope(f"a{number}")]).result(5)
        # Waits by other means than the future's own, which call the thread if need be.
        waiting = client.publish("m", [envelope(f"b{number}")])
        assert not wait([waiting], 3).not_done


def test_who_does_not_wait_by_the_future_is_served_by_the_thread_at_once(
    start_broker: StartBroker, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So long a rest that nothing but a call can end it in time.
    monkeypatch.setattr("greenroom.transport.wire.stand_in.REST_MILLISECONDS", 60_000)
    broker = start_broker()
    client = make_client(broker.address)
    for number in range(3):
        client.publish("m", [envelope(f"a{number}")]).result(5)
        called: SimpleQueue[object] = SimpleQueue()
        client.publish("m", [envelope(f"b{number}")]).add_done_callback(called.put)
        called.get(timeout=5)
        client.publish("m", [envelope(f"c{number}")]).result(5)
        client.publish_nowait("m", [envelope(f"d{number}")])
        client.flush(5)
        client.publish("m", [envelope(f"e{number}")]).result(5)
        others = [threading.Thread(target=client.publish("m", [envelope(f"f{number}-{n}")]).result) for n in range(4)]
        for other in others:
            other.start()
        for other in others:
            other.join(5)
            assert not other.is_alive()
    client.publish("m", [envelope("last")]).result(5)
    broker.stop()
    start_broker(bind=[broker.address])
    client.publish("m", [envelope("again")], deadline_seconds=10).result(15)


# --- processes ---------------------------------------------------------------------------------------------------


def test_a_client_that_was_used_before_a_fork_works_on_both_sides(
    start_broker: StartBroker, make_client: MakeClient
) -> None:
    broker = start_broker()
    client = make_client(broker.address)
    client.publish("m", envelopes("before", 3)).result(5)
    program = (
        "import os, sys\n"
        "from greenroom.transport.message import Envelope\n"
        "from greenroom.transport.wire.client import Client\n"
        "client = Client(sys.argv[1], origin='forks')\n"
        "def publish(name, count):\n"
        "    for n in range(count):\n"
        "        client.publish('m', [Envelope(f'{name}-{n}', 't', 'msgpack', b'')], deadline_seconds=10).result(12)\n"
        "publish('parent-before', 5)\n"
        "client.result_future('pending')\n"
        "child = os.fork()\n"
        "publish('child' if child == 0 else 'parent', 50)\n"
        "if child:\n"
        "    _, status = os.waitpid(child, 0)\n"
        "    assert status == 0, status\n"
        "    client.publish('m', [Envelope('last', 't', 'msgpack', b'')]).result(5)\n"
        "    print('both')\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program, broker.address], capture_output=True, text=True, timeout=60, env=os.environ
    )
    assert (finished.returncode, finished.stdout) == (0, "both\n"), finished.stderr
    assert accepted(client) == 3 + 5 + 50 + 50 + 1


def test_what_was_sent_in_the_background_is_flushed_at_exit(start_broker: StartBroker, make_client: MakeClient) -> None:
    broker = start_broker()
    program = (
        "import sys\n"
        "from greenroom.transport.message import Envelope\n"
        "from greenroom.transport.wire.client import Client\n"
        "client = Client(sys.argv[1], origin='exits')\n"
        "for n in range(2000):\n"
        "    client.publish_nowait('m', [Envelope(f'{n}', 't', 'msgpack', b'')])\n"
    )
    subprocess.run([sys.executable, "-c", program, broker.address], check=True, timeout=60, env=os.environ)
    assert accepted(make_client(broker.address)) == 2000


def test_an_exit_without_a_broker_does_not_hang() -> None:
    program = (
        "from greenroom.transport.message import Envelope\n"
        "from greenroom.transport.wire import client as module\n"
        "module.EXIT_SECONDS = 0.3\n"
        "client = module.Client('tcp://127.0.0.1:1', origin='exits')\n"
        "client.publish_nowait('m', [Envelope('1', 't', 'msgpack', b'')])\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20, env=os.environ)
