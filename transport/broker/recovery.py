"""Recovery: from what a store kept to a broker that goes on (spec D18).

Counts, sessions, policies and revocations come with `Recovered`. The rows that hold leased messages and messages with
a past are read before anything else happens: leased ones wait for their sessions, the others take their places.
Everything else stays in the store and is read ahead like any tail.
"""

from __future__ import annotations

import msgspec

from ..codec import decode_envelopes
from ..store.records import Recovered
from ..store.records import Row as StoredRow
from ..verbs import Durability, Role, TaskPolicy
from .deaths import Deaths
from .desk import Desk
from .held import Lease, Message, Stage
from .mailbox import Declared
from .past import Past, decode_past
from .places import Places
from .rows import Rows
from .schedule import Schedule
from .sessions import Publishing, Session, decode_refused

_policy = msgspec.msgpack.Decoder(TaskPolicy)
_declared = msgspec.msgpack.Decoder(Declared)


class Recovery:
    """Puts back what a store kept."""

    def __init__(self, desk: Desk, schedule: Schedule, places: Places, rows: Rows, deaths: Deaths) -> None:
        self._desk = desk
        self._schedule = schedule
        self._places = places
        self._rows = rows
        self._deaths = deaths
        #: All leases, and the newest of each position.
        self._all: list[Lease] = []
        self._leases: dict[int, Lease] = {}
        self._pasts: dict[int, Past] = {}

    def tables(self, recovered: Recovered) -> list[int]:
        """Fill the tables; return the positions whose rows must be read first."""
        desk = self._desk
        desk.next_position = recovered.next_position
        desk.next_lease = recovered.next_lease
        for row in recovered.mailboxes:
            desk.mailbox(row.name).declared = _declared.decode(row.blob)
        for tally in recovered.tallies:
            mailbox = desk.mailbox(tally.mailbox)
            mailbox.depth += tally.ready + tally.scheduled
            mailbox.scheduled += tally.scheduled
            mailbox.lane(tally.priority).tail += tally.ready
            mailbox.strongest = desk.durability(mailbox) or Durability.DISK
            desk.busy[mailbox.name] = mailbox
        self._schedule.recovered(sum(tally.scheduled for tally in recovered.tallies))
        for count in recovered.dead:
            desk.mailbox(count.mailbox).dead = count.count
        for record in sorted(recovered.sessions, key=lambda record: record.seen_at):
            desk.publishing[record.session] = Publishing(
                record.number, record.number, decode_refused(record.outcomes), Durability.DISK, record.seen_at
            )
        for policy in recovered.policies:
            desk.learn(_policy.decode(policy.blob))
        for revoked in recovered.revoked:
            if revoked.until > desk.now.wall:
                desk.revoked[revoked.id] = revoked.until
        for past in recovered.pasts:
            self._pasts[past.position] = decode_past(past.blob)
        for out in recovered.leases:
            session = desk.sessions.get(out.session)
            if session is None:
                session = desk.sessions[out.session] = Session(out.session, Role.CHILD, "")
                desk.children.setdefault(session.parent, {})[session.id] = session
            lease = Lease(out.lease, session, 0, 0, Durability.DISK)
            self._all.append(lease)
            for position in out.positions:
                self._leases[position] = lease
        return sorted({*self._leases, *self._pasts})

    def rows(self, rows: list[StoredRow]) -> None:
        """The rows that hold leases and pasts: what was leased waits, what has a past takes its place."""
        desk = self._desk
        waiting: list[Message] = []
        for stored in rows:
            row = self._rows.row(stored)
            mailbox = row.mailbox
            for index, envelope in enumerate(decode_envelopes(stored.blob)):
                position = stored.base + index
                bit = 1 << index
                if row.gone & bit or (position not in self._leases and position not in self._pasts):
                    continue
                row.loaded |= bit
                desk.known[row.base] = row
                if stored.due:
                    self._schedule.tail -= 1
                    mailbox.scheduled -= 1
                else:
                    mailbox.lane(row.priority).tail -= 1
                message = Message(position, row, envelope, past=self._pasts.get(position))
                if message.past is not None and message.past.suspect:
                    mailbox.suspects += 1
                lease = self._leases.get(position)
                if lease is not None:
                    self._hold(message, lease)
                else:
                    waiting.append(message)
        for message in waiting:
            self._places.put(message, message.past.due if message.past is not None else 0)
        for lease in self._all:
            # Every message of it was settled, or has come back and gone out again, before the crash.
            if lease.left == 0:
                desk.journal.over(lease)
        nodes = {node: list(children.values()) for node, children in desk.children.items()}
        for node, children in nodes.items():
            for session in children:
                self._deaths.wait_for(session)
            self._deaths.look_for_pages(node, [session for session in children if session.held])
        self._all.clear()
        self._leases.clear()
        self._pasts.clear()

    def _hold(self, message: Message, lease: Lease) -> None:
        mailbox = message.row.mailbox
        message.lease = lease
        message.stage = Stage.ACQUIRED
        message.handed = 1
        lease.left += 1
        lease.session.held[message.position] = message
        mailbox.acquired += 1
        if mailbox.is_actor:
            self._desk.own(mailbox, lease.session)
