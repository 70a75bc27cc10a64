"""Thousands of calls in one go."""

# Short lambdas stand for tasks and receivers here, and some tests look inside.
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import Any

import pytest

from greenroom.actors import signals
from greenroom.actors.app import App
from greenroom.actors.bodies import unpack_call
from greenroom.actors.errors import EncodeError, MailboxFull
from greenroom.actors.tasks.task import Task
from greenroom.transport.message import Flag


@pytest.fixture
def add(app: App) -> Task[..., int]:
    return app.task(name="add")(lambda x, y=0: x + y)


def calls_of(client: Any) -> list[tuple[list[Any], dict[str, Any]]]:
    return [unpack_call(envelope, accept=("msgpack", "json")) for _, envelope in client.published]


def test_ten_thousand_calls_are_one_publish_and_a_result_each(add: Task[..., int], client: Any) -> None:
    client.work_for(add.app)
    results = add.send_many([(n, 1) for n in range(10_000)])
    assert client.batches == [("celery", 10_000)]
    assert len({result.id for result in results}) == 10_000
    assert [envelope.id for _, envelope in client.published] == [result.id for result in results]
    assert [result.get() for result in results[:3]] == [1, 2, 3]
    assert results[9_999].get() == 10_000


def test_a_call_is_a_tuple_a_list_or_a_dict(add: Task[..., int], client: Any) -> None:
    add.send_many([(1,), [2, 3], {"x": 4}])
    assert calls_of(client) == [([1], {}), ([2, 3], {}), ([], {"x": 4})]


def test_options_hold_for_all(add: Task[..., int], client: Any) -> None:
    results = add.send_many([(1,), (2,)], queue="q", countdown=2, ignore_result=True, timeout=30)
    assert client.batches == [("q", 2)]
    assert client.deadlines == [30]
    assert all(envelope.more.delay == 2_000_000 for _, envelope in client.published)
    assert all(result.ignored for result in results)


@pytest.mark.parametrize(
    ("calls", "error", "words"),
    [
        ([(1,), ()], TypeError, "missing 1 required positional argument"),
        ([(1,), 2], TypeError, r"item 1 is 2; for one argument write \(2,\)"),
        (["ab"], TypeError, "item 0 is 'ab'"),
        ([(1,), (object(),)], EncodeError, r"args\[0\]"),
    ],
)
def test_one_wrong_call_sends_nothing(
    add: Task[..., int], client: Any, calls: list[Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        add.send_many(calls)
    with pytest.raises(error, match=words):
        add.send_many(calls, countdown=1)
    assert not client.batches


def test_nothing_to_send_is_nothing_sent(add: Task[..., int], client: Any) -> None:
    assert add.send_many([]) == []
    assert add.app.send_many([]) == []
    assert not client.batches


def test_a_refusal_is_raised(add: Task[..., int], client: Any) -> None:
    client.refusal = MailboxFull(mailbox="celery")
    with pytest.raises(MailboxFull):
        add.send_many([(1,), (2,)])


def test_in_the_background_each_result_knows_whether_it_is_confirmed(add: Task[..., int], client: Any) -> None:
    add.app.conf.task_publish_confirm = "background"
    client.hold = True
    results = add.send_many([(1,), (2,)]) + add.app.send_many([add.s(3)])
    assert [result.confirmed for result in results] == [False] * 3
    for held in client.held:
        held.set_result(None)
    assert [result.confirmed for result in results] == [True] * 3


def test_signatures_of_several_tasks_go_to_their_mailboxes_in_order(app: App, add: Task[..., int], client: Any) -> None:
    slow = app.task(name="slow", queue="slow", ignore_result=True)(lambda: None)
    results = app.send_many([add.s(1), slow.s(), dict(add.s(2)), app.signature("elsewhere", queue="far")])
    assert client.batches == [("celery", 2), ("slow", 1), ("far", 1)]
    by_id = {envelope.id: envelope for _, envelope in client.published}
    assert [by_id[result.id].name for result in results] == ["add", "slow", "add", "elsewhere"]
    assert [result.ignored for result in results] == [False, True, False, False]
    assert by_id[results[1].id].flags == Flag.IGNORE_RESULT


def test_signatures_are_checked_before_anything_is_sent(app: App, add: Task[..., int], client: Any) -> None:
    with pytest.raises(TypeError, match="missing 1 required"):
        app.send_many([add.s(1), add.s()])
    wrong: Any = [add.s(1), add]
    with pytest.raises(TypeError, match="item 1 is <@task: add"):
        app.send_many(wrong)
    assert not client.batches


def test_options_of_the_sending_win_over_the_signatures(app: App, add: Task[..., int], client: Any) -> None:
    app.send_many([add.s(1).set(queue="own")], queue="all")
    assert client.mailbox == "all"


def test_all_mailboxes_are_answered_before_a_refusal_is_raised(app: App, add: Task[..., int], client: Any) -> None:
    publish = client.publish

    def refuse_first(mailbox: str, envelopes: Any, **options: Any) -> Any:
        client.refusal = MailboxFull(mailbox=mailbox) if mailbox == "one" else None
        return publish(mailbox, envelopes, **options)

    client.publish = refuse_first
    with pytest.raises(MailboxFull, match="'one'"):
        app.send_many([add.s(1).set(queue="one"), add.s(2).set(queue="two")])
    assert [mailbox for mailbox, _ in client.published] == ["two"]


def test_inside_a_task_they_are_its_children(app: App, add: Task[..., int], client: Any) -> None:
    @app.task(bind=True, name="parent")
    def parent(self: Task[..., Any]) -> int:
        add.send_many([(1,), (2,)])
        app.send_many([add.s(3)])
        return len(self.request.children)

    assert parent.apply(task_id="p").get() == 3
    assert {envelope.more.parent_id for _, envelope in client.published} == {"p"}


def test_signals_are_told_of_each(add: Task[..., int], client: Any) -> None:
    told: list[str] = []

    def before(headers: dict[str, Any], **_kwargs: Any) -> None:
        headers["trace"] = "t"

    def after(headers: dict[str, Any], **_kwargs: Any) -> None:
        told.append(headers["id"])

    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    try:
        results = add.send_many([(1,), (2,)])
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)
    assert told == [result.id for result in results]
    assert all(envelope.more.headers == {"trace": "t"} for _, envelope in client.published)
