"""What Hypothesis draws of a simulated world: few deviations from a calm one, each of which it can take away again.

Owns the plan of an example: how many worker nodes and children there are, which faults happen, where the order of
turns deviates, and a seed for background jitter. The calm world has one node, no fault, and takes the first that is
ready; everything here shrinks towards it. Single steps are not drawn: a world takes thousands of them.

Half of the plans first draw which kinds of fault do not exist in them at all (swarm testing): some bugs show only
where others leave them the room. A fault of a kind that does not exist is drawn and left out, so that the others stay
what they are while Hypothesis shrinks.

Limits: FAULTS_MAX faults, TURNS_MAX deviations.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import msgspec
from hypothesis import strategies as st

from .disks import StoreName
from .faults import OF_REAL_STORE, Anchor, Fault, What, deaths
from .trace import Kind

FAULTS_MAX: Final = 8
TURNS_MAX: Final = 8
#: Which of the events of a kind an anchor is at: small numbers often, for a small workload has no others.
NTHS: Final = (1, 2, 3, 1, 5, 1, 2, 8)
#: The most choices that pass between two deviations.
GAP_MAX: Final = 200
_JITTERS: Final = (1 << 16) - 1
#: With jitter, so often another turn than the first is taken.
_JITTER_SHARE: Final = 0.1
#: How many times more often than others deaths are drawn.
_DEATHS: Final = 3

#: Where a drawn fault may be anchored, the most telling first: shrinking goes there.
OF_BODIES: Final = (Kind.STARTED, Kind.RAN, Kind.EFFECT, Kind.SETTLE, Kind.APPLIED, Kind.DELIVER, Kind.MARK)
OF_BROKERS: Final = (*OF_BODIES, Kind.PUBLISH, Kind.CONFIRM, Kind.WRITE, Kind.COMMIT, Kind.REPORT, Kind.STORED)
OF_NODES: Final = (*OF_BODIES, Kind.REPORT, Kind.FORK, Kind.READY, Kind.ATTACHED, Kind.DETACHED, Kind.BROKER_UP)
OF_LINKS: Final = (*OF_NODES, Kind.PUBLISH, Kind.CONFIRM, Kind.RETURN, Kind.RESULT)
OF_CLIENTS: Final = (Kind.PUBLISH, Kind.CONFIRM, Kind.RESULT)
OF_LETTERS: Final = (Kind.DEAD, *OF_BROKERS)
ANCHORS: Final = tuple(dict.fromkeys((*OF_BROKERS, *OF_LINKS, *OF_LETTERS)))
#: What happens to links and hosts.
ON_LINKS: Final = (
    What.DROP,
    What.CUT,
    What.FREEZE,
    What.STALL,
    What.HOLD_UP,
    What.SLOW_LINK,
    What.STALE_LINK,
    What.PARTITION,
    What.UNHEARD_HOST,
    What.DEAF_HOST,
    What.PARTIAL_PARTITION,
    What.FLAPPING,
    What.CORRUPT_BYTE,
    What.TRUNCATED_FRAME,
    What.CLOCK_FORWARD,
    What.CLOCK_BACK,
    What.CLOCK_STOPS,
    What.CLOCK_DRIFTS,
)
#: Those of them that need a link that is up.
OF_ONE_LINK: Final = (
    What.DROP,
    What.CUT,
    What.FREEZE,
    What.STALL,
    What.HOLD_UP,
    What.SLOW_LINK,
    What.STALE_LINK,
    What.CORRUPT_BYTE,
    What.TRUNCATED_FRAME,
)
_ANCHORS_OF: Final = {
    **dict.fromkeys((What.KILL_CHILD, What.CHILD_EXITS, What.PAUSE_CHILD), OF_BODIES),
    **dict.fromkeys((What.KILL_NODE, What.PAUSE_NODE, What.PAUSE_HOST, What.DRAIN_NODE), OF_NODES),
    **dict.fromkeys(ON_LINKS, OF_LINKS),
    # When the broker begins, nobody has a link yet.
    **dict.fromkeys(OF_ONE_LINK, tuple(kind for kind in OF_LINKS if kind is not Kind.BROKER_UP)),
    **dict.fromkeys((What.KILL_CLIENT, What.PAUSE_CLIENT), OF_CLIENTS),
    **dict.fromkeys((What.REDRIVE, What.PURGE_DEAD), OF_LETTERS),
}


def anchors_of(what: What) -> tuple[Kind, ...]:
    """Return the kinds of event at which a fault of this kind is drawn."""
    return _ANCHORS_OF.get(what, OF_BROKERS)


class Plan(msgspec.Struct, frozen=True):
    """One example's world. `turns`: after so many choices, take this place in the order of those that are ready."""

    nodes: int = 1
    children: int = 1
    clients: int = 1
    faults: tuple[Fault, ...] = ()
    turns: tuple[tuple[int, int], ...] = ()
    jitter: int = 0

    def words(self, happened: Sequence[Fault] | None = None) -> list[str]:
        """Say how it differs from the calm world, a line each; of its faults those that `happened`, if known."""
        size = f"{self.nodes} workers of {self.children} children" if self.nodes > 1 or self.children > 1 else ""
        faults = [fault.words() for fault in (self.faults if happened is None else happened)]
        turns = f"another order at {len(self.turns)} places" if self.turns else ""
        jitter = f"jitter {self.jitter}" if self.jitter else ""
        return [line for line in (size, *faults, turns, jitter) if line]


class Schedule:
    """Picks whose turn it is, as a plan says; calm until `begin`."""

    def __init__(self, turns: Sequence[tuple[int, int]] = (), jitter: int = 0) -> None:
        self._begun = False
        #: Among how many it has chosen, choice by choice.
        self.counts: list[int] = []
        self.follow(turns, jitter)

    def follow(self, turns: Sequence[tuple[int, int]], jitter: int) -> None:
        """Take another plan from here on."""
        places = accumulate(gap + 1 for gap, _ in turns)
        self._picks = {place: pick for place, (_, pick) in zip(places, turns, strict=True)}
        self._random = random.Random(jitter) if jitter else None
        self._asked = 0

    def begin(self) -> None:
        """From here on the plan holds."""
        self._begun = True

    def __call__(self, count: int) -> int:
        """Return the place of who is next among `count`."""
        if not self._begun:
            return 0
        self._asked += 1
        self.counts.append(count)
        pick = self._picks.get(self._asked)
        if pick is not None:
            return pick % count
        if self._random is not None and self._random.random() < _JITTER_SHARE:
            return self._random.randrange(count)
        return 0


Range = int | tuple[int, int]


def _between(bounds: Range, name: str) -> st.SearchStrategy[int]:
    low, high = (bounds, bounds) if isinstance(bounds, int) else bounds
    if not 1 <= low <= high:
        raise ValueError(f"{name} is a number from 1, or a pair of these in order, not {bounds!r}")
    return st.integers(low, high)


def faults_of(kinds: Sequence[What], store: StoreName = "memory") -> st.SearchStrategy[Fault]:
    """Draw a fault of one of these kinds that this store can have."""
    possible = [kind for kind in kinds if store == "sqlite" or kind not in OF_REAL_STORE]
    if not possible:
        return st.nothing()
    # Deaths again and again: they are what most promises are about.
    whats = st.sampled_from([*possible, *_DEATHS * [kind for kind in deaths() if kind in possible]])

    @st.composite
    def fault(draw: st.DrawFn) -> Fault:
        what = draw(whats)
        kind, nth = draw(_ANCHOR_DRAWN[what])
        return Fault(what, Anchor(kind, nth), *draw(_FORCE_DRAWN))

    return fault()


#: Few choices a fault: Hypothesis takes away a whole fault only where it can take five choices at once.
_ANCHOR_DRAWN: Final = {
    what: st.sampled_from([(kind, nth) for nth in NTHS for kind in anchors_of(what)]) for what in What
}
_FORCE_DRAWN: Final = st.sampled_from(
    [(which, seconds) for seconds in (2.0, 0.5, 0.05, 8.0, 30.0) for which in range(4)]
)


def schedules() -> st.SearchStrategy[tuple[list[tuple[int, int]], int]]:
    """Draw where the order of turns deviates, and the seed of its jitter: what `Schedule.follow` takes."""
    turns = st.lists(st.tuples(st.integers(0, GAP_MAX), st.integers(1, 3)), max_size=TURNS_MAX)
    return st.tuples(turns, st.just(0) | st.integers(1, _JITTERS))


def plans(
    *,
    clients: int = 1,
    workers: Range = (1, 3),
    children: Range = (1, 2),
    faults: Sequence[What] = (),
    store: StoreName = "memory",
) -> st.SearchStrategy[Plan]:
    """Draw plans. `workers` and `children` are numbers or ranges: worker nodes, and children of each.

    Raises ValueError for a range that is none.
    """
    kinds = tuple(faults)
    nodes = _between(workers, "workers")
    of_each = _between(children, "children")
    drawn = st.lists(faults_of(kinds, store), max_size=FAULTS_MAX if kinds else 0)
    absent = st.just(0) | st.integers(0, (1 << len(kinds)) - 1)
    schedule = schedules()

    @st.composite
    def plan(draw: st.DrawFn) -> Plan:
        missing = draw(absent)
        size = draw(nodes), draw(of_each)
        happening = tuple(fault for fault in draw(drawn) if not missing >> kinds.index(fault.what) & 1)
        turns, jitter = draw(schedule)
        return Plan(*size, clients, happening, tuple(turns), jitter)

    return plan()
