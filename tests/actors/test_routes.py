"""Where messages go: routes, queues, exchanges, precedence."""

# Short lambdas stand for tasks and receivers here, and some tests look inside.
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import re
import sys
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.app import App
from greenroom.actors.errors import ImproperlyConfigured, QueueNotFound
from greenroom.actors.tasks.queues import Exchange, Queue, Queues
from greenroom.actors.tasks.routes import Router, TableRoute, glob_pattern

words = st.from_regex(r"[a-z]{1,4}", fullmatch=True)


def queues(declared: Any = None, *, create_missing: bool = True) -> Queues:
    return Queues(
        declared,
        default_exchange="celery",
        default_exchange_type="direct",
        default_routing_key="celery",
        create_missing=create_missing,
    )


def mailbox(routes: Any, name: str, **options: Any) -> str:
    return Router(routes, queues(), "celery").route(options, name)[0]


def test_without_a_route_the_default_queue_is_it() -> None:
    assert mailbox(None, "feed.tasks.add") == "celery"
    assert mailbox({"other": "q"}, "feed.tasks.add") == "celery"


@pytest.mark.parametrize(
    "routes",
    [
        {"feed.tasks.add": "feeds"},
        {"feed.tasks.add": {"queue": "feeds"}},
        {"feed.tasks.*": {"queue": "feeds"}},
        {"*": "feeds"},
        {re.compile(r"(feed|video)\.tasks\..*"): "feeds"},
        [[("nothing.*", "x"), ("feed.*", "feeds"), ("feed.tasks.add", "feeds")]],
        ([("feed.*", "feeds")],),
        (("feed.*", "feeds"),),
        [{"nothing": "x"}, {"feed.tasks.add": "feeds"}],
        lambda name, args, kwargs, options, task=None, **kw: {"queue": "feeds"},
        [lambda name, args, kwargs, options, task=None, **kw: None, {"feed.*": Queue("feeds")}],
    ],
)
def test_the_forms_of_routes(routes: Any) -> None:
    assert mailbox(routes, "feed.tasks.add") == "feeds"


def test_the_first_route_that_answers_decides() -> None:
    routes = [{"a.*": "first"}, {"a.b": "second"}]
    assert mailbox(routes, "a.b") == "first"
    assert mailbox([[("a.*", "first"), ("a.b.*", "second")]], "a.b.c") == "first"


@given(parts=st.lists(words, min_size=1, max_size=4), star=st.integers(0, 3))
def test_a_star_stands_for_any_characters_at_least_one(parts: list[str], star: int) -> None:
    name = ".".join(parts)
    starred = list(parts)
    starred[star % len(parts)] = "*"
    pattern = re.compile(glob_pattern(".".join(starred)))
    assert pattern.match(name)
    assert not pattern.match(name + ".") or starred[-1] == "*"
    missing = list(parts)
    missing[star % len(parts)] = ""
    assert not re.compile(glob_pattern(".".join(starred))).fullmatch(".".join(missing))


def test_the_dots_of_a_glob_are_dots() -> None:
    assert TableRoute({"feed.*": "q"})("feedx.a") is None


def test_a_route_may_be_a_class_or_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine:
        def route_for_task(self, task: str, args: Any = None, kwargs: Any = None) -> str | None:
            return "mine" if task.startswith("a.") else None

    module = types.ModuleType("routes_of_mine")
    module.__dict__.update(Mine=Mine, function=lambda name, args, kwargs, options, task=None: "function")
    monkeypatch.setitem(sys.modules, "routes_of_mine", module)
    for route in (Mine, Mine(), "routes_of_mine.Mine", "routes_of_mine:Mine"):
        assert mailbox([route], "a.b") == "mine"
        assert mailbox([route], "b") == "celery"
    assert mailbox("routes_of_mine:function", "b") == "function"


def test_what_is_no_route_is_told() -> None:
    with pytest.raises(ImproperlyConfigured, match="expected a dict, a function"):
        mailbox([5], "a")
    with pytest.raises(ImproperlyConfigured, match="a queue's name or a dict"):
        mailbox({"a": 5}, "a")


def test_precedence_is_call_then_task_then_route_then_default(app: App, client: Any) -> None:
    app.conf.task_routes = {"a.*": {"queue": "route", "priority": 3, "serializer": "json"}}
    plain = app.task(name="a.plain")(lambda: None)
    own = app.task(name="a.own", queue="task", priority=4)(lambda: None)
    for send, expected in (
        (app.task(name="b")(lambda: None).delay, ("celery", 0, "msgpack")),
        (plain.delay, ("route", 3, "json")),
        (lambda: plain.apply_async(countdown=1), ("route", 3, "json")),
        (lambda: app.send_task("a.elsewhere"), ("route", 3, "json")),
        (own.delay, ("task", 4, "json")),
        (lambda: own.apply_async(queue="call", priority=5), ("call", 5, "json")),
    ):
        send()
        assert (client.mailbox, client.envelope.priority, client.envelope.content) == expected


def test_a_call_that_names_a_routing_key_is_not_led_elsewhere_by_a_route(app: App, client: Any) -> None:
    app.conf.task_routes = {"a": {"queue": "route", "priority": 3}}
    app.task(name="a")(lambda: None).apply_async(routing_key="by.key")
    assert (client.mailbox, client.envelope.priority) == ("by.key", 3)


def test_a_function_sees_the_call(app: App, client: Any) -> None:
    seen: list[Any] = []

    def route(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **kw: Any) -> Any:
        seen.append((name, args, kwargs, options.get("priority"), task))
        return {"queue": f"shard-{args[0] % 2}"}

    app.conf.task_routes = [route]
    task = app.task(name="a")(lambda x: None)
    for number in (1, 2):
        task.delay(number)
        assert client.mailbox == f"shard-{number % 2}"
    task.apply_async((3,), priority=1)
    assert seen[-1] == ("a", (3,), {}, 1, task)
    assert [result.id for result in task.send_many([(1,), (2,)])]
    assert client.batches[-2:] == [("shard-1", 1), ("shard-0", 1)]


# --- queues


def test_queues_are_declared_as_names_dicts_and_objects() -> None:
    assert queues(["a", Queue("b")]).names == ["a", "b"]
    assert queues({"a": {"exchange": "x"}, "b": Queue("b")}).names == ["a", "b"]


def test_a_queue_that_is_missing_may_be_refused() -> None:
    strict = queues(["a"], create_missing=False)
    assert strict.mailbox({"queue": "a"}, "celery") == "a"
    with pytest.raises(QueueNotFound, match="'b' is not in task_queues"):
        strict.mailbox({"queue": "b"}, "celery")
    assert queues(["a"]).mailbox({"queue": "b"}, "celery") == "b"


MEDIA = Exchange("media")
TOPIC = Exchange("events", type="topic")
DECLARED = [
    Queue("celery"),
    Queue("videos", MEDIA, routing_key="media.video"),
    Queue("images", MEDIA, routing_key="media.image"),
    Queue("errors", TOPIC, routing_key="*.error"),
    Queue("billing", TOPIC, routing_key="billing.#"),
    Queue("news", Exchange("news", type="fanout")),
]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "celery"),
        ({"exchange": "media", "routing_key": "media.video"}, "videos"),
        ({"exchange": MEDIA, "routing_key": "media.image"}, "images"),
        ({"exchange": "events", "routing_key": "shop.error"}, "errors"),
        ({"exchange": "events", "routing_key": "billing"}, "billing"),
        ({"exchange": "events", "routing_key": "billing.eu.paid"}, "billing"),
        ({"exchange": "news", "routing_key": "whatever"}, "news"),
        ({"routing_key": "celery"}, "celery"),
        ({"routing_key": "by.its.name"}, "by.its.name"),
        ({"queue": Queue("named")}, "named"),
    ],
)
def test_exchanges_and_routing_keys_lead_to_queues(options: dict[str, Any], expected: str) -> None:
    assert queues(DECLARED).mailbox(options, "celery") == expected


def test_a_routing_key_that_leads_nowhere_is_told() -> None:
    with pytest.raises(QueueNotFound, match=r"exchange 'media' with routing key 'media\.audio'"):
        queues(DECLARED).mailbox({"exchange": "media", "routing_key": "media.audio"}, "celery")


def test_a_default_queue_may_be_an_object(app: App, client: Any) -> None:
    app.conf.task_default_queue = Queue("jobs")
    app.task(name="a")(lambda: None).delay()
    assert client.mailbox == "jobs"
