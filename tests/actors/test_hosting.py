"""Actors in a child: made at their first message, dropped with their first exception, and who is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest

from greenroom.actors.actor import Actor
from greenroom.actors.app import App
from greenroom.actors.bodies import Content, pack_call, unpack_value
from greenroom.actors.current import remember_unconfirmed, worker_frame
from greenroom.actors.errors import ActorFailed
from greenroom.actors.results.failure import rebuild
from greenroom.actors.worker.events import Held
from greenroom.actors.worker.execute import Executor
from greenroom.actors.worker.hosting import Hosting
from greenroom.actors.worker.outcomes import Outcomes
from greenroom.transport.clock import Now
from greenroom.transport.message import Delivery, Envelope, Kind, More, Outcome, Result, State

WALL = 1_700_000_000_000_000
decode_result = msgspec.msgpack.Decoder(Result).decode


class Wordless(Exception):
    def __repr__(self) -> str:
        raise AttributeError("no words")


class Counter(Actor):
    made = 0

    def __init__(self) -> None:
        Counter.made += 1
        self.n = 0
        self.told: list[str] = []

    def on_start(self) -> None:
        self.told.append("started")

    def on_stop(self, reason: str) -> None:
        stopped.append(reason)

    def bump(self, by: int = 1) -> int:
        self.n += by
        return self.n

    async def slowly(self, by: int) -> int:
        await asyncio.sleep(0)
        self.n += by
        return self.n

    def history(self) -> list[str]:
        return self.told

    def sender(self) -> str | None:
        frame = worker_frame()
        return None if frame is None else frame.request.id

    def tell_another(self, *, crash: bool = False) -> int:
        remember_unconfirmed(later)
        assert not later.waited
        if crash:
            raise ValueError("after it was told")
        return 1

    def crash(self) -> None:
        raise ValueError("out of order")

    def crash_without_words(self) -> None:
        raise Wordless

    def unsendable(self) -> object:
        return object()

    def leave(self) -> None:
        raise SystemExit(3)

    def _private(self) -> None:
        raise AssertionError("must not be reachable")


class Broken(Actor):
    def __init__(self) -> None:
        raise OSError("no such device")

    def anything(self) -> None: ...


class LaterPromise:
    """What was told to another actor, and is confirmed when somebody waits for it."""

    def __init__(self) -> None:
        self.waited = False

    def result(self, timeout: float | None = None) -> object:
        self.waited = True
        return None

    def done(self) -> bool:
        return self.waited

    def add_done_callback(self, fn: Callable[[Any], object], /) -> None:
        fn(self)


stopped: list[str] = []
later = LaterPromise()


class Nobody:
    """Limits and states are not these tests' subject."""

    def progress(self, held: Held, result: bytes) -> None: ...

    def begin(self, held: Held, soft: int, hard: int) -> None: ...

    def end(self, held: Held) -> None: ...


def nothing_kept(mailbox: str) -> Future[bytes]:
    raise AssertionError(f"{mailbox} is not durable, and its state was asked for")


class House:
    """A hosting child and messages for it."""

    def __init__(self, **options: Any) -> None:
        Counter.made = 0
        stopped.clear()
        options.setdefault("fetch", nothing_kept)
        app = App("house", set_as_current=False)
        self.crashes: list[tuple[str, str, str]] = []
        executor = Executor(app, Outcomes("celery@here", lambda: WALL), Nobody(), Nobody(), hostname="celery@here")
        self.hosting = Hosting(
            executor,
            {"Counter": Counter, "Broken": Broken},
            lambda: Now(0, WALL),
            lambda mailbox, cls, error: self.crashes.append(
                (mailbox, cls, "" if isinstance(error, Wordless) else repr(error))
            ),
            **options,
        )
        executor.others[Kind.ACTOR] = self.hosting
        self.executor = executor

    def held(
        self, method: str, *args: Any, key: str = "a", cls: str = "Counter", deadline: int = 0, **kwargs: Any
    ) -> Held:
        content, body = pack_call(args, kwargs, Content(), "id")
        more = More(actor_class=cls, deadline=deadline)
        envelope = Envelope("id", method, content, body, kind=Kind.ACTOR, more=more)
        return Held(Delivery(1, envelope, f"actor:{cls}:{key}"), 7)

    def send(self, method: str, *args: Any, **options: Any) -> Outcome:
        done = self.executor.run(self.held(method, *args, **options))
        assert isinstance(done, Outcome)
        return done


@pytest.fixture
def house() -> House:
    return House()


def value_of(outcome: Outcome) -> Any:
    result = decode_result(outcome.result)
    assert result.failure is None, result.failure
    return unpack_value(result.content, result.body, "", accept=("msgpack",)) if result.body else None


def error_of(outcome: Outcome) -> Exception:
    assert outcome.state == State.FAILURE
    failure = decode_result(outcome.result).failure
    assert failure is not None
    return rebuild(failure)


def test_an_actor_is_made_once_and_keeps_its_state(house: House) -> None:
    assert [value_of(house.send("bump", 2)) for _ in range(3)] == [2, 4, 6]
    assert value_of(house.send("bump", key="b")) == 1
    assert value_of(house.send("history")) == ["started"]
    assert Counter.made == 2
    assert house.hosting.mailboxes == ["actor:Counter:b", "actor:Counter:a"]


def test_a_coroutine_method_runs_in_a_thread_and_in_a_loop(house: House) -> None:
    assert value_of(house.send("slowly", 3)) == 3
    assert value_of(asyncio.run(house.hosting.run_async(house.held("slowly", 4)))) == 7
    assert value_of(asyncio.run(house.hosting.run_async(house.held("bump")))) == 8


@pytest.mark.parametrize("in_loop", [False, True])
def test_an_exception_is_the_actors_crash_and_the_next_message_finds_a_new_one(house: House, in_loop: bool) -> None:
    house.send("bump", 5)
    outcome = asyncio.run(house.hosting.run_async(house.held("crash"))) if in_loop else house.send("crash")
    error = error_of(outcome)
    assert isinstance(error, ActorFailed)
    assert isinstance(error.__cause__, ValueError)
    assert str(error.__cause__) == "out of order"
    assert error.actor == "actor:Counter:a"
    assert house.crashes == [("actor:Counter:a", "Counter", "ValueError('out of order')")]
    assert stopped == [], "a crash is no stop in order"
    assert value_of(house.send("bump")) == 1


def test_an_exception_that_cannot_be_printed_is_a_crash_like_any(house: House) -> None:
    error = error_of(house.send("crash_without_words"))
    assert isinstance(error, ActorFailed)
    assert "a Wordless that cannot be printed" in str(error)


def test_an_actor_that_cannot_be_made_has_crashed(house: House) -> None:
    error = error_of(house.send("anything", cls="Broken"))
    assert isinstance(error, ActorFailed)
    assert isinstance(error.__cause__, OSError)
    assert house.crashes[0][0] == "actor:Broken:a"


@pytest.mark.parametrize("method", ["_private", "__init__", "on_start", "made", "nothing"])
def test_only_public_methods_can_be_called_and_a_wrong_name_is_no_crash(house: House, method: str) -> None:
    house.send("bump", 5)
    error = error_of(house.send(method))
    assert isinstance(error, TypeError)
    assert "bump" in str(error)
    assert house.crashes == []
    assert value_of(house.send("bump")) == 6


def test_arguments_that_do_not_fit_are_a_crash_of_the_call_and_told_to_the_asker(house: House) -> None:
    error = error_of(house.send("bump", 1, 2, 3))
    assert isinstance(error, ActorFailed)
    assert isinstance(error.__cause__, TypeError)


def test_a_class_that_is_not_here_is_told_by_name(house: House) -> None:
    assert "Nowhere" in str(error_of(house.send("bump", cls="Nowhere")))


def test_an_answer_that_cannot_be_sent_is_no_crash(house: House) -> None:
    house.send("bump", 5)
    assert "object" in str(error_of(house.send("unsendable")))
    assert house.crashes == []
    assert value_of(house.send("bump")) == 6


def test_a_question_that_nobody_waits_for_any_more_is_not_started_on(house: House) -> None:
    assert house.send("bump", deadline=WALL).state == State.REVOKED
    assert Counter.made == 0
    assert value_of(house.send("bump", deadline=WALL + 1)) == 1


def test_what_a_handler_sends_has_the_message_as_its_parent(house: House) -> None:
    assert value_of(house.send("sender")) == "id"
    assert worker_frame() is None


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("in_loop", [False, True])
def test_the_end_of_a_message_waits_for_the_confirms_of_what_its_handler_told_others(
    house: House, crash: bool, in_loop: bool
) -> None:
    later.waited = False
    held = house.held("tell_another", crash=crash)
    outcome = asyncio.run(house.hosting.run_async(held)) if in_loop else house.executor.run(held)
    assert isinstance(outcome, Outcome)
    assert outcome.state == (State.FAILURE if crash else State.SUCCESS)
    assert later.waited


def test_sys_exit_leaves_the_child(house: House) -> None:
    with pytest.raises(SystemExit):
        house.send("leave")


def test_the_actor_that_was_idle_for_longest_makes_room() -> None:
    house = House(instances_max=2)
    for key in ("a", "b", "a", "c"):
        house.send("bump", key=key)
    assert house.hosting.mailboxes == ["actor:Counter:a", "actor:Counter:c"]
    assert stopped == ["more than 2 actors live in one process"]


def test_actors_are_stopped_in_order_at_the_end(house: House) -> None:
    house.send("bump")
    house.send("bump", key="b")
    house.hosting.stop("drain")
    assert stopped == ["drain", "drain"]
    assert house.hosting.mailboxes == []
