"""Removal: messages that an operator takes away (purge, revoke).

A purge drops what is ready or scheduled and leaves what is out with workers; it makes no results. A revoke remembers
the ids, ends what waits in memory as REVOKED at once, takes back what has not started, and kills what runs if asked
to; what rests in the store is judged when it is about to go out.
"""

from __future__ import annotations

from ..requests import Revoke
from ..store.records import Purge, Revoked
from ..verbs import Cancel, Recall, Terminate
from .accept import Accepting
from .desk import Desk
from .endings import Endings
from .held import Message
from .mailbox import Mailbox
from .schedule import Schedule
from .sessions import Session
from .suspects import Suspects


class Removal:
    """Takes messages away."""

    def __init__(
        self, desk: Desk, endings: Endings, schedule: Schedule, suspects: Suspects, accepting: Accepting
    ) -> None:
        self._desk = desk
        self._endings = endings
        self._schedule = schedule
        self._suspects = suspects
        self._accepting = accepting

    def purge(self, name: str) -> int:
        """Drop every message of a mailbox that is not out with a worker; return how many it was."""
        desk = self._desk
        mailbox = desk.mailboxes.get(name)
        if mailbox is None:
            return 0
        before = mailbox.depth
        self._purge_memory(mailbox)
        self._purge_tails(mailbox)
        keep: dict[int, None] = {}
        for session in desk.sessions.values():
            for message in session.held.values():
                if message.row.mailbox is mailbox:
                    keep[message.row.base] = None
        desk.journal.write(Purge(name, list(keep)))
        return before - mailbox.depth

    def _purge_memory(self, mailbox: Mailbox) -> None:
        desk = self._desk
        for lane in mailbox.lanes:
            if lane.returned:
                lane.merge()
            while lane.head:
                desk.end(lane.pop())
        for message in (*self._schedule.waiting_of(mailbox), *self._suspects.waiting_of(mailbox)):
            desk.end(message)
        self._suspects.forget_settled()
        for batch in desk.journal.batches():
            for accepted in batch.accepted:
                self._accepting.purged(accepted, mailbox)

    def _purge_tails(self, mailbox: Mailbox) -> None:
        """What only the store has. A read that is under way would bring it back, so that its answer is not taken."""
        desk = self._desk
        for row in list(desk.known.values()):
            rest = row.full & ~(row.loaded | row.gone)
            if row.mailbox is mailbox and rest:
                # Kept for the sake of what is leased of it: the rest of it goes by its mask.
                row.gone |= rest
                row.left -= rest.bit_count()
                desk.journal.lost(row)
                if not row.left:
                    del desk.known[row.base]
        for lane in mailbox.lanes:
            mailbox.depth -= lane.tail
            lane.tail = 0
            lane.reading = 0
            lane.after = desk.next_position - 1
        # What is still counted as scheduled is in nobody's memory.
        rest = mailbox.scheduled
        mailbox.depth -= rest
        mailbox.scheduled = 0
        self._schedule.forget_tail(rest)

    def revoke(self, params: Revoke) -> int:
        """Let messages of these ids not start any more; return how many ids it was."""
        desk = self._desk
        until = desk.now.wall + desk.settings.revoked_ttl
        wanted = dict.fromkeys(params.ids)
        for id in wanted:
            desk.revoked.pop(id, None)
            desk.revoked[id] = until
            desk.journal.write(Revoked(id, until))
        if len(desk.revoked) > desk.settings.revoked_max:
            surplus = len(desk.revoked) - desk.settings.revoked_max
            for id in list(desk.revoked)[:surplus]:
                del desk.revoked[id]
            desk.notice("revoked_full", forgotten=surplus)
        for session in desk.sessions.values():
            for message in session.held.values():
                if message.envelope.id in wanted:
                    self._revoke_held(session, message, params)
        for message in (*self._schedule.waiting_with(wanted), *self._suspects.waiting_with(wanted)):
            self._endings.revoked(message, "revoked")
        self._suspects.forget_settled()
        for mailbox in list(desk.mailboxes.values()):
            for lane in mailbox.lanes:
                for message in lane.take(wanted):
                    self._endings.revoked(message, "revoked")
        return len(wanted)

    def _revoke_held(self, session: Session, message: Message, params: Revoke) -> None:
        """Take it back, unless it has started; after the Deliver, which may still wait for its commit."""
        desk = self._desk
        desk.journal.say(session, Recall([message.position]))
        if params.terminate:
            message.terminating = True
            desk.journal.say(session, Cancel(message.position, params.signal))
            parent = desk.sessions.get(session.parent)
            if parent is not None:
                desk.journal.say(parent, Terminate(session.id, message.position, params.signal))
