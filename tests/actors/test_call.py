"""From a call with options to an envelope."""

# Short lambdas stand for tasks and receivers here, and some tests look inside.
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownVariableType=false

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors import signals
from greenroom.actors.app import App
from greenroom.actors.bodies import unpack_embed
from greenroom.actors.errors import QueueNotFound
from greenroom.actors.tasks.call import checked_priority
from greenroom.actors.tasks.options import CALL_OPTIONS
from greenroom.actors.tasks.task import Task
from greenroom.transport.message import Flag

SECOND = 1_000_000


@pytest.fixture
def task(app: App) -> Task[..., Any]:
    return app.task(name="tasks.work")(lambda *args, **kwargs: None)


def test_a_countdown_travels_as_a_duration(task: Task[..., Any], client: Any) -> None:
    task.apply_async(countdown=1.5)
    assert (client.envelope.more.delay, client.envelope.more.due) == (1_500_000, 0)
    task.apply_async(countdown=-1)
    assert client.envelope.more is None


def test_an_eta_travels_as_wall_time_in_the_apps_zone(app: App, task: Task[..., Any], client: Any) -> None:
    moment = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    wall = int(moment.timestamp()) * SECOND
    for eta in (
        moment,
        moment.astimezone(timezone(timedelta(hours=5))),
        moment.replace(tzinfo=None),
        moment.isoformat(),
    ):
        task.apply_async(eta=eta)
        assert client.envelope.more.due == wall
    app.conf.timezone = "Asia/Tokyo"
    task.apply_async(eta=moment.replace(tzinfo=None))
    assert client.envelope.more.due == wall - 9 * 3600 * SECOND


def test_an_expiry_is_a_duration_or_a_moment(task: Task[..., Any], client: Any) -> None:
    task.apply_async(expires=10)
    assert (client.envelope.more.expires_in, client.envelope.more.expires) == (10 * SECOND, 0)
    task.apply_async(expires=timedelta(minutes=1))
    assert client.envelope.more.expires_in == 60 * SECOND
    task.apply_async(expires=datetime(2030, 1, 1, tzinfo=UTC))
    assert client.envelope.more.expires == int(datetime(2030, 1, 1, tzinfo=UTC).timestamp()) * SECOND
    task.apply_async(expires=-5)
    assert client.envelope.more.expires_in == 1


def test_time_limits_travel_and_the_soft_one_is_not_beyond_the_hard(app: App, client: Any) -> None:
    task = app.task(name="a", time_limit=60)(lambda: None)
    task.apply_async(time_limit=10, soft_time_limit=9.5)
    assert (client.envelope.more.time_limit, client.envelope.more.soft_time_limit) == (10 * SECOND, 9_500_000)
    with pytest.raises(ValueError, match="soft_time_limit"):
        task.apply_async(soft_time_limit=61)
    with pytest.raises(ValueError, match="soft_time_limit"):
        app.send_task("elsewhere", soft_time_limit=2, time_limit=1)
    wrong = app.task(name="b", soft_time_limit=2, time_limit=1)(lambda: None)
    with pytest.raises(ValueError, match="soft_time_limit"):
        wrong.delay()
    assert len(client.published) == 1


def test_a_chosen_id_is_flagged(task: Task[..., Any], client: Any) -> None:
    result = task.apply_async(task_id="order-1")
    assert result.id == client.envelope.id == "order-1"
    assert client.envelope.flags & Flag.CHOSEN_ID
    task.apply_async(countdown=1)
    assert not client.envelope.flags & Flag.CHOSEN_ID
    with pytest.raises(ValueError, match="task_id"):
        task.apply_async(task_id="x" * 256)


@given(priority=st.integers(0, 255))
def test_a_priority_travels_as_it_is(priority: int) -> None:
    assert checked_priority(priority, "task") == priority


@pytest.mark.parametrize("priority", [-1, 256, 1.5, "5", True])
def test_a_priority_that_cannot_be_is_an_error(task: Task[..., Any], priority: Any) -> None:
    with pytest.raises(ValueError, match="priority must be a whole number from 0 to 255"):
        task.apply_async(priority=priority)


def test_scalar_headers_travel_apart_from_nested_ones(task: Task[..., Any], client: Any) -> None:
    task.apply_async(headers={"tenant": "t1", "n": 1, "nothing": None, "nested": {"a": [1]}})
    more = client.envelope.more
    assert more.headers == {"tenant": "t1", "n": 1, "nothing": None}
    assert unpack_embed(more.opaque) == {"headers": {"nested": {"a": [1]}}}


def test_links_travel_as_signatures(app: App, task: Task[..., Any], client: Any) -> None:
    task.apply_async(link=task.s(1), link_error=[task.s(2), task.si(3)])
    embed = unpack_embed(client.envelope.more.opaque)
    assert [link["args"] for link in embed["callbacks"]] == [(1,)]
    assert [(link["args"], link["immutable"]) for link in embed["errbacks"]] == [((2,), False), ((3,), True)]
    wrong: Any = task
    with pytest.raises(TypeError, match="link takes signatures"):
        task.apply_async(link=wrong)


def test_workflows_data_travels_nested(task: Task[..., Any], client: Any) -> None:
    task.apply_async(group_id="g", group_index=2, chain=[task.s()], stamps={"a": 1}, stamped_headers=["a"], shadow="x")
    embed = unpack_embed(client.envelope.more.opaque)
    assert (embed["group"], embed["group_index"], embed["stamps"], embed["stamped_headers"]) == (
        "g",
        2,
        {"a": 1},
        ["a"],
    )
    assert embed["chain"][0]["task"] == "tasks.work"
    assert client.envelope.more.shadow == "x"


def test_ids_of_the_family_may_be_given(task: Task[..., Any], client: Any) -> None:
    task.apply_async(root_id="r", parent_id="p", reply_to="me")
    more = client.envelope.more
    assert (more.root_id, more.parent_id, more.reply_to) == ("r", "p", "me")


def test_an_option_that_does_not_exist_is_told_with_the_one_that_was_meant(task: Task[..., Any], client: Any) -> None:
    with pytest.raises(TypeError, match="no option 'countdwn'; did you mean 'countdown'"):
        task.apply_async(countdwn=5)
    with pytest.raises(TypeError, match="pass data of your own in headers"):
        task.apply_async(tenant="t1")
    assert not client.published


def test_options_of_amqp_are_taken(task: Task[..., Any], client: Any) -> None:
    task.apply_async(delivery_mode=1, app_id="x", retry=True, retry_policy={"max_retries": 1}, connection=None)
    assert client.envelope.more is None
    assert {"app_id", "message_id", "retry_policy"} <= CALL_OPTIONS


def test_a_periodic_tasks_name_becomes_a_header(task: Task[..., Any], client: Any) -> None:
    task.apply_async(periodic_task_name="nightly")
    assert client.envelope.more.headers == {"periodic_task_name": "nightly"}


# --- inside of tasks


def test_what_a_task_sends_belongs_to_it(app: App, task: Task[..., Any], client: Any) -> None:
    sent: list[Any] = []

    @app.task(bind=True, name="parent")
    def parent(self: Task[..., Any]) -> Any:
        sent.append(task.delay(1))
        sent.append(task.apply_async(add_to_parent=False))
        sent.append(app.send_task("by.name"))
        task(2)
        return list(self.request.children)

    result = parent.apply(task_id="p", root_id="r")
    for _, envelope in client.published:
        assert (envelope.more.root_id, envelope.more.parent_id) == ("r", "p")
    assert result.get() == [sent[0], sent[2]]
    assert result.children == [sent[0], sent[2]]


def test_a_first_tasks_children_have_it_as_their_root(app: App, task: Task[..., Any], client: Any) -> None:
    app.task(name="parent")(lambda: task.delay() and None).apply(task_id="p")
    assert (client.envelope.more.root_id, client.envelope.more.parent_id) == ("p", "p")


def test_a_task_without_a_trail_has_no_children(app: App, task: Task[..., Any]) -> None:
    @app.task(bind=True, name="parent", trail=False)
    def parent(self: Task[..., Any]) -> Any:
        task.delay()
        return self.request.sent_children

    assert parent.apply().get() is None


def test_a_priority_is_inherited_if_the_settings_say_so(app: App, task: Task[..., Any], client: Any) -> None:
    parent = app.task(name="parent")(lambda **options: task.apply_async(**options) and None)
    parent.apply(priority=7)
    assert client.envelope.priority == 0
    app.conf.task_inherit_parent_priority = True
    parent.apply(priority=7)
    assert client.envelope.priority == 7
    parent.apply(kwargs={"priority": 3}, priority=7)
    assert client.envelope.priority == 3


def test_stamps_are_handed_down(app: App, task: Task[..., Any], client: Any) -> None:
    parent = app.task(name="parent")(lambda: task.delay() and None)
    parent.apply(stamps={"run": "5"}, stamped_headers=["run"])
    embed = unpack_embed(client.envelope.more.opaque)
    assert (embed["stamped_headers"], embed["stamps"]) == (["run"], {"run": "5"})


# --- signals


def test_before_publish_may_add_headers(task: Task[..., Any], client: Any) -> None:
    seen: dict[str, Any] = {}

    @signals.before_task_publish.connect(sender="tasks.work")
    def add_headers(sender: str, headers: dict[str, Any], body: Any, routing_key: str, **kwargs: Any) -> None:
        seen.update(headers=dict(headers), body=body, routing_key=routing_key, sender=sender)
        headers["trace"] = "t-1"
        headers["nested"] = {"a": 1}

    try:
        result = task.apply_async((1,), {"x": 2}, headers={"mine": 5}, shadow="s")
    finally:
        signals.before_task_publish.disconnect(add_headers, sender="tasks.work")
    assert seen["headers"]["task"] == "tasks.work"
    assert seen["headers"]["id"] == result.id
    assert seen["headers"]["mine"] == 5
    assert seen["body"] == ((1,), {"x": 2}, {})
    assert seen["routing_key"] == "celery"
    more = client.envelope.more
    assert more.headers == {"mine": 5, "trace": "t-1"}
    assert unpack_embed(more.opaque) == {"headers": {"nested": {"a": 1}}}
    assert more.shadow == "s"


def test_after_publish_and_sent_are_told_what_went_out(app: App, task: Task[..., Any]) -> None:
    told: list[Any] = []

    def after(sender: str, headers: dict[str, Any], body: Any, **kwargs: Any) -> None:
        told.append((sender, headers["id"], body[0]))

    def sent(sender: str, task_id: str, args: Any, **kwargs: Any) -> None:
        told.append((sender, task_id, args))

    signals.after_task_publish.connect(after)
    signals.task_sent.connect(sent)
    try:
        result = task.delay(1)
        other = app.send_task("by.name", (2,))
    finally:
        signals.after_task_publish.disconnect(after)
        signals.task_sent.disconnect(sent)
    assert told == [
        ("tasks.work", result.id, (1,)),
        ("tasks.work", result.id, (1,)),
        ("by.name", other.id, (2,)),
        ("by.name", other.id, (2,)),
    ]


def test_a_call_that_was_refused_is_not_told(task: Task[..., Any], client: Any) -> None:
    told: list[Any] = []
    signals.after_task_publish.connect(lambda **kwargs: told.append(kwargs), weak=False, dispatch_uid="t")
    client.refusal = ConnectionError("no")
    try:
        with pytest.raises(ConnectionError):
            task.delay()
    finally:
        signals.after_task_publish.disconnect(dispatch_uid="t")
    assert not told


def test_a_queue_that_may_not_be_used_is_told_at_the_call(app: App, task: Task[..., Any], client: Any) -> None:
    app.conf.update(task_create_missing_queues=False, task_queues={"celery": {}})
    task.delay()
    with pytest.raises(QueueNotFound, match="'other' is not in task_queues"):
        task.apply_async(queue="other")
    assert len(client.published) == 1
