"""Dispatch: ready messages meet credit (spec D11, D12).

At the end of each pass every busy mailbox is served. A consumer with a free slot may get any message; beyond its
slots, up to its window, it gets only task types that are known to be short. What is given to one consumer is a
share of what is there, so that the others are not left without. Messages that are revoked or have expired end here.

A mailbox that nobody can take from leaves the busy ones: it *starves*, and each of its consumers knows that and brings
it back when it gains room. Those that got nothing this time come back before those that got something, so that no
mailbox takes all the credit of consumers that it shares. So a pass costs what has changed, however many mailboxes
wait. Actors' mailboxes are served by `hosting`, suspects by `quarantine`.
"""

from __future__ import annotations

from .desk import Desk
from .endings import Endings
from .held import Message
from .hosting import Hosting
from .leasing import Leasing
from .mailbox import Lane, Mailbox
from .quarantine import Quarantine
from .rows import Rows
from .sessions import Session

#: Bytes of bodies that go to one session before it is looked at whether it still has room.
GIVEN_BYTES_MAX = 1 << 20


class Dispatch:
    """Hands messages out."""

    def __init__(
        self,
        desk: Desk,
        endings: Endings,
        leasing: Leasing,
        rows: Rows,
        hosting: Hosting,
        quarantine: Quarantine,
    ) -> None:
        self._desk = desk
        self._endings = endings
        self._leasing = leasing
        self._rows = rows
        self._hosting = hosting
        self._quarantine = quarantine

    def run(self) -> None:
        """Serve the suspects, then every busy mailbox."""
        desk = self._desk
        if desk.draining:
            return
        self._hosting.run()
        self._quarantine.run()
        # Again, for aftermaths of what ended here: they make none, so this ends.
        while desk.busy:
            busy, desk.busy = desk.busy, {}
            self._serve_all(busy)

    def _serve_all(self, busy: dict[str, Mailbox]) -> None:
        served: list[Mailbox] = []
        for mailbox in busy.values():
            if mailbox.is_actor:
                self._hosting.serve(mailbox)
            elif mailbox.ready:
                given = self._serve(mailbox)
                if mailbox.ready:
                    if given:
                        served.append(mailbox)
                    else:
                        self._starve(mailbox)
        for mailbox in served:
            self._starve(mailbox)

    def _starve(self, mailbox: Mailbox) -> None:
        """Nobody takes any more from this mailbox at present: let its consumers bring it back."""
        lane = mailbox.first_lane()
        if lane is None or lane.head[0].row.unjudged:
            # It waits for the store, which brings it back; what arrives before the rest need not wait with it.
            return
        mailbox.starved = True
        name = mailbox.name
        for session in mailbox.consumers:
            session.starving.pop(name, None)
            session.starving[name] = mailbox

    def _serve(self, mailbox: Mailbox) -> int:
        """Give the consumers what they may have; return how many messages left the lanes."""
        total = 0
        consumers = [session for session in mailbox.consumers if session.room > 0]
        while consumers:
            lane = mailbox.first_lane()
            if lane is None:
                break
            share = -(-len(lane.head) // len(consumers))
            consumers.sort(key=_load)
            given = 0
            for session in consumers:
                if not lane.head:
                    break
                given += self._give(session, lane, min(share, session.room))
            if given == 0:
                break
            total += given
            consumers = [session for session in consumers if session.room > 0]
        if mailbox.consumers:
            for lane in mailbox.lanes:
                if lane.tail:
                    self._rows.read_ahead(lane)
        return total

    def _give(self, session: Session, lane: Lane, share: int) -> int:
        """Give the session up to `share` messages from the front of the lane; return how many left the lane."""
        desk = self._desk
        speeds = desk.speeds
        short = desk.settings.short_task
        free = session.free_slots
        out: list[Message] = []
        left = 0
        head = lane.head
        unjudged = lane.unjudged
        # What goes to one session at a time is bounded in bytes, so that it can be stopped when it does not read.
        heavy = lane.bytes > GIVEN_BYTES_MAX
        size = 0
        revoked = desk.revoked
        #: The task type that was last seen to be short.
        known = ""
        while head and len(out) < share:
            message = head[0]
            envelope = message.envelope
            if len(out) >= free and envelope.name != known:
                speed = speeds.get(envelope.name)
                if speed is None or speed.average > short:
                    break
                known = envelope.name
            if unjudged and message.row.unjudged:
                break
            head.popleft()
            left += 1
            lane.bytes -= len(envelope.body)
            if (revoked or envelope.more is not None) and self._endings.before_start(message):
                continue
            out.append(message)
            if heavy:
                size += len(envelope.body)
                if size >= GIVEN_BYTES_MAX:
                    break
        if out:
            self._leasing.lease(session, lane.mailbox, out)
        return left


def _load(session: Session) -> tuple[int, int]:
    """Consumers with a free slot first, then those that hold least."""
    return (0 if session.free_slots > 0 else 1, len(session.held))
