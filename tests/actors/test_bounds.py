"""What the settings say of the bound of mailboxes, and who is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from greenroom.actors.app import App
from greenroom.actors.errors import ImproperlyConfigured
from greenroom.actors.settings.bounds import bounds_of
from greenroom.transport.requests import Declare
from greenroom.transport.verbs import Bounds, Op


@pytest.mark.parametrize(
    ("settings", "bounds"),
    [
        ({}, None),
        ({"mailbox_max_messages": 5}, Bounds(5, "")),
        ({"mailbox_on_full": "block"}, Bounds(0, "block")),
        ({"mailbox_max_messages": 5, "mailbox_on_full": "reject"}, Bounds(5, "reject")),
        ({"mailbox_max_messages": None, "mailbox_on_full": None}, None),
    ],
)
def test_only_what_was_given_is_declared(
    make_app: Callable[..., App], settings: dict[str, Any], bounds: Bounds | None
) -> None:
    assert bounds_of(make_app(**settings).conf) == bounds


@pytest.mark.parametrize(
    ("setting", "wrong"),
    [
        ("mailbox_max_messages", 0),
        ("mailbox_max_messages", True),
        ("mailbox_max_messages", "many"),
        ("mailbox_on_full", "drop"),
    ],
)
def test_a_bound_that_cannot_be_is_told_at_the_call(make_app: Callable[..., App], setting: str, wrong: Any) -> None:
    app = make_app(**{setting: wrong})
    with pytest.raises(ImproperlyConfigured, match=f"{setting} is {wrong!r}; expected"):
        app.send_task("a")


def test_each_mailbox_is_declared_before_its_first_message_and_once(app: App, client: Any) -> None:
    @app.task(name="a")
    def task(x: int = 0) -> int:
        return x

    task.delay()
    assert client.told == []
    app.conf.update(mailbox_max_messages=5, mailbox_on_full="block")
    for _ in range(2):
        task.delay()
        app.send_task("b", queue="other")
        task.send_many([(1,), (2,)], queue="third")
        app.send_many([task.s(1).set(queue="fourth"), task.s(2)])
    assert [op for _, op, _ in client.told] == [Op.DECLARE] * 4
    assert [params for _, _, params in client.told] == [
        Declare(mailbox, 5, "block") for mailbox in ("celery", "other", "third", "fourth")
    ]
    for after, _, params in client.told:
        before = [mailbox for mailbox, _ in client.published[:after]]
        assert before.count(params.mailbox) == (1 if params.mailbox == "celery" else 0)


def test_in_the_background_nobody_waits_for_that(app: App, client: Any) -> None:
    app.conf.update(mailbox_max_messages=5, task_publish_confirm="background")
    app.send_task("a")
    assert client.told == [(0, Op.DECLARE, Declare("celery", 5, None))]
    assert client.requests == []


def test_what_changes_is_declared_anew_and_so_is_all_to_a_new_link(app: App, client: Any) -> None:
    app.conf.mailbox_max_messages = 5
    app.send_task("a")
    app.conf.mailbox_max_messages = 6
    app.send_task("a")
    app.disconnect()
    app.send_task("a")
    assert [params.max_messages for _, _, params in client.told] == [5, 6, 6]


def test_refs_declare_nothing_since_an_actors_mailbox_is_the_brokers_to_bound(app: App, client: Any) -> None:
    app.conf.mailbox_max_messages = 5
    app.ref("Counter", "a").tell("bump")
    assert len(client.published) == 1
    assert client.told == []
