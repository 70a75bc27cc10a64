"""The states of a task, by Celery's names, and their order.

`state("STARTED") > state("PENDING")` compares by precedence: what is worth more is greater.
"""

from __future__ import annotations

from typing import Final

from ...transport.message import State

PENDING: Final = "PENDING"
RECEIVED: Final = "RECEIVED"
STARTED: Final = "STARTED"
SUCCESS: Final = "SUCCESS"
FAILURE: Final = "FAILURE"
REVOKED: Final = "REVOKED"
REJECTED: Final = "REJECTED"
RETRY: Final = "RETRY"
IGNORED: Final = "IGNORED"

READY_STATES: Final = frozenset({SUCCESS, FAILURE, REVOKED})
UNREADY_STATES: Final = frozenset({PENDING, RECEIVED, STARTED, REJECTED, RETRY})
EXCEPTION_STATES: Final = frozenset({RETRY, FAILURE, REVOKED})
PROPAGATE_STATES: Final = frozenset({FAILURE, REVOKED})
ALL_STATES: Final = READY_STATES | UNREADY_STATES

#: From the greatest to the least. A state that is not here, a task's own, stands in the place of None.
PRECEDENCE: Final = (SUCCESS, FAILURE, None, REVOKED, STARTED, RECEIVED, REJECTED, RETRY, PENDING)
NONE_PRECEDENCE: Final = PRECEDENCE.index(None)
PRECEDENCE_LOOKUP: Final[dict[str | None, int]] = {name: place for place, name in enumerate(PRECEDENCE)}

#: How a message's state is called here. Sent back is pending again; a refusal, a body's or a child's, is a failure.
NAMES: Final[dict[int, str]] = {
    State.PENDING: PENDING,
    State.RECEIVED: RECEIVED,
    State.STARTED: STARTED,
    State.SUCCESS: SUCCESS,
    State.FAILURE: FAILURE,
    State.RETRY: RETRY,
    State.REVOKED: REVOKED,
    State.REJECTED: FAILURE,
    State.IGNORED: IGNORED,
    State.REQUEUED: PENDING,
    State.REFUSED: FAILURE,
}


def precedence(name: str | None) -> int:
    """Return the place of a state in the order; smaller is greater."""
    return PRECEDENCE_LOOKUP.get(name, NONE_PRECEDENCE)


class state(str):
    """A state that compares by precedence."""

    __slots__ = ()

    def __gt__(self, other: str) -> bool:
        return precedence(self) < precedence(other)

    def __ge__(self, other: str) -> bool:
        return precedence(self) <= precedence(other)

    def __lt__(self, other: str) -> bool:
        return precedence(self) > precedence(other)

    def __le__(self, other: str) -> bool:
        return precedence(self) >= precedence(other)
