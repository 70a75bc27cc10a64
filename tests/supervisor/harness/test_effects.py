"""What user code did outside: it counts from the moment it is recorded, and the test can ask about it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from greenroom.actors.app import App
from greenroom.supervisor.harness.effects import (
    Effect,
    forget_sometimes,
    record,
    seen_sometimes,
    sometimes,
    yield_point,
)
from greenroom.supervisor.harness.trace import Event, Kind
from greenroom.supervisor.harness.world import World

MakeWorld = Callable[..., World]


def order(effect: Effect) -> Any:
    return effect.args[0]


def test_a_charge_before_a_kill_is_a_charge_and_the_redelivery_makes_it_two(app: App, make_world: MakeWorld) -> None:
    @app.task(acks_late=True, reject_on_worker_lost=True)
    def charge(order: str) -> None:
        record("charge", order, cents=5)

    world = make_world()
    killed: list[Event] = []

    def listen(event: Event) -> None:
        if event.kind is Kind.EFFECT and not killed:
            killed.append(event)
            world.children[0].kill(9)

    world.trace.listen(listen)
    sent = [charge.delay(name) for name in ("tea", "milk")]
    world.settle()
    charges = world.effects("charge")
    assert charges.count == len(list(charges)) == 3
    assert charges.per(order) == {"tea": 2, "milk": 1}
    assert [effect.task for effect in charges if order(effect) == "tea"] == [sent[0].id, sent[0].id]
    assert len({effect.lane for effect in charges if order(effect) == "tea"}) == 2
    assert charges[0].kwargs == {"cents": 5}
    verdict = charges.at_most_once_per(order)
    assert not verdict
    assert repr(verdict) == "<charge was done 2 times for 'tea'>"
    assert world.effects("refund").at_most_once_per(order)


def test_verdicts_name_what_is_missing_what_is_too_much_and_what_nobody_expected(make_world: MakeWorld) -> None:
    world = make_world()
    for name in ("tea", "tea", "salt"):
        record("charge", name)
    charges = world.effects("charge")
    assert not charges.exactly_once_per(order)
    assert charges.exactly_once_per(order, ["tea", "milk"]).problem == (
        "charge was done 2 times for 'tea'; charge was not done for 'milk'; charge was done for 'salt'"
    )
    record("refund", "salt")
    assert world.effects("refund").exactly_once_per(order, ["salt"])
    assert not world.effects("refund").exactly_once_per(order, [])
    assert [effect.name for effect in world.effects()] == ["charge", "charge", "charge", "refund"]


def test_what_is_recorded_outside_of_a_world_is_not_kept(make_world: MakeWorld, app: App) -> None:
    world = World(app)
    record("charge", "tea")
    yield_point()
    assert world.effects().count == 0
    world.close()


def test_the_trace_of_an_effect_has_no_address_of_an_object(make_world: MakeWorld) -> None:
    world = make_world()
    record("charge", object())
    assert world.trace.events[-1].words() == "effect name charge, args (<object object>,)"


def test_bodies_take_turns_at_their_yield_points(app: App, make_world: MakeWorld) -> None:
    said: list[str] = []

    @app.task
    def count(name: str) -> None:
        time.sleep(2_000 - time.monotonic())
        for number in range(3):
            said.append(f"{name}{number}")
            yield_point()

    world = make_world(pool="threads", children=1, slots=2)
    count.delay("a")
    count.delay("b")
    world.settle()
    assert said == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_what_happens_only_sometimes_is_counted_over_all_worlds(make_world: MakeWorld) -> None:
    forget_sometimes()
    make_world()
    assert [sometimes("more than one", number > 1) for number in range(3)] == [False, False, True]
    assert not sometimes("never", condition=False)
    seen = seen_sometimes()
    assert [(name, one.reached, one.held) for name, one in seen.items()] == [("more than one", 3, 1), ("never", 1, 0)]
    forget_sometimes()
    assert seen_sometimes() == {}
