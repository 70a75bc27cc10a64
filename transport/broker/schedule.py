"""The schedule: messages that wait for a due time, the nearest in memory and the rest in the store.

A heap of (due, position, message) holds what is due soonest. Every row with a due time up to the `horizon` has its
message in memory; later ones rest in the store and only count as `tail`, and are read when the heap runs low. Some
are in memory beyond the horizon (those with a past, those accepted during a read, those that the store has not). A
row with a due time is in `Desk.known` as long as its message is in memory, wherever that is, and a read skips it: so
a message is in memory once, whatever the clock does. Due times are wall time (spec D28).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from ..store.records import Row as StoredRow
from .desk import Desk
from .events import ReadDue
from .held import Message, Stage
from .mailbox import Mailbox

#: Later than anything: the schedule is all in memory.
NEVER = 1 << 62


class Schedule:
    """What waits, by due time."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._messages_max = desk.settings.head_messages_max
        self._heap: list[tuple[int, int, Message]] = []
        #: Rows in the store only.
        self.tail = 0
        #: (due, base) up to which every row with a due time is in memory.
        self.horizon = (NEVER, 0)
        #: Token of the read that is under way; 0: none. And the failed commits before it was asked for.
        self.reading = 0
        self._failures = 0
        #: The heap is shed when it is longer than this.
        self._shed_at = 2 * self._messages_max

    def __len__(self) -> int:
        return len(self._heap) + self.tail

    @property
    def next_due(self) -> int:
        """When something is due next; NEVER if nothing waits in memory."""
        return self._heap[0][0] if self._heap else NEVER

    def add(self, due: int, message: Message) -> None:
        """Let the message wait until `due`: in memory, or in the store if that knows all about it and it is far off."""
        row = message.row
        in_store = row.due == due and row.durability and message.past is None
        if in_store and not self.reading and (due, message.position) > self.horizon:
            self.tail += 1
            self._desk.known.pop(row.base, None)
            return
        if row.due and row.durability:
            self._desk.known[row.base] = row
        heapq.heappush(self._heap, (due, message.position, message))
        if len(self._heap) > self._shed_at and not self.reading:
            self._shed()

    def _shed(self) -> None:
        """Leave the later half to the store; what it does not know, or not all of, stays."""
        known = self._desk.known
        self._heap = sorted(entry for entry in self._heap if entry[2].stage == Stage.SCHEDULED)
        keep = self._heap[: self._messages_max]
        for entry in self._heap[self._messages_max :]:
            message = entry[2]
            row = message.row
            if row.due == entry[0] and row.durability and message.past is None:
                known.pop(row.base, None)
                self.tail += 1
                self.horizon = min(self.horizon, keep[-1][:2])
            else:
                keep.append(entry)
        self._heap = keep
        self._shed_at = len(keep) + self._messages_max

    def take_due(self, wall: int) -> list[Message]:
        """Return what is due now, soonest first."""
        due: list[Message] = []
        heap = self._heap
        while heap and heap[0][0] <= wall:
            message = heapq.heappop(heap)[2]
            if message.stage == Stage.SCHEDULED:
                due.append(message)
        return due

    def read_ahead(self) -> None:
        """Ask for more if the heap runs low and the store has more."""
        if not self.tail or self.reading or len(self._heap) >= self._messages_max // 2:
            return
        desk = self._desk
        self.reading = desk.token()
        self._failures = desk.failures
        due, base = self.horizon
        desk.effects.append(ReadDue(self.reading, due, base, self._messages_max))

    def read_counts(self) -> bool:
        """The read is over; False if a commit failed meanwhile, so that it tells nothing and is asked for again."""
        self.reading = 0
        return self._failures == self._desk.failures

    def read(self, messages: Iterable[Message], last: StoredRow | None) -> None:
        """The answer to the read: what was not in memory, and the last row; None: there was none."""
        desk = self._desk
        for message in messages:
            message.stage = Stage.SCHEDULED
            desk.known[message.row.base] = message.row
            heapq.heappush(self._heap, (message.row.due, message.position, message))
            self.tail -= 1
        if last is not None:
            self.horizon = (last.due, last.base)
        elif self.tail:
            # Never seen: the counts would have gone wrong. Better a notice than a schedule that is read for ever.
            desk.notice("schedule_tail_missing", messages=self.tail)
            self.tail = 0
        if not self.tail:
            self.horizon = (NEVER, 0)

    def recovered(self, count: int) -> None:
        """So many rows with a due time are in the store, and none in memory yet."""
        self.tail += count
        if count:
            self.horizon = (-1, 0)

    # --- looking for messages ------------------------------------------------------------------------------------

    def waiting(self) -> list[Message]:
        """All messages that wait in memory."""
        return [entry[2] for entry in self._heap if entry[2].stage == Stage.SCHEDULED]

    def waiting_of(self, mailbox: Mailbox) -> list[Message]:
        """Messages of this mailbox that wait in memory."""
        return [message for message in self.waiting() if message.row.mailbox is mailbox]

    def waiting_with(self, ids: dict[str, None]) -> list[Message]:
        """Messages with one of these ids that wait in memory."""
        return [message for message in self.waiting() if message.envelope.id in ids]

    def forget_tail(self, count: int) -> None:
        """So many rows of the tail are dropped from the store: a read that is under way is out of date."""
        self.tail -= count
        self.reading = 0
        self._heap = [entry for entry in self._heap if entry[2].stage == Stage.SCHEDULED]
        heapq.heapify(self._heap)
