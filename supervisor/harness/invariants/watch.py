"""The watch over a simulated world: every invariant sees what happens, and the first that is broken ends the run.

Owns who is told of what, the ledger that judges commits, and the counts of premises. A broken promise is raised where
it is seen. Where user code could swallow that, it is kept as well, and raised again by `check`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from ....transport.store.records import Record
from ..clockwork import Endless
from ..observer import Observer
from ..trace import Event, Kind
from ..world import REST_WITHIN, NeverAtRest, World
from .base import Invariant, Vacuous, Violated
from .commits import Bound
from .ledger import Ledger
from .rest import OnePlace
from .table import make, sentence_of


class _Commits(Observer):
    """Tells invariants of commits."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def committed(self, records: Sequence[Record], duplicates: Sequence[int]) -> None:
        """As `Observer.committed`."""
        self._watch.committed(records)


class Watch:
    """Judges a world from now on. To be made before the world is started."""

    def __init__(self, world: World, names: Sequence[str] = ()) -> None:
        """`names`: the invariants to judge; all if none is named. Raises ValueError for one that is not there."""
        self.world = world
        self.invariants: list[Invariant] = make(names)
        #: The first promise that was broken.
        self.violation: Violated | None = None
        self._names = {invariant.name for invariant in self.invariants}
        self._last: Event | None = None
        self.ledger = Ledger(world, self._broken)
        world.observed.observers.append(self.ledger)
        #: Those that events are told to: most invariants do not care.
        self._listening = [i for i in self.invariants if type(i).on_event is not Invariant.on_event]
        self._place: OnePlace | None = None
        for invariant in self.invariants:
            invariant.excused = self.ledger.facts.excused
            if isinstance(invariant, Bound):
                invariant.world = world
                invariant.unsettled = self.ledger.unsettled
            if isinstance(invariant, OnePlace):
                invariant.world = world
                self._place = invariant
            if isinstance(invariant, Observer):
                world.observed.observers.append(invariant)
        world.observed.observers.append(_Commits(self))
        world.trace.listen(self._on_event)

    # --- what happens --------------------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        if self.violation is not None:
            return
        self._last = event
        try:
            self.ledger.on_event(event)
            for invariant in self._listening:
                invariant.on_event(event)
            if self._place is not None and event.kind is Kind.COMMIT:
                self._place.look()
        except Violated as violation:
            self._keep(violation)

    def committed(self, records: Sequence[Record]) -> None:
        """A commit is on the disk. Raises Violated."""
        if self.violation is not None:
            return
        try:
            for invariant in self.invariants:
                invariant.on_commit(records)
        except Violated as violation:
            self._keep(violation)

    def _broken(self, name: str, detail: str) -> None:
        if name in self._names and self.violation is None:
            self._keep(Violated(name, sentence_of(name), detail, self._last))

    def _keep(self, violation: Violated) -> NoReturn:
        violation.event = violation.event or self._last
        self.violation = violation
        raise violation

    # --- what a test asks ----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise the first violation again, if there was one."""
        if self.violation is not None:
            raise self.violation

    def settle(self, within: int = REST_WITHIN) -> None:
        """End the chaos, let the world come to rest, and judge what is left. Raises Violated."""
        self.check()
        try:
            self.world.settle(within)
        except (NeverAtRest, Endless) as error:
            self.check()
            if "QUIESCE" not in self._names:
                raise
            self._keep(Violated("QUIESCE", sentence_of("QUIESCE"), str(error), self._last))
        self.check()
        self.at_rest()

    def at_rest(self) -> None:
        """Judge a world that is at rest. Raises Violated."""
        try:
            self.ledger.at_rest()
            for invariant in self.invariants:
                invariant.at_rest(self.world)
                invariant.at_end()
        except Violated as violation:
            if self.violation is None:
                self._keep(violation)
            raise

    def premises(self) -> dict[str, int]:
        """Return how often each invariant had occasion to be broken."""
        judged = self.ledger.referee.judged
        return {invariant.name: invariant.premises + judged[invariant.name] for invariant in self.invariants}

    def require(self, *names: str) -> None:
        """Raise Vacuous if one of these invariants, all of them if none is named, never had occasion to be broken."""
        premises = self.premises()
        empty = [name for name in names or premises if not premises.get(name)]
        if empty:
            raise Vacuous(f"{', '.join(empty)} had no occasion to be broken: this run says nothing of it")
