"""An invariant: a promise in a sentence, and the judgement whether it was kept.

Owns `Invariant`, which sees events, records and the world at rest and judges them, and `Violated`, which is raised
when one does not hold. Each counts its premises: how often there was occasion to break it. One without any has said
nothing (`Vacuous`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, NoReturn

from ....transport.store.records import Record
from ..trace import Event

if TYPE_CHECKING:
    from ..world import World


class Violated(AssertionError):
    """Raised when a promise was broken. `event` is the latest thing that had happened, `about` the message's id."""

    def __init__(self, invariant: str, sentence: str, detail: str, event: Event | None = None, about: str = "") -> None:
        super().__init__(f"{invariant} violated: {detail}\n{sentence}")
        self.invariant = invariant
        self.sentence = sentence
        self.detail = detail
        self.event = event
        self.about = about or ("" if event is None else str(event.facts.get("id", "")))


class Vacuous(AssertionError):
    """Raised when a run claims to cover an invariant that never had occasion to fail in it."""


class Invariant:
    """One promise. What a subclass does not judge, it leaves as it is here: nothing."""

    #: By this name guarantees, reports and the self-test speak of it.
    name: ClassVar[str]
    #: The promise, for people.
    sentence: ClassVar[str]
    #: Whether it can be judged by events alone, as `greenroom check-log` does.
    by_events: ClassVar[bool] = True

    def __init__(self) -> None:
        #: How often there was occasion to break it.
        self.premises = 0
        #: Ids of messages whose mailbox did not promise to survive what has happened.
        self.excused: dict[str, None] = {}

    def on_event(self, event: Event) -> None:
        """Judge something that happens. Raises Violated."""

    def on_commit(self, records: Sequence[Record]) -> None:
        """Judge what a broker has committed. Raises Violated."""

    def at_rest(self, world: World) -> None:
        """Judge the world when everything should have come to its end. Raises Violated."""

    def at_end(self) -> None:
        """Judge the events of a cluster that has come to rest. Raises Violated."""

    def forget(self, id: str, positions: Sequence[int]) -> None:
        """Let go of a message: of a long log not everything can be remembered, and nothing of it is judged any more."""

    def violated(self, detail: str, event: Event | None = None, about: str = "") -> NoReturn:
        """Raise Violated for this invariant. `about`: the id of the message, where `event` has none."""
        raise Violated(self.name, self.sentence, detail, event, about)
