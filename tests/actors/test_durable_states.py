"""Durable actors in a child: what is settled with a message, and what the next instance begins with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from greenroom.actors.actor import Actor, methods_of
from greenroom.actors.app import App
from greenroom.actors.bodies import Content, pack_call
from greenroom.actors.errors import ActorFailed, SoftTimeLimitExceeded
from greenroom.actors.results.failure import rebuild
from greenroom.actors.worker import states
from greenroom.actors.worker.events import Held
from greenroom.actors.worker.execute import Executor
from greenroom.actors.worker.hosting import Hosting
from greenroom.actors.worker.outcomes import OUTCOME_BYTES_MAX, Outcomes
from greenroom.transport.clock import Now
from greenroom.transport.errors import DecodeError, EncodeError, OperationalError
from greenroom.transport.message import Delivery, Envelope, Kind, More, Outcome, Result, State
from greenroom.transport.requests import FetchedState
from greenroom.transport.verbs import Reply

PLAIN = Content()
MIA = "actor:Account:mia"


class Account(Actor):
    durable = True

    def __init__(self) -> None:
        self.balance = Decimal(0)
        self.log: list[str] = []

    def on_start(self) -> None:
        self.began_with = self.balance

    def snapshot(self) -> Any:
        return {"balance": self.balance}

    def restore(self, state: Any) -> None:
        self.balance = state["balance"]

    def deposit(self, amount: int) -> Decimal:
        self.balance += amount
        if amount < 0:
            raise ValueError("a deposit is not negative")
        return self.balance

    async def deposit_slowly(self, amount: int) -> Decimal:
        self.balance += amount
        await asyncio.sleep(0)
        if amount < 0:
            raise ValueError("a deposit is not negative")
        return self.balance

    def read(self) -> Decimal:
        return self.balance

    def began(self) -> Decimal:
        return self.began_with

    def unsendable(self) -> object:
        self.balance += 1
        return object()

    def leave(self) -> None:
        raise SystemExit(3)


class Plain(Actor):
    """Its state is its attributes."""

    durable = True

    def __init__(self) -> None:
        self.items: list[Any] = []

    def add(self, item: Any) -> int:
        self.items.append(item)
        return len(self.items)

    def fill(self, size: int) -> None:
        self.items = [b"x" * size]

    def hold(self) -> None:
        self.items = [object()]

    def answer(self, size: int) -> bytes:
        self.items.append(size)
        return b"x" * size


class Nobody:
    def progress(self, held: Held, result: bytes) -> None: ...

    def begin(self, held: Held, soft: int, hard: int) -> None: ...

    def end(self, held: Held) -> None: ...


class House:
    """A child that hosts, and the broker's store beside it."""

    def __init__(self, kept: dict[str, bytes] | None = None, **options: Any) -> None:
        self.kept = {} if kept is None else kept
        self.asked: list[str] = []
        app = App("house", set_as_current=False)
        self.executor = Executor(app, Outcomes("celery@here", lambda: 5), Nobody(), Nobody(), hostname="celery@here")
        classes = {"Account": Account, "Plain": Plain}
        self.hosting = Hosting(self.executor, classes, lambda: Now(0, 5), fetch=self.fetch, **options)
        self.executor.others[Kind.ACTOR] = self.hosting

    def fetch(self, mailbox: str) -> Future[bytes]:
        self.asked.append(mailbox)
        told: Future[bytes] = Future()
        told.set_result(self.kept.get(mailbox, b""))
        return told

    def held(self, method: str, *args: Any, since: int = 7, actor: str = MIA) -> Held:
        content, body = pack_call(args, {}, Content(), "id")
        envelope = Envelope("id", method, content, body, kind=Kind.ACTOR, more=More(actor_class=actor.split(":")[1]))
        return Held(Delivery(1, envelope, actor), 9, since=since)

    def send(self, method: str, *args: Any, **options: Any) -> Outcome:
        """Handle a message; what is settled with it is kept, as a broker does."""
        held = self.held(method, *args, **options)
        done = self.executor.run(held)
        assert isinstance(done, Outcome)
        if done.snapshot is not None:
            self.kept[held.delivery.mailbox] = done.snapshot
        return done

    def balance(self) -> Any:
        return states.unpack(self.kept[MIA], MIA, accept=("msgpack",), key=None)["balance"]


def error_of(outcome: Outcome) -> Exception:
    assert outcome.state == State.FAILURE
    failure = msgspec.msgpack.decode(outcome.result, type=Result).failure
    assert failure is not None
    return rebuild(failure)


def text_of(outcome: Outcome) -> str:
    error = error_of(outcome)
    return f"{error} {error.__cause__}"


def test_a_message_that_changed_the_state_is_settled_with_it_and_one_that_did_not_is_not() -> None:
    house = House()
    assert house.send("deposit", 100).snapshot is not None
    assert house.balance() == 100
    assert house.send("read").snapshot is None
    assert house.send("deposit", 50).snapshot is not None
    assert house.balance() == 150
    assert house.asked == [MIA]


def test_another_child_begins_with_what_was_kept_before_it_starts() -> None:
    house = House()
    house.send("deposit", 100)
    other = House(house.kept)
    other.send("deposit", 1, since=11)
    assert other.balance() == 101
    assert other.send("began", since=11).snapshot is None
    assert other.hosting._instances[MIA].instance.began_with == 100  # pyright: ignore[reportPrivateUsage]


def test_a_message_that_raises_leaves_no_half_of_a_change() -> None:
    house = House()
    house.send("deposit", 100)
    crashed = house.send("deposit", -30)
    assert isinstance(error_of(crashed), ActorFailed)
    assert crashed.snapshot is None
    house.send("deposit", 1)
    assert house.balance() == 101
    # It knew what the state was.
    assert house.asked == [MIA]


def test_in_a_loop_it_is_the_same() -> None:
    house = House()

    def run(held: Held) -> Outcome:
        return asyncio.run(house.hosting.run_async(held))

    first = run(house.held("deposit_slowly", 100))
    assert first.snapshot is not None
    assert run(house.held("deposit_slowly", -30)).snapshot is None
    last = run(house.held("deposit", 1))
    assert last.snapshot is not None
    assert states.unpack(last.snapshot, MIA, accept=("msgpack",), key=None) == {"balance": 101}
    assert house.asked == [MIA]


def test_who_had_the_actor_before_asks_what_became_of_it_meanwhile() -> None:
    house = House()
    house.send("deposit", 100)
    house.kept[MIA] = states.pack({"balance": Decimal(7)}, MIA, PLAIN)
    house.send("deposit", 1, since=20)
    assert house.balance() == 8
    assert house.asked == [MIA, MIA]
    # What it had run since an older lease was not settled, and is of no use any more.
    house.kept[MIA] = states.pack({"balance": Decimal(1000)}, MIA, PLAIN)
    house.send("deposit", 1, since=30)
    assert house.balance() == 1001


def test_an_instance_goes_on_where_nobody_else_has_changed_the_state() -> None:
    house = House()
    house.send("deposit", 100)
    instance = house.hosting._instances[MIA].instance  # pyright: ignore[reportPrivateUsage]
    house.send("deposit", 1, since=20)
    assert house.hosting._instances[MIA].instance is instance  # pyright: ignore[reportPrivateUsage]
    assert house.balance() == 101


def test_an_actor_that_made_room_for_others_is_asked_for_again() -> None:
    house = House(instances_max=1)
    house.send("deposit", 100)
    house.send("add", "x", actor="actor:Plain:a")
    house.send("deposit", 1)
    assert house.balance() == 101
    assert house.asked == [MIA, "actor:Plain:a", MIA]


def test_without_a_snapshot_of_its_own_the_state_is_all_of_the_attributes() -> None:
    house = House()
    house.send("add", ("a", 1), actor="actor:Plain:a")
    other = House(house.kept)
    other.send("add", {"b"}, actor="actor:Plain:a")
    kept = states.unpack(other.kept["actor:Plain:a"], "actor:Plain:a", accept=("msgpack",), key=None)
    assert kept == {"items": [("a", 1), {"b"}]}


@pytest.mark.parametrize(("method", "args"), [("hold", ()), ("fill", (states.STATE_BYTES_MAX,))])
def test_a_state_that_cannot_be_kept_fails_its_message_by_name_and_changes_nothing(
    method: str, args: tuple[Any, ...]
) -> None:
    house = House()
    actor = "actor:Plain:a"
    house.send("add", 1, actor=actor)
    before = house.kept[actor]
    failed = house.send(method, *args, actor=actor)
    assert failed.snapshot is None
    assert isinstance(error_of(failed), ActorFailed)
    assert isinstance(error_of(failed).__cause__, EncodeError)
    assert "'actor:Plain:a'" in text_of(failed)
    house.send("add", 2, actor=actor)
    assert states.unpack(house.kept[actor], actor, accept=("msgpack",), key=None) == {"items": [1, 2]}
    assert before != house.kept[actor]


def test_a_state_that_just_fits_is_kept() -> None:
    house = House()
    # Beside the bytes themselves: the map, the list, and how the state is written.
    outcome = house.send("fill", states.STATE_BYTES_MAX - 64, actor="actor:Plain:a")
    assert outcome.snapshot is not None
    assert len(outcome.snapshot) <= states.STATE_BYTES_MAX


def test_an_answer_that_cannot_be_sent_is_told_and_the_state_is_kept() -> None:
    house = House()
    outcome = house.send("unsendable")
    assert outcome.state == State.FAILURE
    assert house.balance() == 1
    house.send("fill", states.STATE_BYTES_MAX - 64, actor="actor:Plain:a")
    outcome = house.send("answer", OUTCOME_BYTES_MAX - states.STATE_BYTES_MAX // 2, actor="actor:Plain:a")
    assert "together more than" in text_of(outcome)
    assert outcome.snapshot == house.kept["actor:Plain:a"]
    assert len(msgspec.msgpack.encode(outcome)) <= OUTCOME_BYTES_MAX


def test_after_an_outcome_that_took_the_place_of_its_own_the_state_is_asked_for() -> None:
    house = House()
    house.send("deposit", 100)
    held = house.held("deposit", 50)
    house.executor.run(held)
    # A limit hit between the message's own outcome and its settling: what is settled says nothing of the state.
    house.executor.interrupted(held, SoftTimeLimitExceeded())
    house.send("deposit", 1)
    assert house.balance() == 101
    assert house.asked == [MIA, MIA]


def test_a_state_that_cannot_be_read_fails_the_message_and_stays() -> None:
    house = House({MIA: b"\x93"})
    failed = house.send("deposit", 1)
    assert isinstance(error_of(failed).__cause__, DecodeError)
    assert house.kept[MIA] == b"\x93"


def test_a_body_that_ends_its_process_settles_nothing() -> None:
    house = House()
    with pytest.raises(SystemExit):
        house.send("leave")
    assert house.kept == {}


def test_a_state_is_taken_and_restored_by_plain_methods() -> None:
    async def restore(self: Actor, state: Any) -> None: ...

    with pytest.raises(TypeError, match=r"Slow\.restore is a coroutine function"):
        type("Slow", (Actor,), {"durable": True, "restore": restore})


def test_hooks_are_no_messages() -> None:
    assert not {"snapshot", "restore", "durable"} & set(methods_of(Account))


# --- asking ------------------------------------------------------------------------------------------------------


def test_an_answer_keeps_its_own_promise() -> None:
    fetches = states.Fetches()
    promises: list[Future[bytes]] = [Future(), Future()]
    for number, promise in enumerate(promises, 4):
        fetches.asked(number, promise)
    value = msgspec.Raw(msgspec.msgpack.encode(FetchedState(3, b"state")))
    fetches.replied(Reply(9, value=value))
    fetches.replied(Reply(5, value=value))
    fetches.replied(Reply(5, value=value))
    assert [promise.done() for promise in promises] == [False, True]
    assert states.wait_for(promises[1]) == b"state"


def refused(fetches: states.Fetches) -> None:
    fetches.replied(Reply(4, "it does not know this"))


def unreadable(fetches: states.Fetches) -> None:
    fetches.replied(Reply(4))


def abandoned(fetches: states.Fetches) -> None:
    fetches.give_up("the parent is gone")


@pytest.mark.parametrize(
    ("end", "error"), [(refused, OperationalError), (unreadable, DecodeError), (abandoned, OperationalError)]
)
def test_a_question_without_an_answer_ends_in_an_error(
    end: Callable[[states.Fetches], None], error: type[Exception]
) -> None:
    fetches = states.Fetches()
    told: Future[bytes] = Future()
    fetches.asked(4, told)
    end(fetches)
    with pytest.raises(error):
        states.wait_for(told)
