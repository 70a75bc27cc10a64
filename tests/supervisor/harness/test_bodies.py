"""User code in a simulated world: it waits on virtual time, takes turns with others, and dies where it stands."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic as imported_monotonic
from time import sleep as imported_sleep

import pytest

from greenroom.actors.actor import Actor
from greenroom.actors.app import App
from greenroom.actors.errors import SoftTimeLimitExceeded
from greenroom.supervisor.harness.trace import Kind
from greenroom.supervisor.harness.world import World

MakeWorld = Callable[..., World]


def test_bodies_that_sleep_take_turns_and_the_world_sleeps_in_no_time(app: App, make_world: MakeWorld) -> None:
    said: list[tuple[str, float]] = []

    @app.task
    def nap(name: str, seconds: float) -> float:
        said.append((name, time.monotonic()))
        began = imported_monotonic()
        (time.sleep if seconds == 3600 else imported_sleep)(seconds)
        said.append((name, time.monotonic()))
        return round(imported_monotonic() - began, 6)

    world = make_world(children=2)
    long, short = nap.delay("long", 3600), nap.delay("short", 60)
    assert short.get(timeout=100) == 60
    assert long.get(timeout=4000) == 3600
    assert [name for name, _ in said] == ["long", "short", "short", "long"]
    world.settle()


def test_a_test_in_its_world_sleeps_and_reads_the_clock_of_the_world(make_world: MakeWorld) -> None:
    world = make_world()
    wall, began = datetime.now(UTC), time.time()
    time.sleep(90)
    assert round((datetime.now(UTC) - wall).total_seconds(), 3) == 90
    assert time.time() - began == pytest.approx(90)
    assert time.time_ns() == world.clockwork.now.wall * 1000
    assert abs(datetime.fromtimestamp(time.time(), UTC).timestamp() - world.clockwork.now.wall / 1e6) < 0.001


def test_outside_of_a_world_time_is_the_machine_s(make_world: MakeWorld, app: App) -> None:
    world = World(app)
    before = time.monotonic()
    assert time.monotonic() - before < 60
    assert abs(datetime.now(UTC).timestamp() - time.time()) < 60
    assert time.time() != world.clockwork.now.wall / 1e6
    with world.realm.inside():
        assert time.time() == world.clockwork.now.wall / 1e6
    world.close()


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])
def test_coroutine_tasks_wait_on_virtual_time_and_their_outcome_comes_back(
    app: App, make_world: MakeWorld, pool: str
) -> None:
    order: list[str] = []

    @app.task
    async def nap(name: str, seconds: float) -> str:
        order.append(f"{name} begins")
        await asyncio.sleep(seconds)
        order.append(f"{name} ends")
        inner = await asyncio.gather(asyncio.to_thread(time.sleep, 1), asyncio.sleep(1, "slept"))
        return f"{name} {inner[1]}"

    make_world(children=1, slots=2, pool=pool) if pool != "prefork" else make_world(children=2)
    results = [nap.delay("long", 20), nap.delay("short", 10)]
    assert [result.get(timeout=60) for result in results] == ["long slept", "short slept"]
    assert order == ["long begins", "short begins", "short ends", "long ends"]


def test_coroutines_of_one_asyncio_child_share_its_loop(app: App, make_world: MakeWorld) -> None:
    lock = asyncio.Lock()
    inside: list[int] = []

    @app.task
    async def locked(number: int) -> int:
        async with lock:
            inside.append(number)
            await asyncio.sleep(5)
            inside.append(number)
        return number

    make_world(children=1, slots=3, pool="asyncio")
    results = [locked.delay(number) for number in range(3)]
    assert [result.get(timeout=60) for result in results] == [0, 1, 2]
    assert inside == [0, 0, 1, 1, 2, 2]


def test_a_plain_body_may_run_a_loop_of_its_own(app: App, make_world: MakeWorld) -> None:
    @app.task
    def run(seconds: float) -> float:
        async def main() -> float:
            loop = asyncio.get_running_loop()
            began = loop.time()
            async with asyncio.timeout(60):
                await asyncio.sleep(seconds)
            return round(loop.time() - began, 6)

        return asyncio.run(main())

    make_world(children=2)
    results = [run.delay(7), run.delay(3)]
    assert [result.get(timeout=60) for result in results] == [7, 3]


def test_bodies_that_wait_for_each_other_by_events_and_queues_do_so_on_virtual_time(
    app: App, make_world: MakeWorld
) -> None:
    opened, letters = threading.Event(), queue.Queue[str]()

    @app.task
    def wait() -> tuple[bool, bool, str]:
        return opened.wait(timeout=1), opened.wait(), letters.get(timeout=100)

    @app.task
    def act() -> None:
        time.sleep(5)
        opened.set()
        time.sleep(5)
        letters.put("hello")

    make_world(children=2)
    waiting, _ = wait.delay(), act.delay()
    assert tuple(waiting.get(timeout=60)) == (False, True, "hello")


def test_a_coroutine_that_exits_ends_its_process(app: App, make_world: MakeWorld) -> None:
    pids: list[int] = []

    @app.task(acks_late=True, reject_on_worker_lost=True, max_deliveries=2)
    async def leave() -> None:
        await asyncio.sleep(1)
        pids.append(os.getpid())
        sys.exit(3)

    world = make_world(pool="asyncio")
    result = leave.delay()
    world.settle()
    assert len(set(pids)) == 2
    assert result.state == "FAILURE"


@pytest.mark.parametrize("pool", ["prefork", "asyncio"])
def test_a_soft_limit_is_raised_where_a_body_waits(app: App, make_world: MakeWorld, pool: str) -> None:
    cleaned: list[float] = []

    @app.task(soft_time_limit=5, time_limit=60)
    async def coroutine() -> str:
        try:
            await asyncio.sleep(1000)
        except SoftTimeLimitExceeded:
            cleaned.append(time.monotonic())
            await asyncio.sleep(1)
            return "in time"
        return "too late"

    @app.task(soft_time_limit=5, time_limit=60)
    def plain() -> str:
        try:
            time.sleep(1000)
        except SoftTimeLimitExceeded:
            cleaned.append(time.monotonic())
            time.sleep(1)
            return "in time"
        return "too late"

    make_world(pool=pool, children=2)
    assert [task.delay().get(timeout=100) for task in (coroutine, plain)] == ["in time", "in time"]
    assert len(cleaned) == 2


def test_a_body_that_is_killed_in_its_sleep_never_wakes_up(app: App, make_world: MakeWorld) -> None:
    said: list[str] = []

    @app.task(acks_late=True, reject_on_worker_lost=True)
    def nap() -> str:
        try:
            said.append("begins")
            time.sleep(10)
            said.append("ends")
        finally:
            said.append("cleans up")
        return "done"

    world = make_world(children=1)
    result = nap.delay()
    world.run_for(5)
    world.children[0].kill(signal.SIGKILL)
    assert result.get(timeout=60) == "done"
    assert said == ["begins", "begins", "ends", "cleans up"]


@pytest.mark.parametrize(
    "end",
    [
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        lambda: os._exit(3),
        lambda: sys.exit(3),
        lambda: os.abort(),
        lambda: signal.raise_signal(signal.SIGSEGV),
    ],
)
def test_a_body_that_ends_its_process_ends_the_simulated_one(
    app: App, make_world: MakeWorld, end: Callable[[], None]
) -> None:
    starts: list[int] = []

    @app.task(acks_late=True, reject_on_worker_lost=True, max_deliveries=2)
    def poison() -> None:
        starts.append(os.getpid())
        end()

    world = make_world()
    result = poison.delay()
    world.settle()
    assert len(starts) == 2
    assert starts[0] != starts[1]
    assert [event.kind for event in world.trace.events].count(Kind.DEAD) == 1
    assert result.state == "FAILURE"


def test_an_actor_s_coroutines_wait_on_virtual_time(app: App, make_world: MakeWorld) -> None:
    class Counter(Actor):
        def __init__(self) -> None:
            self.n = 0

        async def bump(self) -> int:
            before = self.n
            await asyncio.sleep(1)
            self.n = before + 1
            return self.n

    make_world(children=2)
    counter = app.ref(Counter, "home")
    answers = [counter.ask(Counter.bump) for _ in range(3)]
    assert [answer.get(timeout=60) for answer in answers] == [1, 2, 3]
