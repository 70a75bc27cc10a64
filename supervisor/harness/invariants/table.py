"""The table of invariants: those that are judged, and those whose part of Greenroom is not there yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .base import Invariant
from .commits import Alone, Bound, Codec, CommitFirst, Credit, DurableState, Innocent, Loss, Order, Time
from .intake import Disk, Wire
from .letters import DeadLetters
from .rest import OnePlace, Quiesce, Reported
from .runs import AtLeastOnce, AtMostOnce, Limit, OneResult, Poison, Spurious

#: Every invariant that is judged, in the order in which guarantees name them.
ALL: Final[tuple[type[Invariant], ...]] = (
    Loss,
    AtMostOnce,
    AtLeastOnce,
    Spurious,
    Limit,
    Poison,
    Innocent,
    Order,
    OneResult,
    Quiesce,
    Bound,
    Credit,
    Time,
    CommitFirst,
    Reported,
    Alone,
    Codec,
    Wire,
    Disk,
    DeadLetters,
    OnePlace,
    DurableState,
)
#: What is promised or planned and has no part, or no part of a simulated world, that could break it.
NOT_YET: Final[dict[str, str]] = {
    "CANVAS": "chords and groups are not there yet",
    "SUP": "trees of supervisors are not part of a simulated world yet",
    "REG": "the registry of names is not there yet",
    "FENCE": "partitions with epochs in PostgreSQL are not there yet",
    "AUTH": "roles and keys are not there yet",
}
_BY_NAME: Final = {invariant.name: invariant for invariant in ALL}


def make(names: Sequence[str] = (), *, by_events: bool = False) -> list[Invariant]:
    """Return these invariants, new; all of them if none is named. `by_events`: only those that events suffice for.

    Raises ValueError for a name that is not there, or not there yet.
    """
    for name in names:
        if name in NOT_YET:
            raise ValueError(f"the invariant {name} is not there yet: {NOT_YET[name]}")
        if name not in _BY_NAME:
            raise ValueError(f"there is no invariant {name!r}; there are {', '.join(_BY_NAME)}")
    chosen = [_BY_NAME[name] for name in names] or list(ALL)
    return [invariant() for invariant in chosen if invariant.by_events or not by_events]


def sentence_of(name: str) -> str:
    """Return the promise of this name. Raises KeyError."""
    return _BY_NAME[name].sentence
