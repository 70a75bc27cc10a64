"""Who wants to know when a child is down.

Owns the monitors of one supervisor. One of a *name* fires when the child is down for good: a restart is
not its death. One that is *pinned* to an incarnation fires when that one ends, whatever comes after. Each
fires once and is forgotten by that; whether its target is dead already is for the machine to ask first.
"""

from __future__ import annotations

#: A watcher that registers in a loop must not eat the memory of its supervisor.
MONITORS_MAX = 1_000_000


class Monitors:
    """Monitors by their target; the numbers are the driver's, and unique while registered."""

    __slots__ = ("_targets", "_watchers")

    def __init__(self) -> None:
        # Dicts for sets: they are iterated in the order of registration.
        self._watchers: dict[tuple[str, int | None], dict[int, None]] = {}
        self._targets: dict[int, tuple[str, int | None]] = {}

    def __contains__(self, monitor: int) -> bool:
        return monitor in self._targets

    def __len__(self) -> int:
        return len(self._targets)

    def add(self, monitor: int, name: str, incarnation: int | None) -> bool:
        """Register a monitor; return False, and register nothing, at the limit."""
        if len(self._targets) >= MONITORS_MAX:
            return False
        target = (name, incarnation)
        self._watchers.setdefault(target, {})[monitor] = None
        self._targets[monitor] = target
        return True

    def remove(self, monitor: int) -> None:
        """Forget a monitor; one that has fired is forgotten already."""
        target = self._targets.pop(monitor, None)
        if target is None:
            return
        watchers = self._watchers[target]
        del watchers[monitor]
        if not watchers:
            del self._watchers[target]

    def take(self, name: str, incarnation: int | None) -> tuple[int, ...]:
        """Return those that fire now, in the order of registration, and forget them."""
        watchers = tuple(self._watchers.pop((name, incarnation), ()))
        for monitor in watchers:
            del self._targets[monitor]
        return watchers
