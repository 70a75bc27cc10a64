"""The watch over a simulated world: every invariant sees what happens, and the first that is broken ends the run.

Owns who is told of what, the ledger that judges commits, and the counts of premises. A broken promise is raised where
it is seen. Where user code could swallow that, it is kept as well, and raised again by `check`.

All invariants watch, whichever are asked for, since some hide behind others: one that is not asked for and is broken
raises nothing and stands in `unasked`. What the ledger knows is in doubt from there on, if the promise is one that it
judges; then it and all who judge commits say nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ....transport.store.base import Store
from ....transport.store.records import Record, Recovered
from ....transport.verbs import FromBroker, ToBroker
from ..client import SECOND
from ..clockwork import Endless
from ..observer import Observer
from ..trace import Event, Kind
from ..world import REST_WITHIN, NeverAtRest, World
from .base import Invariant, Vacuous, Violated
from .commits import Bound
from .intake import Wire
from .ledger import Ledger
from .rest import OnePlace
from .table import make, sentence_of

#: After faults have stopped, no promise lets a message wait so long while nothing happens to any: a link is given up
#: after 6 s and comes back within 5 (D1, D4), what is lost is judged 13 s later (D15, D18), who reads nothing is cut
#: after 30 s (D9). What waits for longer, as the delays between redeliveries, has a due time that is known.
QUIET: Final = 60 * SECOND
_MOVES: Final = frozenset(
    (
        *(Kind.PUBLISH, Kind.CONFIRM, Kind.DELIVER, Kind.STARTED, Kind.RAN, Kind.SETTLE, Kind.RETURN, Kind.APPLIED),
        *(Kind.STORED, Kind.DEAD, Kind.RESULT, Kind.MARK, Kind.EFFECT, Kind.BROKER_UP),
    )
)


class _Relay(Observer):
    """Tells the ledger and the invariants what is seen of the broker."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._observing = [invariant for invariant in watch.invariants if isinstance(invariant, Observer)]
        self._of_commits = [i for i in watch.invariants if type(i).on_commit is not Invariant.on_commit]

    def opened(self, recovered: Recovered, store: Store) -> None:
        """As `Observer.opened`."""
        if self._watch.judges:
            self._watch.ledger.opened(recovered, store)
            for observer in self._observing:
                observer.opened(recovered, store)

    def failed(self) -> None:
        """As `Observer.failed`."""
        for observer in self._observing:
            observer.failed()

    def doubted(self) -> None:
        """As `Observer.doubted`."""
        for observer in self._observing:
            observer.doubted()

    def refused(self) -> None:
        """As `Observer.refused`."""
        if not self._watch.judges:
            return
        try:
            for observer in self._observing:
                observer.refused()
        except Violated as violation:
            self._watch.broken(violation)

    def heard(self, session: str, verb: ToBroker) -> None:
        """As `Observer.heard`."""
        if self._watch.judges:
            self._watch.ledger.heard(session, verb)
            for observer in self._observing:
                observer.heard(session, verb)

    def broke(self, session: str) -> None:
        """As `Observer.broke`."""
        if self._watch.judges:
            self._watch.ledger.broke(session)

    def said(self, session: str, verb: FromBroker) -> None:
        """As `Observer.said`."""
        if not self._watch.judges:
            return
        self._watch.ledger.said(session, verb)
        try:
            for observer in self._observing:
                observer.said(session, verb)
        except Violated as violation:
            self._watch.broken(violation)

    def making(self, records: Sequence[Record]) -> None:
        """As `Observer.making`."""
        if self._watch.judges:
            self._watch.ledger.making(records)

    def committed(self, records: Sequence[Record], duplicates: Sequence[int]) -> None:
        """As `Observer.committed`."""
        if not self._watch.judges:
            return
        self._watch.ledger.committed(records, duplicates)
        try:
            for observer in self._observing:
                observer.committed(records, duplicates)
            for invariant in self._of_commits:
                invariant.on_commit(records)
        except Violated as violation:
            self._watch.broken(violation)


class Watch:
    """Judges a world from now on. To be made before the world is started."""

    def __init__(self, world: World, names: Sequence[str] | None = None) -> None:
        """`names`: the invariants that raise what they see; None: all. Raises ValueError for one that is not there."""
        self.world = world
        asked = make() if names is None else make(names) if names else []
        self._names = {invariant.name for invariant in asked}
        others = [invariant for invariant in make() if invariant.name not in self._names]
        #: Those that were asked for stand first: none of the others ends what they see.
        self.invariants: list[Invariant] = [*asked, *others]
        #: The first promise that was broken.
        self.violation: Violated | None = None
        #: Promises that were broken and that nobody has asked for, by name.
        self.unasked: dict[str, Violated] = {}
        self._in_doubt = False
        self._last: Event | None = None
        #: When something happened to a message last, in the trace's time.
        self._moved_at = 0
        self.ledger = Ledger(world, self._broken_in_ledger)
        #: Those that events are told to: most invariants do not care.
        self._listening = [i for i in self.invariants if type(i).on_event is not Invariant.on_event]
        self._place: OnePlace | None = None
        for invariant in self.invariants:
            invariant.excused = self.ledger.facts.excused
            if isinstance(invariant, Bound):
                invariant.world = world
                invariant.unsettled = self.ledger.unsettled
            if isinstance(invariant, Wire):
                invariant.world = world
            if isinstance(invariant, OnePlace):
                invariant.world = world
                self._place = invariant
        world.observed.observers.append(_Relay(self))
        world.trace.listen(self._on_event)

    # --- what happens --------------------------------------------------------------------------------------------

    @property
    def judges(self) -> bool:
        """Whether it judges any more: it does until something that the ledger knows of is broken."""
        return self.violation is None and not self._in_doubt

    def _on_event(self, event: Event) -> None:
        if self.violation is not None:
            return
        self._last = event
        if event.kind in _MOVES:
            self._moved_at = event.at
        try:
            if not self._in_doubt:
                self.ledger.on_event(event)
            for invariant in self._listening:
                invariant.on_event(event)
            if self._place is not None and event.kind is Kind.COMMIT:
                self._place.look()
        except Violated as violation:
            self.broken(violation)

    def broken(self, violation: Violated) -> None:
        """A promise was broken. Raises it, if it is one that was asked for."""
        if self.violation is not None:
            return
        violation.event = violation.event or self._last
        if violation.invariant in self._names:
            self.violation = violation
            raise violation
        self.unasked.setdefault(violation.invariant, violation)

    def _broken_in_ledger(self, name: str, detail: str) -> None:
        self.broken(Violated(name, sentence_of(name), detail))
        self._in_doubt = True

    # --- what a test asks ----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise the first violation again, if there was one."""
        if self.violation is not None:
            raise self.violation

    def settle(self, within: int = REST_WITHIN) -> None:
        """End the chaos, let the world come to rest, and judge what is left. Raises Violated."""
        self.check()
        # Before, faults may have held everything up.
        self._moved_at = self.world.clockwork.now.boot - self.world.trace.began
        try:
            self.world.settle(within, self._is_hopeless)
        except (NeverAtRest, Endless) as error:
            self.check()
            self.broken(Violated("QUIESCE", sentence_of("QUIESCE"), str(error)))
            raise
        self.check()
        self.at_rest()

    def _is_hopeless(self) -> bool:
        """Whether nothing has happened to any message for longer than anything promised takes, and nothing is due.

        Nobody waits longer in silence than QUIET, but a body that runs, and what is due at a time of its own: then
        nothing will happen, however long one waits.
        """
        world = self.world
        if world.clockwork.now.boot - world.trace.began - self._moved_at < QUIET or any(
            child.is_busy for child in world.children
        ):
            return False
        return self.ledger.latest_due() + QUIET <= world.broker.now.wall

    def at_rest(self) -> None:
        """Judge a world that is at rest. Raises Violated."""
        if self.judges:
            self.ledger.at_rest()
        for invariant in self.invariants:
            if self.judges or invariant.by_events:
                try:
                    invariant.at_rest(self.world)
                    invariant.at_end()
                except Violated as violation:
                    self.broken(violation)

    def premises(self) -> dict[str, int]:
        """Return how often each invariant had occasion to be broken."""
        judged = self.ledger.referee.judged
        return {i.name: i.premises + judged[i.name] for i in self.invariants if i.name in self._names}

    def require(self, *names: str) -> None:
        """Raise Vacuous if one of these invariants, all of them if none is named, never had occasion to be broken."""
        premises = self.premises()
        empty = [name for name in names or premises if not premises.get(name)]
        if empty:
            raise Vacuous(f"{', '.join(empty)} had no occasion to be broken: this run says nothing of it")
