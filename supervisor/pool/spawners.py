"""The spawners of one pool, by generation: which are there, and which one forks are ordered from.

Owns the count of generations and what is known of each spawner. It decides nothing: `machine` does.
"""

from __future__ import annotations

from collections.abc import Iterator


class Spawners:
    """Generations begin at 1 and are never used again."""

    __slots__ = ("_killed", "_last", "_up", "current")

    def __init__(self) -> None:
        #: Whether a spawner takes orders already; oldest first.
        self._up: dict[int, bool] = {}
        self._killed: dict[int, None] = {}
        self._last = 0
        #: The one that forks are ordered from.
        self.current = 0

    def __len__(self) -> int:
        return len(self._up)

    def __iter__(self) -> Iterator[int]:
        """Walk a copy, oldest first: spawners may be removed on the way."""
        return iter(list(self._up))

    def add(self) -> int:
        """Take in a spawner that is about to be started, make it the current one, and return its generation."""
        self._last += 1
        self._up[self._last] = False
        self.current = self._last
        return self._last

    def came_up(self, generation: int) -> None:
        """Note that a spawner takes orders."""
        if generation in self._up:
            self._up[generation] = True

    def remove(self, generation: int) -> bool:
        """Forget a spawner; return whether it was there."""
        self._killed.pop(generation, None)
        return self._up.pop(generation, None) is not None

    def is_loading(self, generation: int) -> bool:
        """Tell whether it is there and takes no orders yet."""
        return self._up.get(generation) is False

    def kill(self, generation: int) -> bool:
        """Note that a spawner is to be killed; return whether that is news."""
        if generation not in self._up or generation in self._killed:
            return False
        self._killed[generation] = None
        return True

    def is_killed(self, generation: int) -> bool:
        """Tell whether it was killed and its end has not been told yet."""
        return generation in self._killed

    def older(self) -> list[int]:
        """Return those older than the current one, newest first."""
        return [generation for generation in reversed(self._up) if generation < self.current]
