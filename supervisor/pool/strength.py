"""How many children of each kind a pool should have, and which are missing or too many.

Owns the wanted numbers and the shape of a pool of each kind (prefork: a process a slot; threads and asyncio: one
process with all slots; solo: one with one). It forks and stops nobody.

During a reload there are *old* children, those of another spawner than the current one. For as long, one child more
than wanted may be there: the next one to take over. An old one goes when enough are ready without it.
"""

from __future__ import annotations

from ...actors.worker.control import CHILDREN_MAX, Wish
from ...transport.verbs import ChildKind
from .members import Member, MemberState, Roll
from .opening import Opening

KINDS = (ChildKind.POOL, ChildKind.QUARANTINE, ChildKind.ACTORS)


class Strength:
    """The wanted numbers of children, of a pool that its opening describes."""

    __slots__ = ("_wanted", "opening")

    def __init__(self, opening: Opening) -> None:
        self.opening = opening
        self._wanted = {ChildKind.POOL: self._ordinary, ChildKind.QUARANTINE: 0, ChildKind.ACTORS: 0}

    @property
    def pool(self) -> str:
        """prefork, threads, asyncio or solo."""
        return self.opening.pool

    @property
    def concurrency(self) -> int:
        """How many bodies of tasks run at once."""
        return self.opening.limits.concurrency

    @property
    def _ordinary(self) -> int:
        return self.concurrency if self.pool == "prefork" else 1

    def settle(self, wish: Wish) -> str:
        """Become what the application wishes, as far as it has a say; return why that cannot be, or nothing.

        What the broker has asked for already stays.
        """
        if not self.opening.waiting:
            return ""
        if not wish.wrong:
            self.opening.settle(wish)
            self._wanted[ChildKind.POOL] = self._ordinary
        return wish.wrong

    def tick(self, now: int) -> None:
        """Time has passed: the application may have been waited for long enough."""
        if (due := self.opening.due) is not None and due <= now:
            self.settle(Wish())

    def wanted(self, kind: ChildKind) -> int:
        """Return how many children of this kind there should be."""
        return self._wanted[kind]

    def shape(self, kind: ChildKind) -> tuple[str, int]:
        """Return how a child of this kind runs bodies: its pool, and its slots."""
        shared = self.pool if self.pool in ("threads", "asyncio") else ""
        if kind == ChildKind.POOL:
            return self.pool, self.concurrency if shared else 1
        if kind == ChildKind.ACTORS:
            return shared or "threads", max(self.opening.limits.actor_slots, self.concurrency)
        # A suspect runs alone in a process of its own, whatever the pool (spec D25); its coroutine needs its loop.
        return "asyncio" if shared == "asyncio" else "prefork", 1

    def ask(self, kind: ChildKind, count: int) -> int:
        """Want at least `count` children of a kind, within the limits; return the limit."""
        most = self.opening.limits.most(kind)
        self._wanted[kind] = max(self._wanted[kind], min(count, most))
        return most

    def resize(self, by: int) -> int | None:
        """Want so many ordinary children more; return how many that makes, None where the pool has just one."""
        if self.pool != "prefork":
            return None
        self._wanted[ChildKind.POOL] = min(max(self._wanted[ChildKind.POOL] + by, 1), CHILDREN_MAX)
        return self._wanted[ChildKind.POOL]

    def missing(self, roll: Roll, current: int) -> list[ChildKind]:
        """Return the kinds to be forked, each as often as a child of it is missing."""
        missing: list[ChildKind] = []
        for kind in KINDS:
            active = roll.active(kind)
            spare = any(member.generation != current for member in active)
            missing += [kind] * (self._wanted[kind] + spare - len(active))
        return missing

    def too_many(self, roll: Roll, current: int) -> Member | None:
        """Return a child that should go, or None: those that are not ready go first, and of equals the youngest."""
        for kind in KINDS:
            active, wanted = roll.active(kind), self._wanted[kind]
            old = [member for member in active if member.generation != current]
            ready = sum(member.state is MemberState.READY for member in active)
            if len(active) > wanted + bool(old) or (old and ready > wanted):
                return max(old or active, key=lambda member: (member.state is not MemberState.READY, member.number))
        return None
