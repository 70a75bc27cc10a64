"""What a worker is before its first child, where its application has a say in it.

Owns the pool's kind and concurrency until they are settled. Who starts a worker may leave them open; the application's
settings know, and only the spawner has imported it. So the first forks wait for the spawner's word. A spawner that
cannot tell (its import failed, or takes too long) leaves them as they were given.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from ...actors.worker.control import Wish
from .limits import PoolLimits


class Opening:
    """`open_to_app`: of "pool" and "concurrency", what the application may say."""

    __slots__ = ("_due", "_open", "limits", "pool")

    def __init__(self, limits: PoolLimits, pool: str, open_to_app: Collection[str]) -> None:
        self.limits = limits
        self.pool = pool
        self._open: frozenset[str] = frozenset(open_to_app)
        self._due: int | None = None

    @property
    def waiting(self) -> bool:
        """Whether nothing may be forked yet."""
        return bool(self._open)

    @property
    def due(self) -> int | None:
        """When the application is no longer waited for; None: it is not, or there is nothing to wait for yet."""
        return self._due if self._open else None

    def begin(self, now: int) -> None:
        """The spawner starts now."""
        self._due = now + self.limits.start_timeout

    def settle(self, wish: Wish) -> None:
        """Take what the application says of what is open; the rest stays as it was given."""
        if wish.pool and "pool" in self._open:
            self.pool = wish.pool
        concurrency = self.limits.concurrency
        if wish.concurrency and "concurrency" in self._open:
            concurrency = wish.concurrency
        if self.pool == "solo":
            concurrency = 1
        self.limits = msgspec.structs.replace(self.limits, concurrency=concurrency)
        self._open = frozenset()
