"""What an application says of its worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from greenroom.actors.app import App
from greenroom.actors.worker.control import CHILDREN_MAX, Wish
from greenroom.actors.worker.wishes import wish_of

BOTH = ("pool", "concurrency")


def test_an_application_that_says_nothing_wishes_celerys_default_pool_and_no_number(app: App) -> None:
    assert wish_of(app, BOTH) == Wish("prefork", 0)


@pytest.mark.parametrize(
    ("pool", "concurrency", "wish"),
    [
        ("threads", 7, Wish("threads", 7)),
        ("processes", "7", Wish("prefork", 7)),
        ("solo", None, Wish("solo", 0)),
        ("asyncio", "auto", Wish("asyncio", 0)),
        ("prefork", CHILDREN_MAX, Wish("prefork", CHILDREN_MAX)),
    ],
)
def test_the_settings_say_what_the_worker_was_not_told(app: App, pool: str, concurrency: Any, wish: Wish) -> None:
    app.conf.update(worker_pool=pool, worker_concurrency=concurrency)
    assert wish_of(app, BOTH) == wish
    assert wish_of(app, ["pool"]) == Wish(wish.pool)
    assert wish_of(app, ["concurrency"]) == Wish("", wish.concurrency)


@pytest.mark.parametrize("wrong", [-3, CHILDREN_MAX + 1, 2.5, "many", True])
def test_a_number_that_cannot_be_is_told_in_words(make_app: Callable[..., App], wrong: Any) -> None:
    app = make_app(worker_concurrency=wrong)
    assert f"worker_concurrency is {wrong!r}; expected a number from 1" in wish_of(app, BOTH).wrong
    assert not wish_of(app, ["pool"]).wrong


def test_a_pool_that_is_not_there_is_told_in_words(make_app: Callable[..., App]) -> None:
    app = make_app(worker_pool="gevent", worker_concurrency=3)
    assert "worker_pool is 'gevent'; there are the pools prefork, threads" in wish_of(app, BOTH).wrong
    assert wish_of(app, ["concurrency"]) == Wish("", 3)
