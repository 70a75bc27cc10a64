"""Accepting: a publish becomes rows, whole or not at all, once, in order (spec D6, D7, D28).

A batch with the session's next number is applied; its outcome, acceptance or refusal, is committed with the number.
An earlier number gets the stored outcome again. A later one is refused as of an unknown session: this broker does not
know what its sender said before, so the sender cannot know what became of it.

A group whose messages are all plain (one priority, no times to resolve, no chosen id) is stored as it came. The
others are cut: a row for each message that waits for a due time or has a chosen id, a row for each run of the rest.
A message whose chosen id the store has not judged yet holds its place in the lane: what came after it waits for it.
"""

from __future__ import annotations

import msgspec

from ..codec import BODY_BYTES_MAX, encode_envelopes, envelopes_of
from ..message import Envelope, Flag, More
from ..store.records import Append, Drop
from ..store.records import Session as SessionRecord
from ..verbs import Confirm, Durability, Group, Publish, Refusal
from .desk import Desk
from .held import Message, Row, Stage
from .journal import Accepted, Unique
from .mailbox import Mailbox
from .schedule import Schedule
from .sessions import Publishing, Session, encode_refused
from .settling import resolve

#: As a plain integer: an IntFlag's own operators cost ten times as much.
CHOSEN_ID = int(Flag.CHOSEN_ID)
NO_MESSAGES = encode_envelopes([])
#: Idle mailboxes are looked for this often when there are too many, in microseconds.
FORGET_EVERY = 1_000_000


class Accepting:
    """Takes publishes."""

    def __init__(self, desk: Desk, schedule: Schedule) -> None:
        self._desk = desk
        self._schedule = schedule
        #: Sessions whose number moved in this pass, in order.
        self._moved: dict[str, Publishing] = {}
        self._forgotten_at = 0

    def publish(self, session: Session, verb: Publish, parts: list[bytes], size: int) -> str:
        """Take one numbered batch. Returns why the link must be cut, or nothing."""
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
                desk.send(session, self._outcome(publishing, verb.number))
            return ""
        if verb.number != publishing.applied + 1:
            self._refuse_gap(session, publishing, verb.number)
            return ""
        if session.unconfirmed_bytes + size > desk.settings.publish_bytes_max + BODY_BYTES_MAX:
            return "it has more bytes unconfirmed than it was granted"
        session.unconfirmed_bytes += size
        publishing.applied = verb.number
        self._moved[session.id] = publishing
        accepted = Accepted(session.id, verb.number, size)
        refusal, detail = self._apply(session, publishing, verb, parts, accepted)
        if refusal:
            publishing.refused[verb.number] = (refusal, detail)
            desk.counts.refused += 1
        else:
            desk.journal.open.accepted.append(accepted)
        link = session.link
        desk.journal.open.then.append(lambda: self._committed(link, publishing, accepted))
        return ""

    def _refuse_gap(self, session: Session, publishing: Publishing, number: int) -> None:
        desk = self._desk
        detail = (
            f"this broker knows session {session.id} up to batch {publishing.applied}; "
            f"what became of what was said before batch {number} is unknown"
        )
        refusal = Confirm(desk.partition, desk.epoch, number, Refusal.UNKNOWN_SESSION, Durability.MEMORY, detail)
        desk.send(session, refusal)

    def _outcome(self, publishing: Publishing, number: int) -> Confirm:
        desk = self._desk
        refusal, detail = publishing.refused.get(number, (0, ""))
        return Confirm(desk.partition, desk.epoch, number, refusal, publishing.durability, detail)

    def _committed(self, link: int, publishing: Publishing, accepted: Accepted) -> None:
        """The batch is on disk: confirm, on whatever link the session has now, and let judged messages go on."""
        desk = self._desk
        publishing.committed = max(publishing.committed, accepted.number)
        session = desk.sessions.get(accepted.session)
        if session is not None and session.link:
            if session.link == link:
                session.unconfirmed_bytes = max(0, session.unconfirmed_bytes - accepted.bytes)
            desk.send(session, self._outcome(publishing, accepted.number))
        for unique in accepted.unique:
            self._judged(unique)

    def flush(self) -> None:
        """At the end of a pass: one session record for each session whose number moved."""
        if not self._moved:
            return
        desk = self._desk
        for id, publishing in self._moved.items():
            if desk.publishing.get(id) is publishing:
                desk.journal.write(
                    SessionRecord(id, publishing.applied, encode_refused(publishing), publishing.seen_at),
                    Durability(publishing.durability),
                )
        self._moved = {}

    # --- applying ------------------------------------------------------------------------------------------------

    def _apply(
        self, session: Session, publishing: Publishing, verb: Publish, parts: list[bytes], accepted: Accepted
    ) -> tuple[int, str]:
        desk = self._desk
        if desk.draining:
            return Refusal.NOT_ALLOWED, "the broker is shutting down; try again in a moment"
        if desk.store_full:
            return Refusal.STORE_FULL, "the broker's disk is full"
        groups: list[tuple[Group, list[Envelope]]] = []
        used = 0
        added: dict[str, int] = {}
        for group in verb.groups:
            try:
                envelopes = envelopes_of(group, parts[used : used + group.parts])
            except (msgspec.MsgspecError, ValueError) as error:
                return Refusal.INVALID, f"a group for mailbox {group.mailbox!r} cannot be read: {error}"
            used += group.parts
            added[group.mailbox] = added.get(group.mailbox, 0) + len(envelopes)
            groups.append((group, envelopes))
        refusal = self._too_many(added)
        if refusal:
            return Refusal.MAILBOX_FULL, refusal
        durability = Durability.CLUSTER if groups else Durability.DISK
        for group, envelopes in groups:
            mailbox = desk.mailbox(group.mailbox)
            durability = min(durability, desk.durability(mailbox))
            self._accept(session, mailbox, group, envelopes, accepted)
        publishing.durability = durability
        return Refusal.ACCEPTED, ""

    def _too_many(self, added: dict[str, int]) -> str:
        """Why these (messages by mailbox) find no room; empty if they do."""
        desk = self._desk
        limit = desk.settings.mailboxes_max
        new = sum(1 for name in added if name not in desk.mailboxes)
        if new and len(desk.mailboxes) + new > limit and desk.now.boot >= self._forgotten_at + FORGET_EVERY:
            self._forgotten_at = desk.now.boot
            desk.forget_idle_mailboxes()
            new = sum(1 for name in added if name not in desk.mailboxes)
        if new and len(desk.mailboxes) + new > limit:
            return f"the broker has {len(desk.mailboxes)} mailboxes, its limit is {limit}, and {new} more would be new"
        for name, count in added.items():
            mailbox = desk.mailboxes.get(name)
            refusal = self._full(name, mailbox, count)
            if refusal:
                return refusal
        return ""

    def _full(self, name: str, mailbox: Mailbox | None, more: int) -> str:
        settings = self._desk.settings
        limit = settings.mailbox_max_messages
        depth, policy = 0, settings.mailbox_on_full
        if mailbox is not None:
            declared = mailbox.declared
            depth = mailbox.depth
            limit = limit if declared.max_messages is None else declared.max_messages
            policy = declared.on_full or policy
        blocked = "block: " if policy == "block" else ""
        if depth + more > limit:
            holds = "1 message" if depth == 1 else f"{depth} messages"
            return f"{blocked}mailbox {name!r} holds {holds}, its limit is {limit}, and {more} more came"
        if mailbox is not None and not mailbox.strongest:
            size = sum(lane.bytes for lane in mailbox.lanes)
            if size > settings.memory_bytes_max and not self._desk.durability(mailbox):
                return (
                    f"{blocked}mailbox {name!r} keeps {size} bytes of bodies in memory, "
                    f"its limit is {settings.memory_bytes_max}"
                )
        return ""

    def _accept(
        self, session: Session, mailbox: Mailbox, group: Group, envelopes: list[Envelope], accepted: Accepted
    ) -> None:
        desk = self._desk
        desk.counts.accepted += len(envelopes)
        durability = desk.durability(mailbox)
        if durability > mailbox.strongest or not mailbox.depth:
            mailbox.strongest = durability
        priority = envelopes[0].priority
        for envelope in envelopes:
            more = envelope.more
            if envelope.priority != priority or envelope.flags & CHOSEN_ID or (more is not None and _has_times(more)):
                self._accept_cut(session, mailbox, envelopes, accepted)
                return
        blob = encode_envelopes(envelopes) if group.parts else bytes(group.messages)
        self._append(session, mailbox, priority, envelopes, blob, accepted)

    def _accept_cut(self, session: Session, mailbox: Mailbox, envelopes: list[Envelope], accepted: Accepted) -> None:
        runs: dict[int, list[Envelope]] = {}
        for envelope in envelopes:
            more = envelope.more
            due = resolve(more, self._desk.now.wall) if more is not None else 0
            if due:
                self._append_due(session, mailbox, envelope, due, accepted)
            elif envelope.flags & CHOSEN_ID:
                run = runs.pop(envelope.priority, None)
                if run:
                    self._append(session, mailbox, envelope.priority, run, encode_envelopes(run), accepted)
                self._append_chosen(session, mailbox, envelope, accepted)
            else:
                runs.setdefault(envelope.priority, []).append(envelope)
        for priority, run in runs.items():
            self._append(session, mailbox, priority, run, encode_envelopes(run), accepted)

    def _append(
        self,
        session: Session,
        mailbox: Mailbox,
        priority: int,
        envelopes: list[Envelope],
        blob: bytes,
        accepted: Accepted,
        unique: str = "",
    ) -> None:
        """One row of ready messages: in memory while the lane has room, else in the store only."""
        desk = self._desk
        count = len(envelopes)
        base = desk.positions(count)
        durability = desk.durability(mailbox)
        row = Row(base, count, mailbox, priority, session.id, durability)
        self._write(row, blob, unique)
        accepted.rows.append(row)
        mailbox.depth += count
        lane = mailbox.lane(priority)
        message: Message | None = None
        if not durability or lane.has_room(desk.head_messages_max, desk.head_bytes_max):
            row.loaded = row.full
            messages = [Message(base + index, row, envelope) for index, envelope in enumerate(envelopes)]
            message = messages[0]
            accepted.messages.extend(messages)
            if durability:
                lane.append(row, messages)
            else:
                for each in messages:
                    lane.put_behind(each)
        else:
            lane.leave(base, count)
            accepted.tails.append((row, count))
        if unique:
            accepted.unique.append(Unique(unique, row, message))
            if message is not None:
                row.unjudged = True
                lane.unjudged += 1
        desk.stir(mailbox)

    def _append_chosen(self, session: Session, mailbox: Mailbox, envelope: Envelope, accepted: Accepted) -> None:
        blob = encode_envelopes([envelope])
        self._append(session, mailbox, envelope.priority, [envelope], blob, accepted, unique=envelope.id)

    def _append_due(self, session: Session, mailbox: Mailbox, envelope: Envelope, due: int, accepted: Accepted) -> None:
        """One message in a row of its own, which waits for its time, and for the store's word if its id was chosen."""
        desk = self._desk
        base = desk.positions(1)
        durability = desk.durability(mailbox)
        row = Row(base, 1, mailbox, envelope.priority, session.id, durability, due=due)
        row.loaded = 1
        unique = envelope.id if envelope.flags & CHOSEN_ID else ""
        self._write(row, encode_envelopes([envelope]), unique)
        accepted.rows.append(row)
        message = Message(base, row, envelope, stage=Stage.SCHEDULED)
        accepted.messages.append(message)
        mailbox.depth += 1
        mailbox.scheduled += 1
        if unique:
            row.unjudged = True
            if durability:
                desk.known[base] = row
            accepted.unique.append(Unique(unique, row, message))
        else:
            self._schedule.add(due, message)

    def _write(self, row: Row, blob: bytes, unique: str) -> None:
        """Let the store keep the row, and judge its id if it was chosen."""
        desk = self._desk
        until = desk.now.wall + desk.settings.unique_ttl if unique else 0
        append = Append(
            row.base, row.count, row.mailbox.name, row.priority, row.due, row.publisher, blob, unique, until
        )
        if row.durability:
            desk.journal.write(append, row.durability)
        elif unique:
            # Nothing of it stays in the store but its id: a row that is gone in the commit that brings it.
            desk.journal.write(msgspec.structs.replace(append, blob=NO_MESSAGES), row.durability)
            desk.journal.write(Drop([row.base]), row.durability)

    # --- what the store said -------------------------------------------------------------------------------------

    def _judged(self, unique: Unique) -> None:
        """The store knows the id as new: let the message wait for its time, or what stood behind it pass."""
        row = unique.row
        if not row.unjudged:
            return
        row.unjudged = False
        mailbox = row.mailbox
        message = unique.message
        assert message is not None
        if not row.due:
            mailbox.lane(row.priority).unjudged -= 1
            self._desk.rouse(mailbox)
        elif message.stage == Stage.SCHEDULED:
            self._schedule.add(row.due, message)

    def duplicates(self, accepted: Accepted, bases: dict[int, None]) -> list[str]:
        """The store had some of these ids already: their messages never were. Returns those ids."""
        ids: list[str] = []
        for unique in accepted.unique:
            if unique.row.base in bases:
                ids.append(unique.id)
                self._remove(unique.row, unique.message)
        return ids

    def undo(self, accepted: Accepted) -> None:
        """The store had no room for this publish: it is refused, and nothing of it stays."""
        desk = self._desk
        publishing = desk.publishing.get(accepted.session)
        if publishing is not None:
            publishing.refused[accepted.number] = (Refusal.STORE_FULL, "the broker's disk is full")
            self._moved[accepted.session] = publishing
        desk.counts.accepted -= sum(row.count for row in accepted.rows)
        desk.counts.refused += 1
        for message in accepted.messages:
            self._remove(message.row, message)
        for row, count in accepted.tails:
            row.mailbox.depth -= count
            row.mailbox.lane(row.priority).tail -= count
        accepted.unique.clear()

    def _remove(self, row: Row, message: Message | None) -> None:
        """Take back a message that the store has not."""
        desk = self._desk
        mailbox = row.mailbox
        lane = mailbox.lane(row.priority)
        if row.unjudged and not row.due:
            lane.unjudged -= 1
            desk.rouse(mailbox)
        row.unjudged = False
        if message is None:
            if row.left:
                row.left = 0
                mailbox.depth -= 1
                lane.tail -= 1
            return
        if message.stage == Stage.SETTLED:
            return
        if row.due and row.durability and desk.known.pop(row.base, None) is None:
            self._schedule.tail -= 1
        desk.release(message)
        mailbox.depth -= 1
        if message.stage == Stage.READY:
            lane.remove(message)
        message.stage = Stage.SETTLED
        # It was in nobody's hands yet, but a commit may take so long that its holder was judged meanwhile.
        desk.loose.pop(message.position, None)
        if message.past is not None:
            desk.end_past(message)

    def purged(self, accepted: Accepted, mailbox: Mailbox) -> None:
        """The mailbox was purged: of this publish nothing is left to the store, and nothing waits for its word."""
        for row, _ in accepted.tails:
            if row.mailbox is mailbox:
                row.left = 0
        accepted.tails = [(row, count) for row, count in accepted.tails if row.mailbox is not mailbox]
        for unique in accepted.unique:
            row, message = unique.row, unique.message
            if row.mailbox is mailbox and row.unjudged and message is not None:
                row.unjudged = False
                if row.due:
                    self._desk.end(message)
                else:
                    mailbox.lane(row.priority).unjudged -= 1


def _has_times(more: More) -> bool:
    return bool(more.due or more.delay or more.expires_in)
