"""What must always be true of a cluster, each sentence a class of its own, and the watch that keeps them.

Names are imported when they are used: who checks a log needs the invariants that events suffice for (`runs`), and not
the simulated world, whose libraries may be missing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .base import Invariant, Vacuous, Violated
    from .table import ALL, NOT_YET, make, sentence_of
    from .watch import Watch

__all__ = ["ALL", "NOT_YET", "Invariant", "Vacuous", "Violated", "Watch", "make", "sentence_of"]

_HOMES: Final = {
    "base": ("Invariant", "Vacuous", "Violated"),
    "table": ("ALL", "NOT_YET", "make", "sentence_of"),
    "watch": ("Watch",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
