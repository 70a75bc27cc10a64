"""Rows: what the store gives back becomes messages, and lanes are read ahead of what they hand out.

A row that is in memory already, or in part, is in `Desk.known`: only the rest of it becomes messages. A read is asked
for when the head of a lane that somebody consumes runs low; only the answer to the latest one counts, and none that
overlapped a failed commit: what that was to write or to purge comes in another order then.
"""

from __future__ import annotations

from ..codec import decode_envelopes
from ..store.records import Row as StoredRow
from ..verbs import Durability
from .desk import Desk
from .events import ReadReady, RowsRead
from .held import Message, Row
from .mailbox import Lane
from .schedule import Schedule


class Rows:
    """Reads rows."""

    def __init__(self, desk: Desk, schedule: Schedule) -> None:
        self._desk = desk
        self._schedule = schedule
        #: Token of a ReadReady -> its lane, the failed commits before it was asked for, and the next position then.
        self._reads: dict[int, tuple[Lane, int, int]] = {}

    def read_ahead(self, lane: Lane) -> None:
        """Ask for more of this lane if its head runs low and the store has more."""
        if not lane.tail or lane.reading:
            return
        desk = self._desk
        messages_max = desk.head_messages_max
        if len(lane.head) > messages_max // 2 or lane.bytes > desk.head_bytes_max // 2:
            return
        lane.reading = desk.token()
        self._reads[lane.reading] = (lane, desk.failures, desk.next_position)
        desk.effects.append(
            ReadReady(lane.reading, lane.mailbox.name, lane.priority, lane.after, max(1, messages_max // 2))
        )

    def read(self, event: RowsRead) -> None:
        """The answer to a read of a lane or of the schedule."""
        schedule = self._schedule
        if event.token == schedule.reading:
            if schedule.read_counts():
                messages = [message for stored in event.rows for message in self.messages(stored)]
                schedule.read(messages, event.rows[-1] if event.rows else None)
            return
        lane, failures, position = self._reads.pop(event.token, (None, 0, 0))
        if lane is None or lane.reading != event.token:
            return
        desk = self._desk
        mailbox = lane.mailbox
        lane.reading = 0
        desk.rouse(mailbox)
        if failures != desk.failures:
            return
        for stored in event.rows:
            messages = self.messages(stored)
            lane.tail -= len(messages)
            row = messages[0].row if messages else None
            if row is not None:
                lane.append(row, messages)
            lane.after = stored.base
            desk.known.pop(stored.base, None)
        if not event.rows and lane.tail and lane.newest < position:
            # Never seen: the counts would have gone wrong. Better a notice than a lane that waits for ever.
            desk.notice("tail_missing", mailbox=mailbox.name, messages=lane.tail)
            mailbox.depth -= lane.tail
            lane.tail = 0

    def row(self, stored: StoredRow) -> Row:
        """The row in memory for a stored one: the known one, or a new one."""
        desk = self._desk
        row = desk.known.get(stored.base)
        if row is None:
            mailbox = desk.mailbox(stored.mailbox)
            durability = desk.durability(mailbox) or Durability.DISK
            mailbox.strongest = max(mailbox.strongest, durability)
            row = Row(
                stored.base,
                stored.count,
                mailbox,
                stored.priority,
                stored.session,
                durability,
                due=stored.due,
                gone=stored.gone,
            )
            row.loaded = stored.gone
        return row

    def messages(self, stored: StoredRow) -> list[Message]:
        """Messages of a row that are not in memory yet, in order."""
        row = self.row(stored)
        rest = row.full & ~(row.loaded | row.gone)
        messages: list[Message] = []
        if rest:
            for index, envelope in enumerate(decode_envelopes(stored.blob)):
                if rest >> index & 1:
                    messages.append(Message(stored.base + index, row, envelope))
            row.loaded = row.full
        return messages
