"""Actors and refs: names, messages, answers."""

# Short lambdas stand for tasks and receivers here, and some tests look inside.
# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.actor import Actor, methods_of
from greenroom.actors.app import App
from greenroom.actors.bodies import unpack_call
from greenroom.actors.errors import ActorFailed, EncodeError, UnknownOutcome
from greenroom.actors.ref import ActorRef
from greenroom.actors.tasks.task import Task
from greenroom.transport import payload
from greenroom.transport.clock import system_now
from greenroom.transport.message import Flag, Kind


class Counter(Actor):
    def __init__(self, start: int = 0) -> None:
        self.n = start

    def bump(self, by: int = 1) -> int:
        self.n += by
        return self.n

    async def later(self, x: str) -> str:
        return x

    def _secret(self) -> None: ...

    @staticmethod
    def apart() -> None: ...

    @property
    def shown(self) -> int:
        return self.n


class Account(Actor):
    durable = True

    def pay(self) -> None: ...


NAME = f"{__name__}.Counter"


@pytest.fixture
def counter(app: App) -> ActorRef[Counter]:
    return app.ref(Counter, "home")


# --- classes


def test_a_class_is_known_from_its_definition_on(app: App) -> None:
    assert app.actors[NAME] is Counter
    assert NAME in set(app.actors)
    assert app.actors.name_of(Counter) == NAME


def test_the_apps_name_stands_for_main(make_app: Callable[..., App]) -> None:
    class Local(Actor):
        def ping(self) -> None: ...

    Local.__module__ = "__main__"
    app = make_app("shop")
    qualname = Local.__qualname__
    assert app.ref(Local, "x").actor == f"shop.{qualname}"
    assert app.actors[f"shop.{qualname}"] is Local


def test_a_class_may_be_registered_by_a_decorator(app: App) -> None:
    @app.actor
    class Mine(Actor): ...

    assert app.actors[app.actors.name_of(Mine)] is Mine


def test_what_is_no_actor_is_refused(app: App) -> None:
    wrong: Any = int
    with pytest.raises(TypeError, match="subclass of Actor"):
        app.ref(wrong, "x")
    with pytest.raises(TypeError, match="subclass of Actor"):
        app.actor(wrong)


def test_messages_call_public_methods_and_no_hooks() -> None:
    assert sorted(methods_of(Counter)) == ["bump", "later"]
    assert methods_of(Actor) == {}


# --- messages


def test_tell_sends_and_does_not_wait(counter: ActorRef[Counter], client: Any) -> None:
    client.hold = True
    counter.tell(Counter.bump, 2)
    envelope = client.envelope
    assert client.mailbox == f"actor:{NAME}:home" == counter.mailbox
    assert (envelope.name, envelope.kind, envelope.more.actor_class) == ("bump", Kind.ACTOR, NAME)
    assert unpack_call(envelope, accept=("msgpack",)) == ([2], {})
    assert envelope.flags == Flag.IGNORE_RESULT
    assert client.background == 1


def test_ask_gives_an_answer_to_come(counter: ActorRef[Counter], client: Any) -> None:
    answer = counter.ask(Counter.bump, by=3)
    assert client.envelope.flags == Flag.WATCHED
    assert unpack_call(client.envelope, accept=("msgpack",)) == ([], {"by": 3})
    threading.Timer(0.01, lambda: client.succeed(answer.id, 8)).start()
    assert answer.get(timeout=5) == 8
    assert answer.get() == 8
    assert client.envelope.id == answer.id
    assert repr(answer) == f"<AskResult: bump of actor:{NAME}:home [{answer.id}]>"


def test_a_text_serves_callers_without_the_class(app: App, client: Any) -> None:
    ref = app.ref("somewhere.Counter", "home")
    ref.tell("bump", 2, anything="goes")
    assert client.mailbox == "actor:somewhere.Counter:home"
    assert client.envelope.more.actor_class == "somewhere.Counter"
    assert client.envelope.name == "bump"
    app.ref(NAME, "home").ask("bump", 2)
    assert client.envelope.name == "bump"


def test_a_wrong_message_fails_at_the_call(app: App, counter: ActorRef[Counter], client: Any) -> None:
    wrong: Any = counter
    with pytest.raises(TypeError, match=r"Counter.bump\(\) takes from 0 to 1 positional arguments but 2 were given"):
        wrong.tell(Counter.bump, 1, 2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'to'"):
        wrong.ask("bump", to=1)
    for method in ("_secret", "on_start", "absent", "__init__", "apart", Counter._secret):
        with pytest.raises(TypeError, match=r"no method .* for messages; they have bump, later"):
            wrong.tell(method)
    with pytest.raises(TypeError, match="no method 'absent'"):
        app.ref(NAME, "home").tell("absent")
    with pytest.raises(EncodeError, match=r"args\[0\]"):
        wrong.tell(Counter.bump, object())
    assert not client.published


def test_a_durable_actors_messages_are_redelivered(app: App, client: Any) -> None:
    app.ref(Account, "a").tell(Account.pay)
    assert client.envelope.flags == Flag.ACKS_LATE | Flag.REJECT_ON_WORKER_LOST | Flag.IGNORE_RESULT


def test_what_a_task_sends_to_an_actor_belongs_to_the_task(app: App, counter: ActorRef[Counter], client: Any) -> None:
    app.task(name="a")(lambda: counter.tell(Counter.bump)).apply(task_id="t", root_id="r")
    assert (client.envelope.more.parent_id, client.envelope.more.root_id) == ("t", "r")


# --- answers


def test_a_crash_over_the_question_is_actor_failed_with_its_cause(counter: ActorRef[Counter], client: Any) -> None:
    answer = counter.ask(Counter.bump)
    client.fail(answer.id, ZeroDivisionError("by zero"))
    with pytest.raises(ActorFailed, match="failed over 'bump': ZeroDivisionError: by zero") as caught:
        answer.get()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.actor == counter.mailbox


def test_an_answer_that_is_actor_failed_already_is_raised_as_it_is(counter: ActorRef[Counter], client: Any) -> None:
    answer = counter.ask(Counter.bump)
    client.fail(answer.id, ActorFailed("it crashed", actor="x"))
    with pytest.raises(ActorFailed, match=r"^it crashed"):
        answer.get()


def test_past_the_deadline_nobody_knows_how_it_ended(counter: ActorRef[Counter], client: Any) -> None:
    answer = counter.ask(Counter.bump)
    with pytest.raises(UnknownOutcome, match=r"has not answered 'bump' within 0.01 s; it may or may not") as caught:
        answer.get(timeout=0.01)
    assert isinstance(caught.value, TimeoutError)
    client.succeed(answer.id, 1)
    assert answer.get(timeout=1) == 1


def test_a_ref_may_bound_its_questions(counter: ActorRef[Counter], client: Any) -> None:
    bounded = counter.within(0.02)
    assert bounded == counter
    before = system_now().wall
    answer = bounded.ask(Counter.bump)
    assert before + 20_000 <= client.envelope.more.deadline <= system_now().wall + 20_000
    with pytest.raises(UnknownOutcome, match=r"within 0\.02 s"):
        answer.get()
    counter.ask(Counter.bump)
    assert client.envelope.more.deadline == 0


def test_in_asyncio_an_answer_is_awaited(counter: ActorRef[Counter], client: Any) -> None:
    async def main() -> None:
        answer = counter.ask(Counter.later, "x")
        asyncio.get_running_loop().call_later(0.01, lambda: client.succeed(answer.id, "x"))
        assert await answer == "x"
        failed = counter.ask(Counter.bump)
        client.fail(failed.id, KeyError())
        with pytest.raises(ActorFailed):
            await failed
        with pytest.raises(UnknownOutcome):
            await counter.ask(Counter.bump).aget(timeout=0.01)

    asyncio.run(main())


# --- refs as values


def test_a_ref_compares_hashes_and_prints(app: App, counter: ActorRef[Counter]) -> None:
    assert counter == app.ref(NAME, "home")
    assert counter != app.ref(Counter, "away")
    assert counter != app.ref("other.Counter", "home")
    assert counter != "home"
    assert {counter: 1}[app.ref(Counter, "home")] == 1
    assert repr(counter) == f"<ActorRef {NAME} 'home'>"
    assert str(counter) == f"actor:{NAME}:home"


def test_a_ref_travels_in_messages_and_works_at_the_other_end(
    app: App, counter: ActorRef[Counter], client: Any
) -> None:
    task = app.task(name="a")(lambda ref: None)
    task.delay(counter)
    for arrived in (
        unpack_call(client.envelope, accept=("msgpack",))[0][0],
        payload.decode(payload.encode(counter, "json")),
        pickle.loads(pickle.dumps(counter)),
    ):
        assert isinstance(arrived, ActorRef)
        assert arrived == counter
        arrived.tell("bump", 1)
        assert client.mailbox == counter.mailbox


@given(key=st.text(min_size=1, max_size=60))
def test_a_key_is_any_text_within_bounds(key: str) -> None:
    ref: ActorRef[Any] = ActorRef("m.Counter", key)
    assert ref.mailbox == f"actor:m.Counter:{key}"


@pytest.mark.parametrize("key", ["", "x" * 250])
def test_a_key_that_cannot_be_is_refused(app: App, key: str) -> None:
    with pytest.raises(ValueError, match="the key of an actor"):
        app.ref(Counter, key)


def test_a_ref_in_a_task_waits_for_answers(app: App, counter: ActorRef[Counter], client: Any) -> None:
    # An actor has processes of its own: waiting for it holds up no pool.
    @app.task(bind=True, name="a")
    def work(self: Task[..., Any]) -> int:
        answer = counter.ask(Counter.bump)
        client.succeed(answer.id, 5)
        return answer.get(timeout=1)

    assert work.apply().get() == 5
