"""A worker whose application has a say in what it is: nothing is forked before that is settled."""

from __future__ import annotations

import pytest

from greenroom.actors.worker.control import Ready, Wish
from greenroom.supervisor.pool.events import (
    Exit,
    Fork,
    Forked,
    Notice,
    PoolEffect,
    PoolEvent,
    PoolReady,
    Said,
    SpawnAsked,
    SpawnerEnded,
    SpawnerUp,
    StartPool,
    StartSpawner,
    Stop,
    StopAsked,
    Tick,
)
from greenroom.supervisor.pool.limits import PoolLimits
from greenroom.supervisor.pool.machine import EXIT_UNUSABLE, PoolMachine
from greenroom.transport.clock import Now
from greenroom.transport.verbs import ChildKind

BOTH = ("pool", "concurrency")
LIMITS = PoolLimits(concurrency=2)


def tell(machine: PoolMachine, event: PoolEvent, boot: int = 1) -> list[PoolEffect]:
    return machine.apply(event, Now(boot, boot))


def forks(effects: list[PoolEffect]) -> list[tuple[str, int]]:
    return [(effect.pool, effect.slots) for effect in effects if isinstance(effect, Fork)]


def started(*open_to_app: str, kind: str = "prefork") -> PoolMachine:
    machine = PoolMachine(LIMITS, kind, open_to_app)
    effects = tell(machine, StartPool())
    assert [effect.generation for effect in effects if isinstance(effect, StartSpawner)] == [1]
    assert bool(forks(effects)) is not bool(open_to_app)
    return machine


@pytest.mark.parametrize(
    ("open_to_app", "wish", "forked"),
    [
        (BOTH, Wish("prefork", 3), [("prefork", 1)] * 3),
        (BOTH, Wish("threads", 5), [("threads", 5)]),
        (BOTH, Wish("solo", 5), [("solo", 1)]),
        (BOTH, Wish(), [("prefork", 1)] * 2),
        (["pool"], Wish("asyncio", 5), [("asyncio", 2)]),
        (["concurrency"], Wish("threads", 1), [("prefork", 1)]),
    ],
)
def test_the_first_children_are_as_the_application_wishes_where_it_may(
    open_to_app: list[str], wish: Wish, forked: list[tuple[str, int]]
) -> None:
    machine = started(*open_to_app)
    effects = tell(machine, SpawnerUp(1, wish))
    assert forks(effects) == forked
    told: list[PoolEffect] = []
    for number in range(1, len(forked) + 1):
        tell(machine, Forked(number, 1000 + number))
        told += tell(machine, Said(number, Ready(["t"], ["m"])))
    concurrency = max(len(forked), forked[0][1])
    assert [effect for effect in told if isinstance(effect, PoolReady)] == [
        PoolReady(["t"], ["m"], forked[0][0], concurrency)
    ]
    # A later spawner, of a reload, changes nothing of it.
    assert forks(tell(machine, SpawnerUp(1, Wish("solo", 9)))) == []


def test_where_nothing_is_open_nobody_waits_for_the_spawner() -> None:
    machine = started()
    assert forks(tell(machine, SpawnerUp(1, Wish("threads", 9)))) == []


def test_an_application_that_does_not_say_is_not_waited_for_longer_than_a_child_would_be() -> None:
    machine = started(*BOTH)
    due = 1 + LIMITS.start_timeout
    assert machine.wake_at() == due
    assert forks(tell(machine, Tick(), due - 1)) == []
    assert forks(tell(machine, Tick(), due)) == [("prefork", 1)] * 2
    assert forks(tell(machine, SpawnerUp(1, Wish("threads", 9)), due)) == []


def test_a_wish_that_cannot_be_ends_the_worker_in_words() -> None:
    machine = started(*BOTH)
    effects = tell(machine, SpawnerUp(1, Wish(wrong="there is no pool 'gevent'")))
    assert forks(effects) == []
    assert [effect.kind for effect in effects if isinstance(effect, Notice)] == ["unusable"]
    [end] = [effect for effect in effects if isinstance(effect, Exit)]
    assert (end.code, end.reason) == (EXIT_UNUSABLE, "there is no pool 'gevent'")


def test_a_stop_before_the_application_has_spoken_is_a_stop() -> None:
    machine = started(*BOTH)
    effects = tell(machine, StopAsked(Stop.WARM))
    assert [effect.code for effect in effects if isinstance(effect, Exit)] == [0]


def test_a_spawner_that_dies_over_the_import_is_started_again_and_asked_again() -> None:
    machine = started(*BOTH)
    effects = tell(machine, SpawnerEnded(1, "signal 11"))
    assert [effect.generation for effect in effects if isinstance(effect, StartSpawner)] == [2]
    assert forks(tell(machine, SpawnerUp(2, Wish("threads", 4)))) == [("threads", 4)]


def test_what_the_broker_asks_for_meanwhile_is_forked_with_the_others() -> None:
    machine = started(*BOTH)
    assert forks(tell(machine, SpawnAsked(ChildKind.QUARANTINE, 1))) == []
    effects = tell(machine, SpawnerUp(1, Wish("prefork", 1)))
    kinds = [effect.kind for effect in effects if isinstance(effect, Fork)]
    assert kinds == [ChildKind.POOL, ChildKind.QUARANTINE]
