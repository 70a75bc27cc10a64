"""`exhaust`: every world that differs from the calm one in at most so many places, instead of a search among all.

Where a workload is tiny, the moments at which something can go wrong are few enough to try each: after the calm run,
each fault at each event that has happened there, and each other order of turns at each choice; then, if two places
are asked for, the same after each of these runs, from its own last difference on. So no pair is tried twice. That
none fails says more than a search does: "all worlds of two workers and two tasks with one fault: 1,204 runs".

Limits: RUNS_MAX runs, then TooMany is raised and says how far it came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from ...actors.app import App
from .course import Course
from .drawing import ANCHORS, Plan
from .example import run_example
from .faults import Anchor, Fault, What
from .sim import Sim, simulated
from .trace import Event, Kind

#: More runs than this are nothing to wait for.
RUNS_MAX: Final = 100_000


class TooMany(ValueError):
    """Raised when there are more worlds than may be tried."""


class Tried(msgspec.Struct, frozen=True):
    """What was tried: how many worlds, by how many places in which they differ from the calm one."""

    runs: int
    by_places: dict[int, int]


def exhaust(
    app: App,
    test: Callable[[Sim], object],
    *,
    faults: Sequence[What] = (),
    places: int = 1,
    turns: bool = True,
    workers: int = 1,
    children: int = 1,
    clients: int = 1,
    runs_max: int = RUNS_MAX,
    **options: Any,
) -> Tried:
    """Run `test` on every cluster with at most `places` deviations; return how many there were.

    A deviation is one of `faults` at one event, or, with `turns`, somebody else's turn at one choice. `options` are
    those of `Sim`. Raises what the test raises, with a report of the world that broke it, and TooMany.
    """
    tried: Counter[int] = Counter()
    course = Course()
    todo = [Plan(nodes=workers, children=children, clients=clients)]
    while todo:
        plan = todo.pop()
        depth = len(plan.faults) + len(plan.turns)
        if tried.total() >= runs_max:
            raise TooMany(
                f"{runs_max} worlds were tried, and there are more: {len(todo)} that are known already. Take fewer "
                f"places than {places}, fewer kinds of fault than {len(faults)}, or a smaller workload"
            )
        tried[depth] += 1
        seen = _run(app, test, plan, course, options)
        if depth < places and all(fault in seen.done for fault in plan.faults):
            todo += _further(plan, seen, faults if len(plan.faults) < places else (), turns=turns)
    return Tried(tried.total(), dict(sorted(tried.items())))


class _Seen(msgspec.Struct):
    """What happened in one world."""

    events: list[Event]
    counts: list[int]
    done: list[Fault]


def _run(app: App, test: Callable[[Sim], object], plan: Plan, course: Course, options: dict[str, Any]) -> _Seen:
    sims: list[Sim] = []

    @contextmanager
    def make() -> Generator[Sim]:
        with simulated(app, plan, **options) as sim:
            sims.append(sim)
            yield sim

    run_example(make, test, course)
    sim = sims[-1]
    return _Seen(sim.trace.events, sim.schedule.counts, sim.injector.done)


def _further(plan: Plan, seen: _Seen, faults: Sequence[What], *, turns: bool) -> Iterator[Plan]:
    """Every plan with one place more, behind the places of this one."""
    start = 0
    if plan.faults:
        # Only after its last fault has happened: the others come in the runs where they are first.
        start = max(place for place, event in enumerate(seen.events) if event.kind is Kind.FAULT) + 1
    nths: Counter[Kind] = Counter()
    for place, event in enumerate(seen.events):
        nths[event.kind] += 1
        if place >= start and event.kind in ANCHORS:
            for what in faults:
                fault = Fault(what, Anchor(event.kind, nths[event.kind]))
                yield msgspec.structs.replace(plan, faults=(*plan.faults, fault))
    if turns:
        behind = sum(gap + 1 for gap, _ in plan.turns)
        for asked, count in enumerate(seen.counts[behind:]):
            for pick in range(1, count):
                yield msgspec.structs.replace(plan, turns=(*plan.turns, (asked, pick)))
