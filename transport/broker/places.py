"""Places: where a message goes that comes back, is added by the broker itself, or whose time has come.

One decision for all: a suspect waits for quarantine; a message of an actor takes its old place, and holds up those
behind it until its time; any other waits in the schedule until its time, and then takes its old place in front of its
lane. A message that waited for its first delivery joins the end.
"""

from __future__ import annotations

from ..codec import encode_envelopes
from ..message import Envelope
from ..store.records import Append
from ..store.records import Past as PastRecord
from ..verbs import Durability
from .desk import Desk
from .held import Message, Row, Stage
from .mailbox import Mailbox
from .past import Past, encode_past
from .schedule import Schedule
from .suspects import Suspects


class Places:
    """Puts messages where they wait."""

    def __init__(self, desk: Desk, schedule: Schedule, suspects: Suspects) -> None:
        self._desk = desk
        self._schedule = schedule
        self._suspects = suspects

    def back(self, message: Message) -> None:
        """It comes back from its holder without blame: it may go out again at once."""
        self._desk.release(message)
        self.put(message, 0)

    def again(self, message: Message, due: int) -> None:
        """It comes back from its holder with a past, which is kept, and goes out again from `due` on, wall time."""
        self._desk.release(message)
        past = message.past
        assert past is not None
        past.due = due
        past.acquired += message.handed
        message.handed = 0
        self.write_past(message)
        self.put(message, due)

    def put(self, message: Message, due: int) -> None:
        """Let a message that is in nobody's hands and no stage's count wait until `due`, wall time."""
        desk = self._desk
        past = message.past
        mailbox = message.row.mailbox
        if past is not None and past.suspect:
            self._suspects.add(due, message)
        elif due > desk.now.wall and not mailbox.is_actor:
            message.stage = Stage.SCHEDULED
            mailbox.scheduled += 1
            self._schedule.add(due, message)
        else:
            message.stage = Stage.READY
            mailbox.lane(message.row.priority).put_back(message)
            desk.stir(mailbox)

    def due(self) -> None:
        """What waited in the schedule and is due becomes ready."""
        desk = self._desk
        for message in self._schedule.take_due(desk.now.wall):
            mailbox = message.row.mailbox
            mailbox.scheduled -= 1
            message.stage = Stage.READY
            lane = mailbox.lane(message.row.priority)
            if message.handed or message.past is not None:
                lane.put_back(message)
            else:
                lane.put_behind(message)
            desk.stir(mailbox)

    def append(
        self,
        mailbox: Mailbox,
        envelope: Envelope,
        *,
        publisher: str,
        durability: Durability,
        past: Past | None = None,
        due: int = 0,
    ) -> Message:
        """Add one message in the broker's own name, in a row of its own, and put it where it belongs.

        Such messages are not held to the mailbox's bound: their cause was accepted.
        """
        desk = self._desk
        base = desk.positions(1)
        row = Row(base, 1, mailbox, envelope.priority, publisher, durability, due=due)
        row.loaded = 1
        message = Message(base, row, envelope, past=past)
        mailbox.depth += 1
        mailbox.strongest = max(mailbox.strongest, durability)
        if durability:
            blob = encode_envelopes([envelope])
            desk.journal.write(Append(base, 1, mailbox.name, envelope.priority, due, publisher, blob), durability)
        if past is not None:
            past.due = due
            mailbox.suspects += past.suspect
            self.write_past(message)
        if past is not None and past.suspect:
            self._suspects.add(due, message)
        elif due:
            message.stage = Stage.SCHEDULED
            mailbox.scheduled += 1
            self._schedule.add(due, message)
        else:
            self._append_ready(message)
        if durability and past is not None:
            # The store alone would not bring its past back with it.
            desk.known[base] = row
        return message

    def _append_ready(self, message: Message) -> None:
        desk = self._desk
        row = message.row
        mailbox = row.mailbox
        lane = mailbox.lane(row.priority)
        if not row.durability:
            lane.put_behind(message)
        elif lane.has_room(desk.head_messages_max, desk.head_bytes_max):
            lane.append(row, (message,))
        elif message.past is not None:
            lane.put_behind(message)
        else:
            lane.leave(row.base, 1)
        desk.stir(mailbox)

    def write_past(self, message: Message) -> None:
        """Keep the message's past in this commit."""
        if message.past is not None and message.row.durability:
            self._desk.journal.write(PastRecord(message.position, encode_past(message.past)), message.row.durability)
