"""A simulated cluster of production machines: what happens in it is what would happen, and again the same."""

from __future__ import annotations

import random
import secrets
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from greenroom.actors.app import App
from greenroom.supervisor.harness.routed import RoutedClient
from greenroom.supervisor.harness.trace import Event, Kind
from greenroom.supervisor.harness.world import World

MakeWorld = Callable[..., World]


class Shop:
    """An application, and what its bodies did."""

    def __init__(self) -> None:
        self.app = App("shop", set_as_current=False)
        self.ran: list[int] = []

        @self.app.task(acks_late=True, reject_on_worker_lost=True)
        def add(number: int) -> int:
            self.ran.append(number)
            return number + 1

        @self.app.task
        def fan(count: int) -> list[str]:
            return [str(add.delay(number).id) for number in range(count)]

        @self.app.task
        def dice() -> None:
            add.delay(random.randrange(2**62) ^ secrets.randbits(62) ^ uuid.uuid4().int)
            add.apply_async((1,), task_id=f"{time.time()} {datetime.now(UTC)} {random.Random().random()}")

        self.dice = dice
        self.add = add
        self.fan = fan


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def make_world(shop: Shop) -> Iterator[MakeWorld]:
    worlds: list[World] = []

    def make(**options: Any) -> World:
        world = World(shop.app, **options)
        worlds.append(world)
        client = RoutedClient(world)

        def client_of(_app: App) -> RoutedClient:
            return client

        shop.app.client_factory = client_of
        world.start()
        return world

    yield make
    for world in worlds:
        world.close()


def kill_child_at(world: World, kind: Kind) -> None:
    """Kill the child to which this happens for the first time, while it happens."""
    killed: list[Event] = []

    def listen(event: Event) -> None:
        if event.kind is kind and not killed:
            killed.append(event)
            next(child for child in world.children if child.lane == event.lane).kill(9)

    world.trace.listen(listen)


def test_tasks_run_and_their_results_come_back(shop: Shop, make_world: MakeWorld) -> None:
    world = make_world(nodes=2, children=2)
    results = [shop.add.delay(number) for number in range(8)]
    sent = shop.fan.delay(3)
    assert [result.get(timeout=10) for result in results] == list(range(1, 9))
    assert len(sent.get(timeout=10)) == 3
    world.settle()
    assert sorted(shop.ran) == sorted([*range(8), *range(3)])


@pytest.mark.parametrize(("kind", "runs"), [(Kind.STARTED, 1), (Kind.RAN, 2), (Kind.SETTLE, 1)])
def test_a_task_whose_child_is_killed_runs_again_unless_its_page_tells_its_outcome(
    shop: Shop, make_world: MakeWorld, kind: Kind, runs: int
) -> None:
    world = make_world(children=2)
    kill_child_at(world, kind)
    results = [shop.add.delay(number) for number in range(2)]
    world.settle()
    assert [result.get(timeout=10) for result in results] == [1, 2]
    assert shop.ran.count(0) == runs
    assert shop.ran.count(1) == 1


def test_running_tasks_are_not_run_again_because_their_broker_was_away(shop: Shop, make_world: MakeWorld) -> None:
    world = make_world(children=2)
    results = [shop.add.delay(number) for number in range(3)]
    world.kill_broker()
    world.run_for(3)
    world.restart_broker()
    world.settle()
    assert [result.get(timeout=10) for result in results] == [1, 2, 3]
    assert sorted(shop.ran) == [0, 1, 2]


def test_what_a_lost_node_held_is_done_by_another(shop: Shop, make_world: MakeWorld) -> None:
    world = make_world(nodes=1)
    world.nodes[0].kill()
    results = [shop.add.delay(number) for number in range(2)]
    world.settle()
    assert [result.get(timeout=10) for result in results] == [1, 2]
    assert not world.nodes[0].alive


def test_a_world_goes_the_same_way_twice(shop: Shop, make_world: MakeWorld) -> None:
    def once() -> list[tuple[int, str, Kind]]:
        world = make_world(nodes=2, children=2)
        kill_child_at(world, Kind.RAN)
        for number in range(5):
            shop.add.delay(number)
        world.settle()
        return [(event.at, event.lane, event.kind) for event in world.trace.events]

    assert once() == once()


def test_two_runs_of_one_world_have_the_same_digest(shop: Shop, make_world: MakeWorld) -> None:
    def once(seed: int) -> str:
        world = make_world(nodes=2, children=2, seed=seed)
        with world.realm.inside():
            kill_child_at(world, Kind.RAN)
            shop.fan.delay(5)
            shop.dice.delay()
            world.settle()
        return world.trace.digest()

    assert once(1) == once(1)
    assert once(1) != once(2)
