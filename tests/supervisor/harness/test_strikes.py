"""What each kind of fault does: its effect is seen in the world, and in none without it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import pytest

from greenroom.actors.app import App
from greenroom.supervisor.harness import faults
from greenroom.supervisor.harness.drawing import Plan
from greenroom.supervisor.harness.effects import record
from greenroom.supervisor.harness.faults import Anchor, Fault, What
from greenroom.supervisor.harness.sim import Sim, simulated
from greenroom.supervisor.harness.stranger import Stranger
from greenroom.supervisor.harness.strikes import STRIKES
from greenroom.supervisor.harness.trace import Event, Kind
from greenroom.transport.verbs import Op, Reset

T = TypeVar("T")

SECOND = 1_000_000

app = App("strikes", set_as_current=False)


@app.task(name="work", acks_late=True, reject_on_worker_lost=True)
def work(seconds: float) -> None:
    record("began", time.time())
    time.sleep(seconds)
    record("ended", time.time())


@app.task(name="poison", acks_late=True, reject_on_worker_lost=True, max_deliveries=1)
def poison() -> None:
    raise SystemExit(3)


def digest(sim: Sim) -> str:
    return sim.trace.digest()


def events(sim: Sim, kind: Kind, lane: str = "", **facts: object) -> list[Event]:
    return [
        event
        for event in sim.trace.events
        if event.kind is kind
        and lane in ("", event.lane)
        and all(event.facts.get(name) == value for name, value in facts.items())
    ]


def strangers(sim: Sim) -> list[Stranger]:
    return [process for process in sim.world.clockwork.processes if isinstance(process, Stranger)]


def seconds_between(sim: Sim, first: Kind, then: Kind) -> float:
    return (events(sim, then)[-1].at - events(sim, first)[0].at) / SECOND


def runs_elsewhere(sim: Sim) -> bool:
    return len({event.lane.partition("/")[0] for event in events(sim, Kind.STARTED)}) == 2


def bad_frames(sim: Sim) -> int:
    return len(events(sim, Kind.NOTICE, "broker", notice="bad_frame"))


def lost_links(sim: Sim) -> Counter[str]:
    return Counter(event.facts["to"] for event in events(sim, Kind.DETACHED, "broker"))


#: Of each kind: the moment, how many seconds it lasts, and what is seen in a world of two workers and one task.
EFFECTS: list[tuple[What, Kind, float, Callable[[Sim], bool]]] = [
    (What.PARTITION, Kind.STARTED, 20, runs_elsewhere),
    (What.UNHEARD_HOST, Kind.STARTED, 20, runs_elsewhere),
    (What.DEAF_HOST, Kind.DELIVER, 20, lambda sim: len(events(sim, Kind.DELIVER)) == 2),
    (What.PARTIAL_PARTITION, Kind.STARTED, 9, lambda sim: set(lost_links(sim)) == {"w1/1"}),
    (What.FLAPPING, Kind.STARTED, 7, lambda sim: lost_links(sim)["w1"] > 1),
    (What.STALE_LINK, Kind.SETTLE, 2, lambda sim: lost_links(sim)["w1/1"] == 1 and bad_frames(sim) == 0),
    (What.STALL, Kind.DELIVER, 5, lambda sim: seconds_between(sim, Kind.DELIVER, Kind.STARTED) >= 5),
    (What.CORRUPT_BYTE, Kind.SETTLE, 2, lambda sim: bad_frames(sim) == 1),
    (What.TRUNCATED_FRAME, Kind.SETTLE, 2, lambda sim: bad_frames(sim) == 1),
    (What.STRANGER, Kind.STARTED, 2, lambda sim: strangers(sim)[0].cut > 10),
    (What.OTHER_VERSION, Kind.STARTED, 2, lambda sim: "version 1 of the protocol, you 0" in reset(sim)),
    (What.PAUSE_HOST, Kind.STARTED, 20, runs_elsewhere),
    (What.PAUSE_NODE, Kind.STARTED, 20, lambda sim: lost_links(sim)["w1"] == 1),
    (What.PAUSE_CLIENT, Kind.PUBLISH, 5, lambda sim: seconds_between(sim, Kind.PUBLISH, Kind.CONFIRM) >= 5),
    (What.PAUSE_BROKER, Kind.STARTED, 9, lambda sim: lost_links(sim)["w1"] == lost_links(sim)["w2"] == 1),
    (What.READ_FAILS, Kind.STARTED, 2, lambda sim: len(events(sim, Kind.BROKER_UP)) == 2),
    (What.WALL_BACK, Kind.EFFECT, 3, lambda sim: -180 < seconds_seen(sim) < -178),
    (What.CLOCK_FORWARD, Kind.STARTED, 3, lambda sim: w1_is_ahead(sim) == 180),
    (What.CLOCK_BACK, Kind.STARTED, 3, lambda sim: w1_is_ahead(sim) == -180),
    (What.CLOCK_STOPS, Kind.STARTED, 3, lambda sim: seconds_seen(sim) == 0),
    (What.CLOCK_DRIFTS, Kind.STARTED, 3, lambda sim: -1 < w1_is_ahead(sim) < 0),
    (What.DRAIN_NODE, Kind.STARTED, 2, lambda sim: [node.alive for node in sim.world.nodes] == [False, True, True]),
    (What.REVOKE, Kind.PUBLISH, 2, lambda sim: sim.world.operator.answers[0][0] is Op.REVOKE),
    (What.PURGE, Kind.STARTED, 2, lambda sim: sim.world.operator.answers == [(Op.PURGE, 0)]),
]


def reset(sim: Sim) -> str:
    return " ".join(verb.reason for stranger in strangers(sim) for verb in stranger.heard if isinstance(verb, Reset))


def w1_is_ahead(sim: Sim) -> float:
    node = sim.world.nodes[0]
    return (node.now.wall - sim.world.clockwork.now.wall) / SECOND


def seconds_seen(sim: Sim) -> float:
    """How many seconds its task has seen pass."""
    (effect,) = sim.effects("began")
    return float(sim.effects("ended")[0].args[0] - effect.args[0])


def play(what: What, at: Kind, seconds: float, look: Callable[[Sim], T]) -> T:
    plan = Plan(nodes=2, faults=(Fault(what, Anchor(at), seconds=seconds),))
    with simulated(app, plan) as sim:
        sim.send(work, 1)
        sim.run_for(40)
        sim.settle()
        assert [fault.what for fault in sim.injector.done] == [what]
        return look(sim)


@pytest.mark.parametrize(("what", "at", "seconds", "is_seen"), EFFECTS, ids=[str(effect[0]) for effect in EFFECTS])
def test_a_fault_has_its_effect(what: What, at: Kind, seconds: float, is_seen: Callable[[Sim], bool]) -> None:
    assert play(what, at, seconds, is_seen)


@pytest.mark.parametrize("what", [what for what in faults.every() if what not in faults.OF_REAL_STORE], ids=str)
def test_a_world_with_a_fault_goes_the_same_way_twice(what: What) -> None:
    at = Kind.PUBLISH if what in faults.ENDS else Kind.STARTED
    assert play(what, at, 7, digest) == play(what, at, 7, digest)


def test_each_kind_has_its_strike() -> None:
    assert set(STRIKES) == set(What)
