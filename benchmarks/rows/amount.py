"""How many calls a measurement makes: enough for it to last, for systems whose speeds lie a factor of 100 apart."""

from __future__ import annotations

from collections.abc import Callable

from contract import Plan

#: The first try, and how long a try must last to be believed.
FIRST = 100
TRY_SECONDS = 0.4
COUNT_MAX = 2_000_000


def amount(plan: Plan, run: Callable[[int], float]) -> int:
    """Return how many calls last about `plan.seconds`, or what the plan demands. `run(count)` returns seconds.

    The tries warm the system up, also where the plan demands a count.
    """
    count = FIRST
    while True:
        seconds = run(count)
        if seconds >= TRY_SECONDS or count >= COUNT_MAX:
            break
        count *= 4
    if plan.count is not None:
        return plan.count
    return max(FIRST, min(COUNT_MAX, round(count * plan.seconds / seconds)))
