"""How fast the simulated world is, on one core: `python benchmarks/simulated.py [rounds]`.

Three rows, alternating, each in processor time of this process:

- protocol events a second: what is in the trace, and each verb at either end (it is encoded, carried and decoded),
  while 2,000 no-op tasks with late acks go through 2 nodes of 2 children; one call at a time, and in calls of 100;
- whole clusters a second: 1 broker, 3 nodes, 2 clients, 8 tasks, faults, everything settled, all invariants judged;
- hours of an idle cluster of five processes (broker, 2 nodes, 2 children) a second.
"""

from __future__ import annotations

import resource
import statistics
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from greenroom import App
from greenroom.supervisor.harness.drawing import Plan
from greenroom.supervisor.harness.faults import Anchor, Fault, What
from greenroom.supervisor.harness.invariants.watch import Watch
from greenroom.supervisor.harness.observer import Observer
from greenroom.supervisor.harness.routed import RoutedClient
from greenroom.supervisor.harness.sim import simulated
from greenroom.supervisor.harness.trace import Kind
from greenroom.supervisor.harness.world import World
from greenroom.transport.verbs import FromBroker, ToBroker

ROUNDS = 5
TASKS = 2_000
CALLS = 100
WORLDS = 100

app = App("simulated")


@app.task(acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def nop() -> None:
    """Do nothing."""


class Verbs(Observer):
    """Counts verbs."""

    def __init__(self) -> None:
        self.count = 0

    def heard(self, session: str, verb: ToBroker) -> None:
        """One more."""
        self.count += 1

    def said(self, session: str, verb: FromBroker) -> None:
        """One more."""
        self.count += 1


def seconds() -> float:
    """The processor time of this process; the clocks of `time` are the world's while one runs."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@contextmanager
def running(nodes: int, children: int, *, watched: bool) -> Generator[tuple[World, Verbs]]:
    """A calm world that is up."""
    world = World(app, nodes=nodes, children=children)
    if watched:
        Watch(world)
    verbs = Verbs()
    world.observed.observers.append(verbs)
    routed = RoutedClient(world)
    factory = app.client_factory
    app.client_factory = lambda _app: routed
    try:
        with world.realm.inside():
            world.start()
            yield world, verbs
    finally:
        app.client_factory = factory
        world.close()


def events(*, together: bool, watched: bool) -> float:
    """Protocol events a second."""
    with running(2, 2, watched=watched) as (world, verbs):
        noted, said = len(world.trace.events), verbs.count
        began = seconds()
        for _ in range(TASKS // CALLS):
            if together:
                nop.send_many([()] * CALLS)
            else:
                for _ in range(CALLS):
                    nop.delay()
        world.settle()
        took = seconds() - began
        return (len(world.trace.events) - noted + 2 * (verbs.count - said)) / took


def clusters() -> float:
    """Whole clusters a second."""
    began = seconds()
    for number in range(WORLDS):
        faults = (
            Fault(What.KILL_CHILD, Anchor(Kind.STARTED, 1 + number % 8)),
            Fault((What.DROP, What.KILL_NODE, What.KILL_BROKER)[number % 3], Anchor(Kind.SETTLE, 1 + number % 5)),
        )
        with simulated(app, Plan(nodes=3, clients=2, faults=faults, jitter=number)) as sim:
            for place in range(8):
                sim.client(place % 2).send(nop)
            sim.settle()
    return WORLDS / (seconds() - began)


def hours() -> float:
    """Hours of an idle cluster a second."""
    with running(2, 1, watched=False) as (world, _):
        began = seconds()
        world.run_for(3_600)
        return 1 / (seconds() - began)


ROWS: dict[str, Callable[[], float]] = {
    "events/s, calls one at a time": lambda: events(together=False, watched=False),
    "events/s, calls by the hundred": lambda: events(together=True, watched=False),
    "events/s, by the hundred, judged": lambda: events(together=True, watched=True),
    "whole clusters/s, judged": clusters,
    "idle hours/s": hours,
}


def main() -> None:
    """Measure and print: the median, the least and the most of each row."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    figures: dict[str, list[float]] = {name: [] for name in ROWS}
    for _ in range(rounds):
        for name, measure in ROWS.items():
            figures[name].append(measure())
    print(f"{'row':34} {'median':>10} {'least':>10} {'most':>10}")
    for name, values in figures.items():
        print(f"{name:34} {statistics.median(values):10,.1f} {min(values):10,.1f} {max(values):10,.1f}")


if __name__ == "__main__":
    main()
