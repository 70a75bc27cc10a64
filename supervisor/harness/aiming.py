"""Plans that aim: each has one fault at one moment, and all pairs of these are drawn alike.

Owns what must go wrong first so that a moment comes at all: nobody comes back who was not gone. Plans of `drawing`
follow what is likely; a long run takes these as well, so that no pair is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from hypothesis import strategies as st

from .disks import StoreName
from .drawing import Plan, Range, anchors_of, faults_of, plans, schedules
from .faults import OF_REAL_STORE, Anchor, Fault, What
from .trace import Kind

#: How many faults more than the one that is aimed at, and what causes its moment.
OTHERS_MAX: Final = 3
#: What makes a moment come that a calm world does not have.
_CAUSES: Final[dict[Kind, Fault]] = {
    **dict.fromkeys((Kind.REPORT, Kind.FORK, Kind.READY), Fault(What.KILL_CHILD, Anchor(Kind.STARTED))),
    Kind.DETACHED: Fault(What.DROP, Anchor(Kind.DELIVER)),
    **dict.fromkeys((Kind.BROKER_UP, Kind.ATTACHED), Fault(What.KILL_BROKER, Anchor(Kind.SETTLE), seconds=0.5)),
}


def in_turn(kinds: Sequence[What], round: int = 0) -> Iterator[tuple[Plan, StoreName]]:
    """Return a plan for each fault of these kinds at each of its moments, one after the other, and its store.

    Nothing is drawn: each `round` has another order of turns, and strikes others and for longer.
    """
    seconds = (2.0, 0.5, 8.0, 20.0)[round % 4]
    for what in kinds:
        for kind in anchors_of(what):
            cause = (_CAUSES[kind],) if kind in _CAUSES else ()
            aim = Fault(what, Anchor(kind), round % 3, seconds)
            plan = Plan(1 + round % 2, 1 + round % 3 // 2, 2, (*cause, aim), (), round)
            yield plan, "sqlite" if what in OF_REAL_STORE else "memory"


def aimed(
    kinds: Sequence[What],
    *,
    clients: int = 1,
    workers: Range = (1, 3),
    children: Range = (1, 2),
    store: StoreName = "memory",
) -> st.SearchStrategy[Plan]:
    """Draw plans with one fault of these kinds at one of its moments, each pair as often as any other."""
    possible = [what for what in kinds if store == "sqlite" or what not in OF_REAL_STORE]
    pairs = st.sampled_from([(what, kind) for what in possible for kind in anchors_of(what)])
    sizes = plans(clients=clients, workers=workers, children=children)
    forces = st.sampled_from([(which, seconds) for seconds in (2.0, 0.5, 8.0, 20.0) for which in range(4)])
    others = st.lists(faults_of(kinds, store), max_size=OTHERS_MAX)

    @st.composite
    def plan(draw: st.DrawFn) -> Plan:
        what, kind = draw(pairs)
        cause = [_CAUSES[kind]] if kind in _CAUSES else []
        aim = Fault(what, Anchor(kind), *draw(forces))
        size = draw(sizes)
        turns, jitter = draw(schedules())
        faults = (*cause, aim, *draw(others))
        return Plan(size.nodes, size.children, clients, faults, tuple(turns), jitter)

    return plan()
