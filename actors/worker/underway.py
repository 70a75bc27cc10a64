"""States that bodies have named (`update_state`) and that the broker has not acknowledged: how many there may be.

A state is superseded by the next one, and the outcome by none. So where the broker is slow or away, states beyond a
limit are dropped, and the outbox keeps its room for settles: it must not be a body's progress bar that ends a process.
"""

from __future__ import annotations

from collections import deque
from typing import Final

STATES_MAX: Final = 1_000
STATES_BYTES_MAX: Final = 8 << 20


class StatesUnderway:
    """The numbers and sizes of those that were said, oldest first."""

    __slots__ = ("_bytes", "_said")

    def __init__(self) -> None:
        self._said: deque[tuple[int, int]] = deque()
        self._bytes = 0

    def fits(self, size: int) -> bool:
        """Tell whether one of this size may be said now; one alone always may."""
        return not self._said or (len(self._said) < STATES_MAX and self._bytes + size <= STATES_BYTES_MAX)

    def said(self, number: int, size: int) -> None:
        """It was said under this number."""
        self._said.append((number, size))
        self._bytes += size

    def applied(self, number: int) -> None:
        """The broker has committed everything up to this number."""
        while self._said and self._said[0][0] <= number:
            self._bytes -= self._said.popleft()[1]
