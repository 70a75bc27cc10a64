"""The promise about dead letters: what an operator asks for is done to each of them once, and nothing else is.

A redrive and a purge are seen in the commit that takes the letters away: what is redriven stands there once more, as
it was, and what is purged does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ....transport.codec import decode_envelopes
from ....transport.message import Envelope
from ....transport.store.records import Append, Dead, DeadGone, Record
from ....transport.verbs import Op, Request, ToBroker
from ..observer import Observer
from ..trace import Event, Kind
from .base import Invariant


class DeadLetters(Invariant, Observer):
    """DLQ."""

    name = "DLQ"
    sentence = (
        "A dead letter leaves when somebody asks for it: redriven, its message is there again as it was, once; purged, "
        "it never runs."
    )
    by_events = False

    def __init__(self) -> None:
        super().__init__()
        self._letters: dict[int, Dead] = {}
        self._asked = Counter[Op]()
        #: Mailboxes whose messages are in the store.
        self._stored: dict[str, None] = {}
        #: Positions of letters that are gone.
        self._gone: dict[int, str] = {}

    def heard(self, session: str, verb: ToBroker) -> None:
        """Take down what is asked for."""
        if isinstance(verb, Request) and verb.op in (Op.DEAD_REDRIVE, Op.DEAD_PURGE):
            self._asked[Op(verb.op)] += 1

    def on_commit(self, records: Sequence[Record]) -> None:
        """Compare what goes with what comes."""
        gone: list[int] = []
        for record in records:
            if isinstance(record, Dead):
                self._letters[record.position] = record
            elif isinstance(record, DeadGone):
                gone += record.positions
            elif isinstance(record, Append):
                self._stored[record.mailbox] = None
        if not gone:
            return
        came: dict[str, list[Envelope]] = {}
        for record in records:
            if isinstance(record, Append):
                for envelope in decode_envelopes(record.blob):
                    came.setdefault(envelope.id, []).append(envelope)
        for position in gone:
            letter = self._letters.pop(position, None)
            if letter is not None and letter.mailbox in self._stored and letter.id not in self.excused:
                self.premises += 1
                self._gone[position] = letter.id
                self._judge(letter, came.get(letter.id, []))

    def _judge(self, letter: Dead, again: Sequence[Envelope]) -> None:
        asked = Op.DEAD_REDRIVE if again else Op.DEAD_PURGE
        if not self._asked[asked]:
            self.violated(f"the dead letter {letter.id} is {'redriven' if again else 'gone'}, and nobody asked for it")
        if len(again) > 1:
            self.violated(f"the dead letter {letter.id} is redriven {len(again)} times at once")
        (was,) = decode_envelopes(letter.blob)
        for envelope in again:
            if _what_it_is(envelope) != _what_it_is(was):
                self.violated(f"the dead letter {letter.id} was {_what_it_is(was)}, redriven {_what_it_is(envelope)}")

    def on_event(self, event: Event) -> None:
        """What is gone is handed out only under its new position."""
        position = event.facts.get("position")
        if event.kind is Kind.DELIVER and position in self._gone and self._gone[position] not in self.excused:
            self.violated(f"the dead letter {event.facts['id']} is gone, and {event.facts['to']} gets it", event)


def _what_it_is(envelope: Envelope) -> tuple[str, int, str, bytes]:
    return envelope.name, envelope.flags, envelope.content, envelope.body
