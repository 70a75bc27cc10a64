"""The names of the promises that simulated clusters are judged by, as tests say them: `inv.LOSS`.

Each is the name of an invariant in `invariants.table`, which has what it promises in a sentence. A test names those
that it wants judged (`invariants=`), and those whose judgement must have had something to judge (`covers=`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from .invariants.table import ALL, NOT_YET, make, sentence_of

LOSS: Final = "LOSS"
AMO: Final = "AMO"
ALO: Final = "ALO"
SPUR: Final = "SPUR"
LIMIT: Final = "LIMIT"
POISON: Final = "POISON"
INNOCENT: Final = "INNOCENT"
ORDER: Final = "ORDER"
RESULT: Final = "RESULT"
QUIESCE: Final = "QUIESCE"
BOUND: Final = "BOUND"
CREDIT: Final = "CREDIT"
TIME: Final = "TIME"
D7: Final = "D7"
D14: Final = "D14"
D25: Final = "D25"
CODEC: Final = "CODEC"
PLACE: Final = "PLACE"
WIRE: Final = "WIRE"
D29: Final = "D29"
DLQ: Final = "DLQ"
STATE: Final = "STATE"


def all() -> tuple[str, ...]:
    """Return every name, in the order in which the guarantees have them."""
    return tuple(invariant.name for invariant in ALL)


def but(*names: str) -> tuple[str, ...]:
    """Return every name but these. Raises ValueError for one that is none."""
    checked(names)
    return tuple(name for name in all() if name not in names)


def sentence(name: str) -> str:
    """Return what this one promises. Raises ValueError for a name that is none."""
    checked([name])
    return sentence_of(name)


def not_yet() -> dict[str, str]:
    """Return those that are promised or planned and not judged yet, and why."""
    return dict(NOT_YET)


def checked(names: Iterable[str]) -> tuple[str, ...]:
    """Return these names. Raises ValueError for one that is none, or not there yet."""
    chosen: Sequence[str] = tuple(names)
    make(chosen)
    return tuple(chosen)


def covered(covers: Iterable[str], invariants: Iterable[str] | None) -> tuple[str, ...]:
    """Return what a run shall cover. Raises ValueError for a name that is none, or is not among those judged."""
    chosen = checked(covers)
    if invariants is not None:
        judged = checked(invariants)
        left = [name for name in chosen if name not in judged]
        if left:
            raise ValueError(f"covers {', '.join(left)}, which are not among the invariants {', '.join(judged)}")
    return chosen
