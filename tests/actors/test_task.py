"""Tasks: what they are, how they are called here and sent, what they say about themselves."""

# Short lambdas stand for tasks and receivers here, and some tests look inside.
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from greenroom.actors.app import App
from greenroom.actors.bodies import unpack_call
from greenroom.actors.current import current_task, get_current_task
from greenroom.actors.errors import BrokerUnavailable, EncodeError, MailboxFull
from greenroom.actors.results.result import AsyncResult
from greenroom.actors.tasks.request import Context
from greenroom.actors.tasks.task import Task
from greenroom.transport.message import Flag, Kind
from greenroom.transport.verbs import TaskPolicy


@pytest.fixture
def add(app: App) -> Task[..., int]:
    @app.task(name="tasks.add")
    def add(x: int, y: int = 0) -> int:
        """Add."""
        return x + y

    return add


def call_of(client: Any) -> tuple[list[Any], dict[str, Any]]:
    return unpack_call(client.envelope, accept=("msgpack", "json"))


# --- the dual role


def test_s11_delay_only_sends_and_the_task_itself_only_runs(app: App, client: Any) -> None:
    ran: list[int] = []

    @app.task(name="tasks.note")
    def note(x: int) -> int:
        ran.append(x)
        return x

    result = note.delay(1)
    assert ran == []
    assert isinstance(result, AsyncResult)
    assert note(2) == 2
    assert ran == [2]
    assert len(client.published) == 1


def test_s11_the_body_is_run_and_the_message_carries_the_name_never_code(add: Task[..., int], client: Any) -> None:
    assert add.run(1, 2) == 3
    result = add.delay(1, y=2)
    envelope = client.envelope
    assert (client.mailbox, envelope.name, envelope.id) == ("celery", "tasks.add", result.id)
    assert envelope.kind == Kind.TASK
    assert call_of(client) == ([1], {"y": 2})
    assert envelope.content == "msgpack"
    assert len(envelope.body) < 16
    assert envelope.flags == Flag.WATCHED
    assert envelope.more is None


def test_a_task_looks_like_its_function(add: Task[..., int]) -> None:
    assert add.__doc__ == "Add."
    named: Any = add
    assert named.__name__ == "add"
    assert named.__wrapped__(1) == 1
    assert type(add).__name__ == "add"
    assert add.__module__ == __name__


def test_ids_are_new_and_sort_by_time(add: Task[..., int]) -> None:
    ids = [add.delay(1).id for _ in range(50)]
    assert len(set(ids)) == 50
    assert sorted(ids) == ids


def test_a_wrong_call_fails_at_the_call_and_nothing_is_sent(add: Task[..., int], client: Any) -> None:
    with pytest.raises(TypeError, match=r"^add\(\) missing 1 required positional argument: 'x'$"):
        add.delay()
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        add.apply_async((1,), {"z": 1})
    with pytest.raises(TypeError):
        add.apply_async((1,), {"x": 1}, countdown=1)
    assert not client.published


def test_typing_can_be_switched_off(app: App, client: Any, make_app: Callable[..., App]) -> None:
    app.task(name="a", typing=False)(lambda x: x).apply_async()
    make_app(strict_typing=False).task(name="b")(lambda x: x).apply_async()
    assert len(client.published) == 2
    with pytest.raises(TypeError):
        make_app(strict_typing=False).task(name="c", typing=True)(lambda x: x).apply_async()


def test_a_call_waits_until_the_broker_has_accepted(add: Task[..., int], client: Any) -> None:
    client.hold = True
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(add.delay(1)))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    client.held[0].set_result(None)
    thread.join(5)
    assert results[0].confirmed


def test_a_call_raises_what_the_broker_refused_it_with(add: Task[..., int], client: Any) -> None:
    client.refusal = BrokerUnavailable(addresses=("tcp://x:1",), waited_seconds=4)
    with pytest.raises(BrokerUnavailable, match="tcp://x:1"):
        add.delay(1)


def test_in_the_background_a_call_returns_at_once(app: App, add: Task[..., int], client: Any) -> None:
    app.conf.task_publish_confirm = "background"
    client.hold = True
    result = add.delay(1)
    assert client.background == 1
    assert not result.confirmed
    client.held[0].set_result(None)
    assert result.confirmed
    app.flush(1)
    assert client.flushes == 1
    client.refusal = BrokerUnavailable(addresses=("tcp://x:1",), waited_seconds=4)
    refused = add.delay(2)
    with pytest.raises(BrokerUnavailable):
        refused.confirmed  # noqa: B018
    with pytest.raises(BrokerUnavailable):
        refused.get(timeout=1)


@pytest.mark.parametrize("many", [False, True])
def test_a_call_that_is_interrupted_while_it_waits_is_given_up(add: Task[..., int], client: Any, many: bool) -> None:
    client.hold = True
    call = (lambda: add.send_many([(1,), (2,)])) if many else lambda: add.delay(1, 2)

    class Interrupted(BaseException):
        pass

    def interrupt(_envelope: Any) -> None:
        def result(timeout: float | None = None) -> None:
            raise Interrupted

        client.held[-1].result = result

    client.on_publish = interrupt
    with pytest.raises(Interrupted):
        call()
    assert client.given_up == client.held
    client.given_up.clear()
    client.hold = False
    client.on_publish = None
    client.refusal = MailboxFull("full")
    with pytest.raises(MailboxFull):
        call()
    assert client.given_up == [], "what has ended is not given up"


def test_a_call_may_have_a_deadline_for_its_confirm(add: Task[..., int], client: Any) -> None:
    add.delay(1)
    add.apply_async((1,), timeout=3)
    add.apply_async((1,), timeout=3, confirm_timeout=2)
    assert client.deadlines == [None, 3, 2]


# --- serializers


def test_s20_the_serializer_of_a_task_holds_whatever_the_apps_is(app: App, client: Any) -> None:
    as_json = app.task(name="a", serializer="json")(lambda x: x)
    as_json.delay(1)
    assert client.envelope.content == "json"
    assert client.envelope.body == b"[[1],{}]"
    app.conf.task_serializer = "json"
    app.task(name="b", serializer="msgpack")(lambda x: x).delay(1)
    assert client.envelope.content == "msgpack"
    as_json.apply_async((1,), serializer="msgpack")
    assert client.envelope.content == "msgpack"


def test_s20_what_cannot_be_sent_raises_at_the_call_and_names_the_argument(
    app: App, add: Task[..., int], client: Any
) -> None:
    with pytest.raises(EncodeError, match=r"args\[0\]"):
        add.delay(object())
    with pytest.raises(EncodeError, match=r"kwargs\['y'\]"):
        add.apply_async((1,), {"y": object()}, serializer="json")
    assert not client.published


def test_bodies_are_compressed_if_asked(app: App, client: Any) -> None:
    zipped = app.task(name="a", compression="gzip")(lambda x: x)
    zipped.delay("x" * 1000)
    assert client.envelope.content == "msgpack+gzip"
    assert len(client.envelope.body) < 100
    assert call_of(client) == (["x" * 1000], {})


def test_pickles_are_signed_and_bound_to_their_message(app: App, client: Any) -> None:
    pickled = app.task(name="a", serializer="pickle")(lambda x: x)
    with pytest.raises(Exception, match="GREENROOM_SIGNING_KEY"):
        pickled.delay({1})
    app.signing_key = b"k" * 32
    pickled.delay(threading.Thread)
    envelope = client.envelope
    assert envelope.content == "pickle"
    assert unpack_call(envelope, accept=("pickle",), key=b"k" * 32) == ([threading.Thread], {})
    envelope.id = "another"
    with pytest.raises(Exception, match="does not verify"):
        unpack_call(envelope, accept=("pickle",), key=b"k" * 32)


def test_the_key_may_come_from_the_environment(app: App, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENROOM_SIGNING_KEY", "e" * 32)
    app.task(name="a", serializer="cloudpickle")(lambda x: x).delay(1)
    assert unpack_call(client.envelope, accept=("cloudpickle",), key=b"e" * 32) == ([1], {})


# --- bound tasks and the request


def test_s21_a_bound_task_gets_itself_first(app: App, client: Any) -> None:
    @app.task(bind=True, name="a")
    def which(self: Task[..., Any], x: int) -> tuple[Any, int]:
        return self, x

    assert which(5) == (which, 5)
    which.delay(5)
    assert call_of(client) == ([5], {})
    with pytest.raises(TypeError, match=r"takes 1 positional argument but 2 were given"):
        which.apply_async((1, 2))


def test_a_direct_call_has_a_request_of_its_own(app: App) -> None:
    seen: list[Any] = []

    @app.task(bind=True, name="inner")
    def inner(self: Task[..., Any], x: int) -> None:
        seen.append((self.request.args, self.request.called_directly, self.request.id, get_current_task()))

    @app.task(bind=True, name="outer")
    def outer(self: Task[..., Any]) -> None:
        inner(7)
        seen.append((self.request.args, current_task == self))

    outer()
    assert seen == [((7,), True, None, inner), ((), True)]
    assert get_current_task() is None
    assert outer.request.id is None


def test_a_request_can_be_pushed_for_a_test_of_a_body(app: App) -> None:
    @app.task(bind=True, name="a")
    def which(self: Task[..., Any]) -> Any:
        return self.request.id

    which.push_request(id="given")
    assert which.run() == "given"
    which.pop_request()
    assert which.run() is None


def test_requests_of_threads_and_coroutines_are_apart(app: App) -> None:
    @app.task(bind=True, name="a")
    async def which(self: Task[..., Any], x: int, gate: asyncio.Event, other: asyncio.Event) -> Any:
        other.set()
        await gate.wait()
        return self.request.args[0]

    async def main() -> list[Any]:
        one, two = asyncio.Event(), asyncio.Event()
        return [*await asyncio.gather(which(1, one, two), which(2, two, one))]

    assert asyncio.run(main()) == [1, 2]


def test_an_overridden_call_sees_the_workers_request(app: App) -> None:
    class Base(Task[..., Any]):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return "wrapped", super().__call__(*args, **kwargs)

    @app.task(bind=True, base=Base, name="a")
    def which(self: Task[..., Any]) -> Any:
        return self.request.id

    assert which.body is which
    assert app.task(name="b")(lambda: None).body is app.tasks["b"].run
    assert which.apply(task_id="given").get() == ("wrapped", "given")
    assert which() == ("wrapped", None)


def test_a_task_that_calls_itself_has_a_request_for_each_call(app: App) -> None:
    class Base(Task[..., Any]):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    @app.task(bind=True, base=Base, name="a")
    def down(self: Task[..., Any], n: int) -> list[Any]:
        seen = [(self.request.id, self.request.called_directly)]
        return seen + (self(n - 1) if n else [])

    assert down.apply((2,), task_id="t").get() == [("t", False), (None, True), (None, True)]


def test_one_instance_keeps_its_state_between_calls(app: App) -> None:
    @app.task(bind=True, name="a")
    def count(self: Any) -> int:
        self.n = getattr(self, "n", 0) + 1
        return int(self.n)

    assert [count(), count()] == [1, 2]


def test_update_state_goes_to_whoever_runs_the_task(app: App) -> None:
    reported: list[Any] = []

    @app.task(bind=True, name="a")
    def work(self: Task[..., Any]) -> None:
        self.update_state(state="PROGRESS", meta={"done": 1})
        self.update_state(task_id="somebody else's", state="X")

    work()
    request = Context(id="1", called_directly=False, report_state=lambda state, meta: reported.append((state, meta)))
    work.push_request()
    work.request.update(vars(request))
    work.run()
    work.pop_request()
    assert reported == [("PROGRESS", {"done": 1})]


# --- options


def test_options_have_the_settings_values_until_the_task_says_otherwise(app: App) -> None:
    app.conf.update(task_acks_late=True, task_default_rate_limit="5/s", task_serializer="json", task_max_deliveries=5)
    mine = app.task(name="a", acks_late=False, max_deliveries=2)(lambda: None)
    other = app.task(name="b", acks_late=None)(lambda: None)
    assert (mine.acks_late, mine.rate_limit, mine.serializer, mine.max_deliveries) == (False, "5/s", "json", 2)
    assert (other.acks_late, other.max_deliveries) == (True, 5)
    app.conf.task_acks_late = False
    assert other.acks_late is False
    other.acks_late = True
    assert other.acks_late is True


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"acks_late": True}, Flag.ACKS_LATE),
        ({"reject_on_worker_lost": True}, Flag.REJECT_ON_WORKER_LOST),
        ({"retry_on_worker_lost": True}, Flag.RETRY_ON_WORKER_LOST),
        ({"store_errors_even_if_ignored": True}, Flag.STORE_ERRORS),
        ({"track_started": True}, Flag.TRACK_STARTED),
        ({"acks_on_failure": False}, Flag.REJECT_ON_FAILURE),
        ({"acks_on_timeout": False}, Flag.REDELIVER_ON_TIMEOUT),
    ],
)
def test_s19_options_and_settings_become_flags(
    app: App, client: Any, make_app: Callable[..., App], options: dict[str, Any], flag: Flag
) -> None:
    decorate: Any = app.task
    decorate(name="a", **options)(lambda: None).apply_async()
    assert client.envelope.flags == flag | Flag.WATCHED
    other = make_app(changes={f"task_{name}": value for name, value in options.items()})
    other.task(name="a")(lambda: None).apply_async()
    assert client.envelope.flags == flag | Flag.WATCHED
    other.send_task("not registered")
    assert client.envelope.flags == flag | Flag.WATCHED


def test_both_acks_follow_the_older_option(app: App, client: Any) -> None:
    app.task(name="a", acks_on_failure_or_timeout=False)(lambda: None).delay()
    assert client.envelope.flags & Flag.REJECT_ON_FAILURE
    assert client.envelope.flags & Flag.REDELIVER_ON_TIMEOUT
    app.task(name="b", acks_on_failure_or_timeout=False, acks_on_failure=True)(lambda: None).delay()
    assert not client.envelope.flags & Flag.REJECT_ON_FAILURE
    assert client.envelope.flags & Flag.REDELIVER_ON_TIMEOUT


def test_a_task_without_a_result_watches_nothing(app: App, client: Any) -> None:
    task = app.task(name="a", ignore_result=True)(lambda: None)
    result = task.delay()
    assert client.envelope.flags == Flag.IGNORE_RESULT
    assert result.ignored
    assert result.get(timeout=0) is None
    kept = task.apply_async(ignore_result=False)
    assert client.envelope.flags == Flag.WATCHED
    assert not kept.ignored


def test_the_policy_is_what_a_worker_announces(app: App) -> None:
    task = app.task(
        name="a", acks_late=True, reject_on_worker_lost=True, track_started=True, max_deliveries=4, max_retries=None
    )(lambda: None)
    assert task.policy() == TaskPolicy("a", Flag.ACKS_LATE | Flag.REJECT_ON_WORKER_LOST, 4, -1, 180_000_000)
    app.conf.worker_deduplicate_successful_tasks = True
    assert app.task(name="b", max_deliveries=-1)(lambda: None).policy() == TaskPolicy(
        "b", int(Flag.DEDUPLICATE), -1, 3, 180_000_000
    )


@pytest.mark.parametrize(
    ("settings", "lifetimes"),
    [
        ({}, (-1, -1)),
        ({"result_expires": 60}, (60_000_000, 60_000_000)),
        ({"result_expires": timedelta(minutes=2)}, (120_000_000, 120_000_000)),
        ({"result_expires": 0.5, "result_failure_expires": 3}, (500_000, 3_000_000)),
        ({"result_failure_expires": timedelta(days=1)}, (-1, 86_400_000_000)),
        ({"result_expires": None}, (0, 0)),
        ({"result_expires": 0, "result_failure_expires": 1}, (0, 1_000_000)),
    ],
)
def test_the_policy_says_how_long_results_are_kept_if_the_settings_do(
    make_app: Callable[..., App], settings: dict[str, Any], lifetimes: tuple[int, int]
) -> None:
    app = make_app(**settings)
    policy = app.task(name="a")(lambda: None).policy()
    assert (policy.result_ttl, policy.failure_ttl) == lifetimes


@pytest.mark.parametrize("wrong", [-1, True, "an hour", timedelta(seconds=-1), float("nan"), float("inf"), 1e30])
def test_a_lifetime_of_results_that_cannot_be_is_an_error(make_app: Callable[..., App], wrong: Any) -> None:
    app = make_app(result_expires=wrong)
    with pytest.raises(ValueError, match=r"result_expires is .*expected seconds or a timedelta"):
        app.task(name="a")(lambda: None).policy()


@pytest.mark.parametrize("bound", [0, -2, True, "3"])
def test_a_bound_of_deliveries_that_cannot_be_is_an_error(app: App, bound: Any) -> None:
    with pytest.raises(ValueError, match="max_deliveries"):
        app.task(name="a", max_deliveries=bound)(lambda: None).delay()


def test_what_a_task_says_of_itself_stands_in_every_message(app: App, client: Any) -> None:
    task = app.task(
        name="a", time_limit=30, soft_time_limit=20.5, max_deliveries=7, expires=60, priority=9, queue="slow"
    )(lambda: None)
    for headers in (None, {"x": 1}):
        task.apply_async(headers=headers)
        more = client.envelope.more
        assert (more.time_limit, more.soft_time_limit) == (30_000_000, 20_500_000)
        assert (more.max_deliveries, more.expires_in) == (7, 60_000_000)
        assert (client.envelope.priority, client.mailbox) == (9, "slow")


def test_retries_after_a_lost_worker_are_told_to_the_broker(app: App, client: Any) -> None:
    app.task(name="a", retry_on_worker_lost=True, max_retries=2, default_retry_delay=1)(lambda: None).delay()
    assert (client.envelope.more.max_retries, client.envelope.more.retry_delay) == (2, 1_000_000)


def test_a_change_of_a_task_or_of_settings_counts_from_the_next_call(
    app: App, add: Task[..., int], client: Any
) -> None:
    add.delay(1)
    add.queue = "other"
    add.delay(1)
    assert client.mailbox == "other"
    app.conf.task_serializer = "json"
    add.delay(1)
    assert client.envelope.content == "json"
    app.conf.task_routes = {"tasks.*": "routed"}
    add.queue = None
    add.delay(1)
    assert client.mailbox == "routed"


def test_s23_options_of_its_own_are_attributes(app: App) -> None:
    class Database(Task[..., Any]):
        abstract = True
        _connection: object = None

        @property
        def connection(self) -> object:
            if self._connection is None:
                self._connection = object()
            return self._connection

    task: Any = app.task(base=Database, bind=True, name="a", extra=5)(lambda self: self.connection)
    assert task.extra == 5
    assert task() is task()
    assert not task.abstract
    assert Database.abstract


def test_an_overridden_apply_async_is_what_delay_calls(app: App, client: Any) -> None:
    class Tenant(Task[..., Any]):
        def apply_async(self, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> Any:
            return super().apply_async(args, kwargs, *more, headers={"tenant": "t1"}, **options)

    app.task(base=Tenant, name="a")(lambda: None).delay()
    assert client.envelope.more.headers == {"tenant": "t1"}


def test_a_shadow_name_may_be_made_by_the_task(app: App, client: Any) -> None:
    class Shadowed(Task[..., Any]):
        def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str | None:
            return f"shadow of {args[0]}"

    app.task(base=Shadowed, name="a")(lambda x: None).delay(1)
    assert client.envelope.more.shadow == "shadow of 1"


# --- as values


def test_a_task_is_pickled_by_its_name(add: Task[..., int]) -> None:
    assert pickle.loads(pickle.dumps(add)) is add


def test_a_task_without_a_body_says_so(app: App) -> None:
    with pytest.raises(TypeError, match="define its method run"):
        app.Task()()


def test_a_task_that_belongs_nowhere_is_of_the_current_app(app: App) -> None:
    task: Task[..., Any] = Task()
    assert task.app is app
    assert "unbound" in repr(task)
