"""What can be seen of a supervisor from outside, for the tree page, refs and tests.

Owns the shape of that picture, not its making: `tree.SupervisorMachine.view` and `.child` draw it.
"""

from __future__ import annotations

import msgspec

from .reasons import ExitReason


class ChildView(msgspec.Struct, frozen=True):
    """One child: its state and latest incarnation, how often it failed in a row, how it last ended
    (`no_such_child`: it has not ended yet)."""

    name: str
    state: str
    incarnation: int
    restart: str
    failures: int
    last_reason: ExitReason


class SupervisorView(msgspec.Struct, frozen=True):
    """One supervisor, and its children in start order; `restarts` of `intensity` are used up now."""

    state: str
    strategy: str
    restarts: int
    intensity: int
    period_seconds: float
    children: tuple[ChildView, ...]
