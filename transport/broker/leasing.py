"""Leasing: a lease is written before its messages go out (spec D7).

One lease is one hand-out to one session. Its record and its Deliver go into the same pass of the journal, so the
Deliver leaves after the commit, and only on the link for which it was made: a session that came back meanwhile says
what it holds, and this is not among it.
"""

from __future__ import annotations

from ..message import Delivery
from ..store.records import Lease as LeaseRecord
from ..verbs import Deliver
from .desk import Desk
from .held import Lease, Message, Stage
from .mailbox import Mailbox
from .outflow import VERB_BYTES
from .sessions import Session

#: As a plain integer: it is set once a message.
_ACQUIRED = int(Stage.ACQUIRED)
#: Deliveries in one verb, so that its frame stays within its limit.
DELIVERIES_A_VERB = 1_024
DELIVER_BYTES = 512 << 10
#: About what a delivery takes on the wire beside its body.
DELIVERY_BYTES = 96


class Leasing:
    """Hands messages to sessions."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def lease(self, session: Session, mailbox: Mailbox, messages: list[Message]) -> None:
        """Write the lease and say Deliver after its commit. The messages were READY and have left their lane."""
        desk = self._desk
        durability = mailbox.strongest
        number = desk.next_lease
        desk.next_lease += 1
        if mailbox.is_actor and not mailbox.since:
            mailbox.since = number
        lease = Lease(number, session, session.link, len(messages), durability, desk.now.wall)
        if durability:
            desk.journal.write(LeaseRecord(number, session.id, [message.position for message in messages]), durability)
        held = session.held
        wall = desk.now.wall
        name = mailbox.name
        deliveries: list[Delivery] = []
        size = 0
        for message in messages:
            position, envelope = message.position, message.envelope
            message.lease = lease
            message.stage = _ACQUIRED
            handed = message.handed = message.handed + 1
            held[position] = message
            past, more = message.past, envelope.more
            again, expires_in = handed > 1, 0
            if more is not None and more.expires:
                # Zero would say that it never expires: what is over when it is looked at was not handed out.
                expires_in = max(1, more.expires - wall)
            if past is not None:
                handed += past.acquired
                again = handed > 1 or past.bad_ends > 0
            deliveries.append(Delivery(position, envelope, name, handed, expires_in, again))
            size += len(envelope.body)
            if size >= DELIVER_BYTES or len(deliveries) >= DELIVERIES_A_VERB:
                self._say(session, lease, deliveries, size, mailbox.since)
                deliveries = []
                size = 0
        mailbox.acquired += len(messages)
        if deliveries:
            self._say(session, lease, deliveries, size, mailbox.since)

    def _say(self, session: Session, lease: Lease, deliveries: list[Delivery], size: int, since: int) -> None:
        desk = self._desk
        size += len(deliveries) * DELIVERY_BYTES + VERB_BYTES
        deliver = Deliver(desk.partition, desk.epoch, lease.id, deliveries, since)
        desk.outflow.promise(session, size)
        desk.journal.say(session, deliver, lease.link, size)
