"""In a simulated world the standard library's chance and ids are the world's; outside of it, they are as ever."""

from __future__ import annotations

import os
import pickle
import random
import secrets
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from random import choice as imported_choice
from typing import Any

import pytest

from greenroom.actors.app import App
from greenroom.actors.identity import new_id
from greenroom.supervisor.harness.realm import Realm, current_realm
from greenroom.supervisor.harness.world import World

DRAWS: dict[str, Callable[[], object]] = {
    "random": lambda: random.random(),
    "randrange": lambda: random.randrange(2**60),
    "shuffle": lambda: random.sample(range(1000), 20),
    "choice, imported": lambda: [imported_choice("abcdefgh") for _ in range(20)],
    "a generator of one's own": lambda: random.Random().random(),
    "the system's generator": lambda: random.SystemRandom().random(),
    "secrets": lambda: secrets.token_hex(),
    "urandom": lambda: os.urandom(16),
    "uuid4": lambda: uuid.uuid4(),
    "uuid1": lambda: [uuid.uuid1(), uuid.uuid1()],
}


@pytest.fixture
def make_realm() -> Iterator[Callable[[int], Realm]]:
    worlds: list[World] = []

    def make(seed: int) -> Realm:
        worlds.append(World(App("shop", set_as_current=False), seed=seed))
        return worlds[-1].realm

    yield make
    for world in worlds:
        world.close()


@pytest.mark.parametrize("draw", list(DRAWS))
def test_chance_comes_from_the_seed_of_the_world_and_from_the_machine_outside(
    make_realm: Callable[[int], Realm], draw: str
) -> None:
    def once(seed: int) -> object:
        with make_realm(seed).inside():
            return DRAWS[draw]()

    assert once(1) == once(1)
    assert once(1) != once(2)
    assert DRAWS[draw]() != DRAWS[draw]()


def test_a_seed_of_user_code_is_its_own_and_touches_nobody_outside(make_realm: Callable[[int], Realm]) -> None:
    state = random.getstate()
    drawn: list[float] = []
    for seed in (1, 2):
        with make_realm(seed).inside():
            random.seed(7)
            drawn.append(random.random())
    assert drawn == [random.Random(7).random()] * 2
    assert random.getstate() == state


def test_an_additional_draw_of_one_use_disturbs_no_other(make_realm: Callable[[int], Realm]) -> None:
    with make_realm(1).inside():
        first = uuid.uuid4()
    with make_realm(1).inside():
        random.random()
        assert uuid.uuid4() == first


def test_ids_are_uuids_of_the_world_s_time_in_order_and_the_same_in_each_run(
    make_realm: Callable[[int], Realm],
) -> None:
    runs: list[list[str]] = []
    for seed in (1, 2):
        realm = make_realm(seed)
        with realm.inside():
            runs.append([new_id() for _ in range(3)])
            time.sleep(5)
            runs[-1].append(new_id())
    assert runs[0] == runs[1] == sorted(set(runs[0]))
    assert {uuid.UUID(id).version for id in runs[0]} == {7}
    assert new_id() not in runs[0]


def test_dates_of_a_world_are_plain_dates(make_realm: Callable[[int], Realm]) -> None:
    class Stamp(datetime):
        """A class that somebody derived."""

    realm = make_realm(0)
    with realm.inside():
        now = datetime.now(UTC)
        assert type(now) is datetime
        assert isinstance(Stamp.now(UTC), Stamp)
        assert pickle.loads(pickle.dumps(now)) == now
        here = datetime.fromtimestamp(time.time())  # noqa: DTZ006
        assert datetime.today().date() == date.today() == here.date()  # noqa: DTZ002, DTZ011
        assert datetime.utcnow().replace(tzinfo=UTC) == now  # noqa: DTZ003  # pyright: ignore[reportDeprecated]
        assert time.strftime("%Y", time.gmtime()) == time.strftime("%Y") == "2023"
        assert time.clock_gettime(time.CLOCK_REALTIME) == time.time()
        assert time.clock_gettime_ns(time.CLOCK_MONOTONIC) == time.monotonic_ns() == time.perf_counter_ns()
    assert datetime.now(UTC).year > 2023


def test_another_thread_is_in_no_world(make_realm: Callable[[int], Realm]) -> None:
    found: list[object] = []
    realm = make_realm(0)
    thread = threading.Thread(target=lambda: found.append((current_realm(), time.time() > 1_710_000_000)))
    with realm.inside():
        realm.allowed["thread"] += 1
        thread.start()
    thread.join(10)
    assert found == [(None, True)]


PROGRAM = """
from greenroom.actors.app import App
from greenroom.supervisor.harness.routed import RoutedClient
from greenroom.supervisor.harness.world import World
import random, time

app = App("shop", set_as_current=False)

@app.task(acks_late=True, reject_on_worker_lost=True)
def roll(name):
    time.sleep(random.random())
    return {name: hash(name) and random.random()}

world = World(app, nodes=2, children=2, seed=3)
client = RoutedClient(world)
app.client_factory = lambda _: client
world.start()
with world.realm.inside():
    for number in range(6):
        roll.delay(f"dice {number}")
    world.nodes[0].kill()
    world.settle()
print(world.trace.digest())
"""


def test_runs_in_other_processes_and_under_other_hash_seeds_have_the_same_digest(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def digest(hash_seed: str) -> Any:
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    assert digest("1") == digest("2") == digest("random") != ""
