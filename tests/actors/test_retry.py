"""Retries: what the next form of a message is, when there is none, and how long it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.app import App
from greenroom.actors.bodies import unpack_call, unpack_embed
from greenroom.actors.current import pop_frame, push_frame
from greenroom.actors.errors import Ignore, MaxRetriesExceededError, Reject, Retry
from greenroom.actors.tasks.request import Context
from greenroom.actors.tasks.retry import backoff_seconds
from greenroom.actors.tasks.task import Task
from greenroom.transport import message
from greenroom.transport.clock import system_now
from greenroom.transport.message import Delivery, Envelope, Flag

SECOND = 1_000_000


class Failing(Exception):
    """What tasks raise here."""


@pytest.fixture
def deliver(client: Any) -> Callable[..., Any]:
    """Runs the body of the last message as a worker would, and returns what it raised."""

    def run(task: Task[..., Any], envelope: Envelope | None = None) -> Any:
        envelope = client.envelope if envelope is None else envelope
        assert envelope is not None
        args, kwargs = unpack_call(envelope, accept=("msgpack", "json"))
        request = Context.delivered(Delivery(1, envelope, "celery"), args, kwargs, hostname="celery@here")
        token = push_frame(task, request)
        try:
            task.body(*args, **kwargs)
        except Exception as error:
            # What the body raised is what the test is about.
            return error
        finally:
            pop_frame(token)
        return request.retried

    return run


def form(error: Any) -> message.Retry:
    assert isinstance(error, Retry)
    assert isinstance(error.next_form, message.Retry)
    return error.next_form


def test_a_retry_carries_the_messages_next_form(app: App, client: Any, deliver: Callable[..., Any]) -> None:
    error = Failing("why")

    @app.task(bind=True, name="a", max_retries=5, priority=3)
    def work(self: Task[..., Any], x: int) -> None:
        raise self.retry(exc=error, countdown=2.5)

    work.apply_async((1,), headers={"h": 1}, link=work.s(9), root_id="r")
    sent = client.envelope
    raised = deliver(work)
    assert raised.exc is error
    assert raised.when == 2.5
    next_form = form(raised)
    assert next_form.delay == 2_500_000
    assert next_form.envelope.more is not None
    assert next_form.envelope.more.retries == 1
    # All else is as it was sent, to the byte.
    assert msgspec.structs.replace(next_form.envelope, more=None) == msgspec.structs.replace(sent, more=None)
    assert msgspec.structs.replace(next_form.envelope.more, retries=0) == sent.more
    # And the message that was handed out is as it was.
    assert sent.more.retries == 0


def test_each_retry_counts_one_more_until_there_are_no_more(app: App, client: Any, deliver: Callable[..., Any]) -> None:
    @app.task(bind=True, name="a", max_retries=2, default_retry_delay=7)
    def work(self: Task[..., Any], x: int) -> None:
        self.retry()

    work.delay(1)
    first = form(deliver(work))
    assert first.delay == 7 * SECOND
    second = form(deliver(work, first.envelope))
    assert second.envelope.more is not None
    assert second.envelope.more.retries == 2
    last = deliver(work, second.envelope)
    assert isinstance(last, MaxRetriesExceededError)
    assert last.task_args == [1]
    assert str(last).startswith(f"Can't retry a[{client.envelope.id}] args:[1] kwargs:{{}}")


def test_beyond_the_limit_the_given_exception_is_raised(app: App, deliver: Callable[..., Any]) -> None:
    error = Failing("the real one")

    @app.task(bind=True, name="a", max_retries=0)
    def work(self: Task[..., Any]) -> None:
        self.retry(exc=error)

    work.delay()
    assert deliver(work) is error


def test_a_limit_of_the_call_goes_before_the_tasks(app: App, deliver: Callable[..., Any]) -> None:
    @app.task(bind=True, name="a", max_retries=None)
    def forever(self: Task[..., Any]) -> None:
        self.retry()

    @app.task(bind=True, name="b", max_retries=9)
    def never(self: Task[..., Any]) -> None:
        self.retry(max_retries=0)

    forever.apply_async(retries=1000)
    assert form(deliver(forever)).envelope.more is not None
    never.delay()
    assert isinstance(deliver(never), MaxRetriesExceededError)


def test_an_eta_becomes_the_delay_until_then(app: App, deliver: Callable[..., Any]) -> None:
    @app.task(bind=True, name="a")
    def work(self: Task[..., Any], eta: datetime) -> None:
        self.retry(eta=eta)

    eta = datetime.now(UTC) + timedelta(hours=1)
    work.delay(eta)
    next_form = form(deliver(work))
    assert 3_590 * SECOND < next_form.delay <= 3_600 * SECOND
    assert next_form.envelope.more is not None
    assert next_form.envelope.more.due == 0
    work.delay(datetime.now(UTC) - timedelta(hours=1))
    assert form(deliver(work)).delay == 0


def test_new_arguments_replace_the_old_ones(app: App, deliver: Callable[..., Any]) -> None:
    @app.task(bind=True, name="a", serializer="json")
    def work(self: Task[..., Any], x: int, y: int = 0) -> None:
        self.retry(args=(x + 1,), kwargs={"y": 5}, countdown=0)

    work.delay(1)
    envelope = form(deliver(work)).envelope
    assert envelope.content == "json"
    assert unpack_call(envelope, accept=("json",)) == ([2], {"y": 5})


def test_options_of_a_retry_change_only_what_they_name(app: App, client: Any, deliver: Callable[..., Any]) -> None:
    @app.task(bind=True, name="a", time_limit=60)
    def work(self: Task[..., Any]) -> None:
        self.retry(countdown=1, priority=9, expires=30, headers={"new": 1}, ignore_result=True)

    work.apply_async(link=work.s(), headers={"old": 1}, task_id="chosen")
    before = system_now().wall
    envelope = form(deliver(work)).envelope
    more = envelope.more
    assert more is not None
    assert envelope.id == "chosen"
    assert envelope.priority == 9
    assert envelope.flags & Flag.IGNORE_RESULT
    assert before + 29 * SECOND < more.expires <= system_now().wall + 30 * SECOND
    assert more.expires_in == 0
    assert more.headers == {"new": 1}
    assert more.time_limit == 60 * SECOND
    assert "callbacks" in unpack_embed(more.opaque)
    assert more.retries == 1


def test_a_retry_that_is_not_thrown_is_kept_for_the_worker(app: App, deliver: Callable[..., Any]) -> None:
    @app.task(bind=True, name="a")
    def work(self: Task[..., Any]) -> None:
        assert isinstance(self.retry(throw=False), Retry)

    work.delay()
    assert form(deliver(work)).delay == 180 * SECOND


def test_outside_a_worker_the_original_exception_is_raised_again(app: App) -> None:
    @app.task(bind=True, name="a")
    def handling(self: Task[..., Any]) -> None:
        try:
            raise Failing("original")
        except Failing as error:
            raise self.retry(exc=error) from None

    @app.task(bind=True, name="b")
    def other(self: Task[..., Any]) -> None:
        try:
            raise Failing("original")
        except Failing:
            self.retry(exc=KeyError("new"))

    @app.task(bind=True, name="c")
    def plain(self: Task[..., Any]) -> None:
        self.retry()

    with pytest.raises(Failing, match="original"):
        handling()
    with pytest.raises(KeyError) as caught:
        other()
    assert isinstance(caught.value.__cause__, Failing)
    with pytest.raises(Retry):
        plain()


# --- automatic retries


def test_listed_exceptions_are_retried_by_themselves(app: App, deliver: Callable[..., Any]) -> None:
    raises: list[Exception] = []

    @app.task(
        name="a",
        autoretry_for=(ValueError, Ignore, Reject),
        dont_autoretry_for=(UnicodeError,),
        retry_kwargs={"countdown": 5, "max_retries": 1},
    )
    def work() -> None:
        raise raises[0]

    for error in (KeyError("other"), UnicodeError("excepted"), Ignore(), Reject("r"), Retry("own")):
        raises[:] = [error]
        work.delay()
        assert deliver(work) is error
    raises[:] = [ValueError("listed")]
    work.delay()
    first = deliver(work)
    assert form(first).delay == 5 * SECOND
    assert first.exc is raises[0]
    assert deliver(work, form(first).envelope) is raises[0]
    with pytest.raises(ValueError, match="listed"):
        work()


def test_coroutines_are_retried_by_themselves_too(app: App) -> None:
    @app.task(bind=True, name="a", autoretry_for=(ValueError,))
    async def work(self: Task[..., Any]) -> None:
        await asyncio.sleep(0)
        raise ValueError

    async def run() -> Any:
        request = Context(id="1", called_directly=False, args=[], kwargs={})
        token = push_frame(work, request)
        try:
            await work.body()
        except Retry as error:
            return error
        finally:
            pop_frame(token)

    app.finalize()
    assert form(asyncio.run(run())).delay == 180 * SECOND


def test_the_backoff_of_an_automatic_retry_grows(app: App, deliver: Callable[..., Any]) -> None:
    @app.task(name="a", autoretry_for=(ValueError,), retry_backoff=3, retry_jitter=False, max_retries=None)
    def work() -> None:
        raise ValueError

    delays: list[int] = []
    for retries in (0, 1, 2, 20):
        work.apply_async(retries=retries)
        delays.append(form(deliver(work)).delay // SECOND)
    assert delays == [3, 6, 12, 600]


@given(factor=st.floats(0, 1000), retries=st.integers(0, 10_000), maximum=st.integers(0, 100_000))
def test_a_backoff_is_whole_seconds_within_its_bounds(factor: float, retries: int, maximum: int) -> None:
    plain = backoff_seconds(factor, retries, maximum, full_jitter=False)
    assert plain == min(maximum, max(1, int(factor)) * 2**retries)
    assert 0 <= backoff_seconds(factor, retries, maximum, full_jitter=True) <= plain


def test_a_full_jitter_reaches_both_ends() -> None:
    seen = {backoff_seconds(1, 1, 600, full_jitter=True) for _ in range(500)}
    assert seen == {0, 1, 2}
