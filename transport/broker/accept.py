"""Accepting: a publish becomes rows, whole or not at all, once, in order (spec D6, D7, D28).

A batch with the session's next number is applied; its outcome, acceptance or refusal, is committed with the number.
An earlier number gets the stored outcome again. A later one, or a session that this broker does not know speaking a
number above 1, is refused: its sender cannot know what became of what it said before.

A group whose messages are all plain (one priority, no times to resolve, no chosen id) is stored as it came. The
others are cut: a row for each message that waits for a due time or has a chosen id, a row a priority for the rest.
"""

from __future__ import annotations

import msgspec

from ..codec import BODY_BYTES_MAX, encode_envelopes, envelopes_of
from ..message import Envelope, Flag, More
from ..store.records import Append
from ..store.records import Session as SessionRecord
from ..verbs import Confirm, Durability, Group, Publish, Refusal, Reset
from .desk import Desk
from .events import CloseLink
from .held import Message, Row, Stage
from .journal import Accepted
from .mailbox import Mailbox
from .schedule import Schedule
from .sessions import Publishing, Session, encode_refused

#: As a plain integer: an IntFlag's own operators cost ten times as much.
CHOSEN_ID = int(Flag.CHOSEN_ID)


class Accepting:
    """Takes publishes."""

    def __init__(self, desk: Desk, schedule: Schedule) -> None:
        self._desk = desk
        self._schedule = schedule
        #: Sessions whose number moved in this pass, in order.
        self._moved: dict[str, Publishing] = {}

    def publish(self, session: Session, verb: Publish, parts: list[bytes], size: int) -> None:
        """Take one numbered batch."""
        desk = self._desk
        publishing = desk.publishing.get(session.id)
        if publishing is None:
            publishing = Publishing()
            if verb.number == 1:
                desk.publishing[session.id] = publishing
        publishing.seen_at = desk.now.wall
        if publishing.refused:
            for number in [number for number in publishing.refused if number <= verb.answered]:
                del publishing.refused[number]
        if verb.number <= publishing.applied:
            if verb.number <= publishing.committed:
                desk.send(session.link, self._outcome(publishing, verb.number))
            return
        if verb.number != publishing.applied + 1:
            self._refuse_gap(session, publishing, verb.number)
            return
        session.unconfirmed_bytes += size
        if session.unconfirmed_bytes > desk.settings.publish_bytes_max + BODY_BYTES_MAX:
            desk.effects.append(CloseLink(session.link, "more bytes unconfirmed than it was granted"))
            return
        publishing.applied = verb.number
        self._moved[session.id] = publishing
        accepted = Accepted(session, verb.number, [], [], [], size, [])
        refusal, detail = self._apply(session, verb, parts, accepted)
        if refusal:
            publishing.refused[verb.number] = (refusal, detail)
            desk.counts.refused += 1
        else:
            desk.journal.open.accepted.append(accepted)
        desk.journal.open.then.append(lambda: self._committed(session, publishing, accepted))

    def _refuse_gap(self, session: Session, publishing: Publishing, number: int) -> None:
        desk = self._desk
        if publishing.applied:
            desk.send(session.link, Reset(f"batch {number} came after batch {publishing.applied}", final=False))
            desk.effects.append(CloseLink(session.link, "batches out of order"))
            return
        detail = f"this broker does not know session {session.id}; what became of its batch {number} is unknown"
        desk.send(
            session.link,
            Confirm(desk.partition, desk.epoch, number, Refusal.UNKNOWN_SESSION, Durability.MEMORY, detail),
        )

    def _outcome(self, publishing: Publishing, number: int) -> Confirm:
        desk = self._desk
        refusal, detail = publishing.refused.get(number, (0, ""))
        return Confirm(desk.partition, desk.epoch, number, refusal, publishing.durability, detail)

    def _committed(self, session: Session, publishing: Publishing, accepted: Accepted) -> None:
        """The batch is on disk: confirm, and let messages whose chosen id the store judged become ready."""
        publishing.committed = max(publishing.committed, accepted.number)
        session.unconfirmed_bytes -= accepted.bytes
        if session.link:
            self._desk.send(session.link, self._outcome(publishing, accepted.number))
        for message in accepted.unique:
            if message.stage != Stage.SETTLED:
                self._place(message)

    def flush(self) -> None:
        """At the end of a pass: one session record for each session whose number moved."""
        if not self._moved:
            return
        for id, publishing in self._moved.items():
            self._desk.journal.write(
                SessionRecord(id, publishing.applied, encode_refused(publishing), publishing.seen_at),
                Durability(publishing.durability),
            )
        self._moved = {}

    # --- applying ------------------------------------------------------------------------------------------------

    def _apply(self, session: Session, verb: Publish, parts: list[bytes], accepted: Accepted) -> tuple[int, str]:
        desk = self._desk
        if desk.draining:
            return Refusal.NOT_ALLOWED, "the broker is shutting down; try again in a moment"
        if desk.store_full:
            return Refusal.STORE_FULL, "the broker's disk is full"
        groups: list[tuple[Mailbox, Group, list[Envelope]]] = []
        used = 0
        durability = Durability.CLUSTER
        added: dict[str, int] = {}
        for group in verb.groups:
            try:
                envelopes = envelopes_of(group, parts[used : used + group.parts])
            except (msgspec.MsgspecError, ValueError) as error:
                return Refusal.INVALID, f"a group for mailbox {group.mailbox!r} cannot be read: {error}"
            used += group.parts
            name = group.mailbox
            if name not in desk.mailboxes and len(desk.mailboxes) + len(added) >= desk.settings.mailboxes_max:
                limit = desk.settings.mailboxes_max
                return (
                    Refusal.MAILBOX_FULL,
                    f"the broker has {limit} mailboxes, its limit; {name!r} would be one more",
                )
            mailbox = desk.mailbox(name)
            added[name] = added.get(name, 0) + len(envelopes)
            full = self._full(mailbox, added[name])
            if full:
                return Refusal.MAILBOX_FULL, full
            durability = min(durability, desk.durability(mailbox))
            groups.append((mailbox, group, envelopes))
        desk.publishing[session.id].durability = durability
        for mailbox, group, envelopes in groups:
            self._accept(session, mailbox, group, envelopes, accepted)
        return Refusal.ACCEPTED, ""

    def _full(self, mailbox: Mailbox, more: int) -> str:
        settings = self._desk.settings
        declared = mailbox.declared
        limit = settings.mailbox_max_messages if declared.max_messages is None else declared.max_messages
        if mailbox.depth + more <= limit:
            return ""
        policy = declared.on_full or settings.mailbox_on_full
        blocked = "block: " if policy == "block" else ""
        return (
            f"{blocked}mailbox {mailbox.name!r} holds {mailbox.depth} messages, its limit is {limit}, "
            f"and {more} more came"
        )

    def _accept(
        self, session: Session, mailbox: Mailbox, group: Group, envelopes: list[Envelope], accepted: Accepted
    ) -> None:
        desk = self._desk
        desk.counts.accepted += len(envelopes)
        priority = envelopes[0].priority
        for envelope in envelopes:
            more = envelope.more
            if envelope.priority != priority or envelope.flags & CHOSEN_ID or (more is not None and _has_times(more)):
                self._accept_cut(session, mailbox, envelopes, accepted)
                return
        blob = encode_envelopes(envelopes) if group.parts else bytes(group.messages)
        self._append(session, mailbox, priority, envelopes, blob, accepted)

    def _accept_cut(self, session: Session, mailbox: Mailbox, envelopes: list[Envelope], accepted: Accepted) -> None:
        plain: dict[int, list[Envelope]] = {}
        for envelope in envelopes:
            more = envelope.more
            if more is not None and _has_times(more):
                self._resolve(more)
            if envelope.flags & CHOSEN_ID or (more is not None and more.due):
                self._append_alone(session, mailbox, envelope, accepted)
            else:
                plain.setdefault(envelope.priority, []).append(envelope)
        for priority, some in plain.items():
            self._append(session, mailbox, priority, some, encode_envelopes(some), accepted)

    def _resolve(self, more: More) -> None:
        """Turn durations into wall times, once (D28)."""
        wall = self._desk.now.wall
        if more.delay:
            more.due = wall + more.delay
            more.delay = 0
        if more.expires_in:
            more.expires = wall + more.expires_in
            more.expires_in = 0
        if more.due and more.due <= wall:
            more.due = 0

    def _append(
        self,
        session: Session,
        mailbox: Mailbox,
        priority: int,
        envelopes: list[Envelope],
        blob: bytes,
        accepted: Accepted,
    ) -> None:
        desk = self._desk
        count = len(envelopes)
        base = desk.positions(count)
        durability = desk.durability(mailbox)
        row = Row(base, count, mailbox, priority, session.id, durability)
        if durability:
            desk.journal.write(Append(base, count, mailbox.name, priority, 0, session.id, blob), durability)
        accepted.rows.append(row)
        mailbox.depth += count
        lane = mailbox.lane(priority)
        settings = desk.settings
        if not durability or lane.has_room(settings.head_messages_max, settings.head_bytes_max):
            row.loaded = row.full
            messages = [Message(base + index, row, envelope) for index, envelope in enumerate(envelopes)]
            accepted.messages.extend(messages)
            lane.append(row, messages)
        else:
            lane.tail += count
            accepted.tails.append((row, count))
        desk.busy[mailbox.name] = mailbox

    def _append_alone(self, session: Session, mailbox: Mailbox, envelope: Envelope, accepted: Accepted) -> None:
        """One message in a row of its own: it waits, or the store must judge its id first."""
        desk = self._desk
        base = desk.positions(1)
        durability = desk.durability(mailbox)
        row = Row(base, 1, mailbox, envelope.priority, session.id, durability)
        row.loaded = 1
        chosen = bool(envelope.flags & CHOSEN_ID)
        due = envelope.more.due if envelope.more is not None else 0
        if durability:
            unique = envelope.id if chosen else ""
            until = desk.now.wall + desk.settings.unique_ttl if chosen else 0
            desk.journal.write(
                Append(
                    base,
                    1,
                    mailbox.name,
                    envelope.priority,
                    due,
                    session.id,
                    encode_envelopes([envelope]),
                    unique,
                    until,
                ),
                durability,
            )
        accepted.rows.append(row)
        message = Message(base, row, envelope)
        accepted.messages.append(message)
        mailbox.depth += 1
        if chosen and durability:
            # Not ready before the store said that the id is new: counted as scheduled until then.
            message.stage = Stage.SCHEDULED
            mailbox.scheduled += 1
            accepted.unique.append(message)
        elif due:
            message.stage = Stage.SCHEDULED
            mailbox.scheduled += 1
            self._schedule.add(due, message)
        else:
            self._ready(message)

    def _place(self, message: Message) -> None:
        """The store knows the message's chosen id as new: let it wait for its time, or be ready."""
        mailbox = message.row.mailbox
        due = message.envelope.more.due if message.envelope.more is not None else 0
        if due > self._desk.now.wall:
            self._schedule.add(due, message)
        else:
            message.stage = Stage.READY
            mailbox.scheduled -= 1
            self._ready(message)

    def _ready(self, message: Message) -> None:
        mailbox = message.row.mailbox
        # Kept in memory whatever the lane's bound: its position is below the tail's, so no read would find it.
        mailbox.lane(message.row.priority).put_behind(message)
        self._desk.busy[mailbox.name] = mailbox

    def duplicates(self, accepted: Accepted, positions: set[int]) -> None:
        """The store had these chosen ids already: the messages never were; their publish counts as accepted."""
        for message in accepted.unique:
            if message.position in positions:
                mailbox = message.row.mailbox
                mailbox.depth -= 1
                mailbox.scheduled -= 1
                message.stage = Stage.SETTLED

    def undo(self, accepted: Accepted) -> None:
        """The store had no room for this publish: it is refused, and nothing of it stays."""
        desk = self._desk
        publishing = desk.publishing[accepted.session.id]
        publishing.refused[accepted.number] = (Refusal.STORE_FULL, "the broker's disk is full")
        self._moved[accepted.session.id] = publishing
        for message in accepted.messages:
            if message.stage == Stage.SETTLED:
                continue
            mailbox = message.row.mailbox
            desk.uncount(message)
            desk.unlease(message)
            mailbox.depth -= 1
            if message.stage == Stage.READY:
                mailbox.lane(message.row.priority).remove(message)
            message.stage = Stage.SETTLED
        for row, count in accepted.tails:
            row.mailbox.depth -= count
            row.mailbox.lane(row.priority).tail -= count
        desk.counts.accepted -= len(accepted.messages) + sum(count for _, count in accepted.tails)
        desk.counts.refused += 1


def _has_times(more: More) -> bool:
    return bool(more.due or more.delay or more.expires_in)
