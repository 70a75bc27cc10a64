"""An application, and worlds around it that the test is in until it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from greenroom.actors.app import App
from greenroom.supervisor.harness.routed import RoutedClient
from greenroom.supervisor.harness.world import World


@pytest.fixture
def app() -> App:
    return App("shop", set_as_current=False)


@pytest.fixture
def make_world(app: App) -> Iterator[Callable[..., World]]:
    """Make a world around the application; the test is in it from then on."""
    with ExitStack() as stack:

        def make(**options: Any) -> World:
            world = World(app, **options)
            stack.callback(world.close)
            client = RoutedClient(world)

            def client_of(_app: App) -> RoutedClient:
                return client

            app.client_factory = client_of
            world.start()
            stack.enter_context(world.realm.inside())
            return world

        yield make
