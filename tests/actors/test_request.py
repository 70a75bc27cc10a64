"""The request of a delivered message: every attribute, made when it is asked for."""

# Short lambdas stand for tasks and receivers here, and some tests look inside.
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownVariableType=false

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from greenroom.actors.app import App
from greenroom.actors.bodies import pack_embed
from greenroom.actors.tasks.request import Context
from greenroom.transport.message import Delivery, Envelope, Flag, More

SECOND = 1_000_000
DUE = datetime(2030, 1, 1, tzinfo=UTC)


def delivered(envelope: Envelope, **delivery: Any) -> Context:
    return Context.delivered(
        Delivery(7, envelope, "celery", **delivery), [1], {"y": 2}, hostname="celery@here", loglevel=20
    )


@pytest.fixture
def bare() -> Context:
    return delivered(Envelope("id-1", "tasks.add", "msgpack", b""))


@pytest.fixture
def full() -> Context:
    more = More(
        due=int(DUE.timestamp()) * SECOND,
        expires=int(DUE.timestamp()) * SECOND,
        time_limit=60 * SECOND,
        soft_time_limit=30_500_000,
        retries=2,
        root_id="root",
        parent_id="parent",
        reply_to="me",
        shadow="shadow",
        headers={"tenant": "t1", "id": "not the id"},
        opaque=pack_embed(
            {
                "callbacks": [{"task": "a"}],
                "errbacks": [{"task": "b"}],
                "chain": [{"task": "c"}],
                "chord": {"task": "d"},
                "group": "g",
                "group_index": 3,
                "stamps": {"s": 1},
                "stamped_headers": ["s"],
                "replaced_task_nesting": 1,
                "argsrepr": "(...)",
                "headers": {"nested": [1]},
            }
        ),
    )
    envelope = Envelope("id-1", "tasks.add", "msgpack", b"", Flag.IGNORE_RESULT, 5, 0, "gen1@there", more)
    return delivered(envelope, deliveries=3, redelivered=True)


def test_attributes_of_a_bare_message(bare: Context) -> None:
    assert (bare.id, bare.task, bare.args, bare.kwargs) == ("id-1", "tasks.add", [1], {"y": 2})
    assert (bare.root_id, bare.parent_id, bare.correlation_id) == ("id-1", None, "id-1")
    assert (bare.retries, bare.eta, bare.expires, bare.timelimit) == (0, None, None, [None, None])
    assert (bare.called_directly, bare.is_eager, bare.utc, bare.ignore_result) == (False, False, True, False)
    assert (bare.hostname, bare.loglevel, bare.logfile, bare.origin) == ("celery@here", 20, None, None)
    assert (bare.callbacks, bare.errbacks, bare.chain, bare.chord) == (None, None, None, None)
    assert (bare.group, bare.taskset, bare.group_index) == (None, None, None)
    assert (bare.headers, bare.shadow, bare.reply_to, bare.stamps) == (None, None, None, None)
    assert (bare.argsrepr, bare.kwargsrepr) == ("(1,)", "{'y': 2}")
    assert bare.delivery_info == {
        "exchange": "",
        "routing_key": "celery",
        "priority": None,
        "redelivered": False,
    }
    assert bare.children == []
    assert bare.deliveries == 1
    assert bare.fence == 0  # a worker's own requests know their lease


def test_s12_attributes_of_a_full_message(full: Context) -> None:
    assert (full.root_id, full.parent_id, full.retries, full.shadow) == ("root", "parent", 2, "shadow")
    assert full.eta == full.expires == DUE.isoformat()
    assert (full.time_limit, full.soft_time_limit, full.timelimit) == (60.0, 30.5, [60.0, 30.5])
    assert full.ignore_result
    assert full.origin == "gen1@there"
    assert (full.callbacks, full.errbacks) == ([{"task": "a"}], [{"task": "b"}])
    assert (full.chain, full.chord) == ([{"task": "c"}], {"task": "d"})
    assert (full.group, full.taskset, full.group_index) == ("g", "g", 3)
    assert (full.stamps, full.stamped_headers, full.replaced_task_nesting) == ({"s": 1}, ["s"], 1)
    assert full.argsrepr == "(...)"
    assert full.headers == {"tenant": "t1", "id": "not the id", "nested": [1]}
    assert full.delivery_info is not None
    assert full.delivery_info["redelivered"] is True
    assert full.delivery_info["priority"] == 5
    assert full.properties is not None
    assert full.properties["correlation_id"] == "id-1"
    assert full.deliveries == 3


def test_custom_headers_are_attributes_unless_the_name_is_taken(full: Context) -> None:
    assert full.tenant == "t1"
    assert full.get("nested") == [1]
    assert full.id == "id-1"
    with pytest.raises(AttributeError, match="'absent'"):
        full.absent  # noqa: B018
    assert full.get("absent", 5) == 5


def test_an_attribute_is_made_once_and_may_be_set(bare: Context) -> None:
    assert bare.delivery_info is bare.delivery_info
    bare.id = "another"
    bare.mine = 5  # type: ignore[attr-defined]
    assert (bare.id, bare.mine) == ("another", 5)
    bare.update({"retries": 4}, shadow="s")
    assert (bare.retries, bare.shadow) == (4, "s")
    bare.clear()
    assert bare.id == "id-1"


def test_a_relative_expiry_is_told_as_a_moment() -> None:
    request = delivered(Envelope("id-1", "a", "msgpack", b"", more=None), expires_in=60 * SECOND)
    assert request.expires is not None
    left = datetime.fromisoformat(request.expires) - datetime.now(UTC)
    assert timedelta(seconds=50) < left <= timedelta(seconds=60)


def test_a_direct_call_has_the_defaults() -> None:
    request = Context(args=(1,), kwargs={})
    assert (request.id, request.retries, request.called_directly, request.embed) == (None, 0, True, {})
    assert request.delivery_info is None
    assert request.headers is None


def test_the_options_of_a_request_send_it_again(app: App, client: Any, full: Context) -> None:
    task = app.task(name="tasks.add")(lambda x, y: None)
    options = full.as_execution_options()
    assert options["task_id"] == "id-1"
    assert options["link"] == [{"task": "a"}]
    assert options["retries"] == 2
    again = task.signature_from_request(full)
    assert (again.args, again.kwargs, again.options["queue"]) == ((1,), {"y": 2}, "celery")
    again.apply_async()
    envelope = client.envelope
    assert (envelope.id, envelope.more.root_id, envelope.more.retries) == ("id-1", "root", 2)
    assert envelope.more.time_limit == 60 * SECOND


def test_what_nobody_asks_for_is_not_made(bare: Context) -> None:
    assert set(vars(bare)) == {"delivery", "args", "kwargs", "called_directly", "hostname", "loglevel"}
