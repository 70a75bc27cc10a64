"""States: what durable actors keep, in the commit that ends the message that changed it (spec D20, D21).

A settle brings the snapshot; its record stands in the same Persist as the end of the message, so that both are on disk
or neither is. Only the current delivery may settle an actor's message, and what it says under a lease that it has lost
never comes here. The record's number is that lease, and leases of one actor rise: the store refuses an older one.

No state is kept in memory. Whoever gets the actor asks for it, on the link on which it settles, so that the read comes
after whatever it has settled before; a read that overlapped a failed commit is made again, since that commit's states
are written anew behind it. When an owner must ask, `Mailbox.since` tells: it changes with the owner, and when an
operator takes the state away.
"""

from __future__ import annotations

import msgspec

from ..message import Outcome
from ..requests import FetchedState
from ..store.records import ActorState, ActorStatesGone
from ..verbs import Reply
from .desk import Desk
from .events import ReadStates, StatesRead
from .held import Message
from .outflow import VERB_BYTES
from .sessions import Session

_encoder = msgspec.msgpack.Encoder()


class _Asked(msgspec.Struct):
    """Who waits for a state, and how many commits had failed before it was read."""

    session: Session
    number: int
    mailbox: str
    failures: int


class States:
    """Writes states and answers who asks for one."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._reads: dict[int, _Asked] = {}

    def keep(self, message: Message, outcome: Outcome) -> None:
        """Write the state that this message left, in this pass's commit. Tasks have none."""
        row = message.row
        if row.mailbox.is_actor and outcome.snapshot is not None:
            record = ActorState(row.mailbox.name, outcome.lease, outcome.snapshot)
            self._desk.journal.write(record, row.durability)

    def forget(self, name: str) -> None:
        """An operator takes this actor's state away. What its host still handles may leave one again."""
        desk = self._desk
        desk.journal.write(ActorStatesGone([name]))
        mailbox = desk.mailboxes.get(name)
        if mailbox is not None:
            mailbox.since = 0

    def fetch(self, session: Session, number: int, mailbox: str) -> None:
        """Answer request `number` with this actor's state, as soon as it is read."""
        self._read(_Asked(session, number, mailbox, self._desk.failures))

    def _read(self, asked: _Asked) -> None:
        desk = self._desk
        token = desk.token()
        self._reads[token] = asked
        desk.effects.append(ReadStates(token, [asked.mailbox]))

    def read(self, event: StatesRead) -> None:
        """A state was read, or there is none."""
        asked = self._reads.pop(event.token, None)
        if asked is None:
            return
        desk = self._desk
        if asked.failures != desk.failures:
            asked.failures = desk.failures
            self._read(asked)
            return
        state = event.states[0] if event.states else None
        fetched = FetchedState(state.number, state.blob) if state is not None else FetchedState()
        encoded = _encoder.encode(fetched)
        desk.send(asked.session, Reply(asked.number, value=msgspec.Raw(encoded)), len(encoded) + VERB_BYTES)
