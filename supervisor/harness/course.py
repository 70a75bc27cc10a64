"""The course of one test over all its examples: how many there were, how often each invariant was judged, for how long.

Owns what is known only over a whole run: that the invariants which a test says it covers had occasion to be broken,
how small the failure has become (`words`, for the head of its report), and whether there is time for more. With
`--gr-minutes` a test repeats all its examples, with a new seed each time, until its share of the time is used.

Limits: a round of examples that has begun when the time is over ends without trying the rest of them.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from .invariants import Vacuous
from .options import options
from .sim import Sim
from .trace import Kind

_SEEDS: Final = 1 << 32


class Size(msgspec.Struct, frozen=True):
    """How much there is of a failing example: faults that happened, and tasks that were sent."""

    faults: int
    tasks: int

    def words(self) -> str:
        """Say it."""
        return f"{_count(self.faults, 'fault')} and {_count(self.tasks, 'task')}"


class Course:
    """One test, from its first example to its last."""

    def __init__(self, covers: Sequence[str] = (), shares: int = 1) -> None:
        """`covers`: the invariants that must have had occasion to be broken in the end. `shares`: how many of the time
        it has, where there is a time (the test says it to pytest as well, as its attribute)."""
        self._covers = covers
        self._shares = shares
        self.begin()

    def begin(self) -> None:
        """It is run, from its first example on."""
        asked = options()
        #: How many examples there were until the first that failed.
        self.examples = 0
        self.premises = Counter[str]()
        self._first: Size | None = None
        self._last: Size | None = None
        self._until = time.monotonic() + asked.seconds * self._shares
        self._seed: int | None = asked.seed

    @property
    def is_over(self) -> bool:
        """Whether there was a time for this, and it is used. Who fails takes all the time that shrinking needs."""
        return bool(options().seconds and self._first is None and time.monotonic() >= self._until)

    def run(self, tried: Callable[[], object], take_seed: Callable[[int], object]) -> None:
        """Let all examples be tried, as often as there is time. `take_seed` is told where the next round begins.

        Raises what a round raises, and Vacuous when all have gone well and something was not covered.
        """
        self.begin()
        asked = options()
        if asked.seconds and not asked.replay and self._seed is None:
            self._seed = random.SystemRandom().randrange(_SEEDS)
            take_seed(self._seed)
        while True:
            tried()
            if not asked.seconds or asked.replay or self.is_over:
                break
            assert self._seed is not None
            self._seed = (self._seed + 1) % _SEEDS
            take_seed(self._seed)
        if not asked.replay:
            self.require()

    def passed(self, sim: Sim) -> None:
        """An example has gone well."""
        self.examples += self._first is None
        self._count(sim)

    def failed(self, sim: Sim) -> None:
        """An example has failed: the first one, or a smaller one."""
        tasks = sum(len(event.facts["ids"]) for event in sim.trace.events if event.kind is Kind.PUBLISH)
        size = Size(len(sim.injector.done), tasks)
        self.examples += self._first is None
        self._first = self._first or size
        self._last = size
        self._count(sim)

    def require(self) -> None:
        """Raise Vacuous if one of the invariants that shall be covered never had occasion to be broken."""
        empty = [name for name in self._covers if not self.premises[name]]
        if empty:
            raise Vacuous(
                f"{', '.join(empty)} had no occasion to be broken in {_count(self.examples, 'example')}: this run says "
                "nothing of it"
            )

    def words(self) -> str:
        """Say of a failure by which search it was found."""
        parts = [f"seed {self._seed}"] if self._seed is not None and not options().replay else []
        if self.examples > 1:
            parts.append(f"after {self.examples} examples")
        if self._first is not None and self._last is not None and self._first != self._last:
            parts.append(f"shrunk from {self._first.words()} to {self._last.words()}")
        return ", ".join(parts)

    def _count(self, sim: Sim) -> None:
        self.premises.update(sim.watch.premises())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
