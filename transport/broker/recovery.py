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
from .dispatch import Dispatch
from .held import Lease, Message, Row, Stage
from .mailbox import Declared
from .past import Past, decode_past
from .schedule import Schedule
from .sessions import Publishing, Session, decode_refused

_policy = msgspec.msgpack.Decoder(TaskPolicy)
_declared = msgspec.msgpack.Decoder(Declared)


class Recovery:
    """Puts back what a store kept."""

    def __init__(self, desk: Desk, schedule: Schedule, dispatch: Dispatch, deaths: Deaths) -> None:
        self._desk = desk
        self._schedule = schedule
        self._dispatch = dispatch
        self._deaths = deaths
        #: position -> its lease.
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
            self._schedule.tail += tally.scheduled
            desk.busy[mailbox.name] = mailbox
        if self._schedule.tail:
            self._schedule.horizon = (-1, 0)
        for count in recovered.dead:
            desk.mailbox(count.mailbox).dead = count.count
        for record in recovered.sessions:
            desk.publishing[record.session] = Publishing(
                record.number, record.number, decode_refused(record.outcomes), Durability.DISK, record.seen_at
            )
        for policy in recovered.policies:
            desk.policies[policy.name] = _policy.decode(policy.blob)
        for revoked in recovered.revoked:
            desk.revoked[revoked.id] = revoked.until
        for past in recovered.pasts:
            self._pasts[past.position] = decode_past(past.blob)
        for out in recovered.leases:
            session = desk.sessions.get(out.session)
            if session is None:
                session = desk.sessions[out.session] = Session(out.session, Role.CHILD, "")
            lease = Lease(out.lease, session, 0, 0, Durability.DISK)
            for position in out.positions:
                self._leases[position] = lease
        return sorted({*self._leases, *self._pasts})

    def rows(self, rows: list[StoredRow]) -> None:
        """The rows that hold leases and pasts: what was leased waits, what has a past takes its place."""
        desk = self._desk
        lanes: list[Message] = []
        for stored in rows:
            row = self.row(stored)
            envelopes = decode_envelopes(stored.blob)
            for index, envelope in enumerate(envelopes):
                position = stored.base + index
                bit = 1 << index
                if row.gone & bit or (position not in self._leases and position not in self._pasts):
                    continue
                row.loaded |= bit
                if not stored.due:
                    row.mailbox.lane(row.priority).tail -= 1
                else:
                    self._schedule.tail -= 1
                    row.mailbox.scheduled -= 1
                message = Message(position, row, envelope, past=self._pasts.get(position))
                lease = self._leases.get(position)
                if lease is not None:
                    message.lease = lease
                    message.stage = Stage.ACQUIRED
                    message.handed = 1
                    lease.left += 1
                    lease.session.held[position] = message
                    row.mailbox.acquired += 1
                else:
                    lanes.append(message)
        for message in lanes:
            self._place(message)
        self._leases_of_nothing()
        nodes: dict[str, list[Session]] = {}
        for session in list(desk.sessions.values()):
            if session.held:
                nodes.setdefault(session.parent, []).append(session)
            self._deaths.wait_for(session)
        for node, sessions in nodes.items():
            self._deaths.look_for_pages(node, sessions)
        self._leases.clear()
        self._pasts.clear()

    def _leases_of_nothing(self) -> None:
        """A lease of which every message was settled before the crash is over."""
        seen: set[int] = set()
        for lease in self._leases.values():
            if lease.left == 0 and lease.id not in seen:
                seen.add(lease.id)
                self._desk.journal.over(lease)

    def _place(self, message: Message) -> None:
        desk = self._desk
        mailbox = message.row.mailbox
        past = message.past or Past()
        if mailbox.is_actor:
            mailbox.lane(message.row.priority).put_back(message)
            mailbox.quarantined = mailbox.quarantined or past.suspect
            mailbox.blocked_until = max(mailbox.blocked_until, past.due)
            desk.busy[mailbox.name] = mailbox
        elif past.suspect:
            self._dispatch.suspect(past.due, message)
        elif past.due > desk.now.wall:
            message.stage = Stage.SCHEDULED
            mailbox.scheduled += 1
            self._schedule.add_always(past.due, message)
        else:
            mailbox.lane(message.row.priority).put_back(message)
            desk.busy[mailbox.name] = mailbox

    def row(self, stored: StoredRow) -> Row:
        """The row in memory for a stored one: the one that recovery made, or a new one."""
        desk = self._desk
        row = desk.recovering.get(stored.base)
        if row is None:
            mailbox = desk.mailbox(stored.mailbox)
            durability = desk.durability(mailbox) or Durability.DISK
            row = Row(stored.base, stored.count, mailbox, stored.priority, stored.session, durability, stored.gone)
            row.loaded = stored.gone
            desk.recovering[stored.base] = row
        return row

    def messages(self, stored: StoredRow) -> list[Message]:
        """Messages of a row read ahead that are not in memory yet, in order."""
        desk = self._desk
        row = self.row(stored)
        rest = row.full & ~(row.loaded | row.gone)
        messages: list[Message] = []
        if rest:
            for index, envelope in enumerate(decode_envelopes(stored.blob)):
                if rest >> index & 1:
                    messages.append(Message(stored.base + index, row, envelope))
        row.loaded = row.full
        desk.recovering.pop(stored.base, None)
        return messages
