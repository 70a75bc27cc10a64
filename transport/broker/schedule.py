"""The schedule: messages that wait for a due time, the nearest in memory and the rest in the store.

A heap of (due, position, message) holds what is due soonest. What is due later than `horizon` rests in the store and
only counts; it is read when the heap runs low. Messages that wait for a redelivery (their due time stands in their
past) are always in memory: they are few. Due times are wall time (spec D28).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from .held import Message, Stage
from .mailbox import Mailbox

#: Later than anything: the schedule is all in memory.
NEVER = 1 << 62


class Schedule:
    """What waits, by due time."""

    def __init__(self, messages_max: int) -> None:
        self._messages_max = messages_max
        self._heap: list[tuple[int, int, Message]] = []
        #: Rows in the store only, all due after the horizon.
        self.tail = 0
        #: (due, base) up to which every row with a due time is in memory.
        self.horizon = (NEVER, 0)
        self.reading = False
        #: Accepted while a read is under way, not yet known to be within its reach.
        self._pending: list[tuple[int, int, Message]] = []
        #: Positions after the horizon that stay in memory, since they have a past: a read skips them.
        self._kept: set[int] = set()

    def __len__(self) -> int:
        return len(self._heap) + self.tail + len(self._pending)

    @property
    def next_due(self) -> int:
        """When something is due next; NEVER if nothing waits in memory."""
        return self._heap[0][0] if self._heap else NEVER

    def add(self, due: int, message: Message) -> None:
        """Let a message with a row of its own wait until `due`."""
        entry = (due, message.position, message)
        if (due, message.position) > self.horizon:
            if self.reading:
                self._pending.append(entry)
            else:
                self.tail += 1
            return
        heapq.heappush(self._heap, entry)
        if len(self._heap) > 2 * self._messages_max and not self.reading:
            self._shed()

    def add_always(self, due: int, message: Message) -> None:
        """Let a message wait whose due time only its past knows: it is never left to the store."""
        heapq.heappush(self._heap, (due, message.position, message))

    def _shed(self) -> None:
        """Leave the later half to the store."""
        self._heap.sort()
        keep = self._heap[: self._messages_max]
        shed = self._heap[self._messages_max :]
        stay = [entry for entry in shed if entry[2].past is not None]
        self._kept.update(entry[1] for entry in stay)
        self.tail += len(shed) - len(stay)
        self.horizon = keep[-1][:2]
        self._heap = keep + stay
        heapq.heapify(self._heap)

    def take_due(self, wall: int) -> list[Message]:
        """Return what is due now, soonest first."""
        due: list[Message] = []
        heap = self._heap
        while heap and heap[0][0] <= wall:
            due.append(heapq.heappop(heap)[2])
        return due

    def wants_reading(self) -> bool:
        """Whether the heap runs low and the store has more."""
        return self.tail > 0 and not self.reading and len(self._heap) < self._messages_max // 2

    def read(self, entries: Iterable[tuple[int, Message]], last: tuple[int, int] | None) -> None:
        """The answer to a read after the horizon: what it brought, and its last (due, base); None: there was none."""
        self.reading = False
        count = 0
        here = self._kept.union(entry[1] for entry in self._pending)
        for due, message in entries:
            if message.position not in here:
                heapq.heappush(self._heap, (due, message.position, message))
                count += 1
        self.tail = max(0, self.tail - count)
        if last is None:
            self.tail = 0
        else:
            self.horizon = last
        if not self.tail:
            self.horizon = (NEVER, 0)
            self._kept.clear()
        pending, self._pending = self._pending, []
        for due, _, message in pending:
            self.add(due, message)

    def waiting_of(self, mailbox: Mailbox) -> list[Message]:
        """Messages of this mailbox that wait in memory."""
        return [
            entry[2]
            for entry in (*self._heap, *self._pending)
            if entry[2].row.mailbox is mailbox and entry[2].stage == Stage.SCHEDULED
        ]

    def waiting_with(self, ids: dict[str, None]) -> list[Message]:
        """Messages with one of these ids that wait in memory."""
        return [
            entry[2]
            for entry in (*self._heap, *self._pending)
            if entry[2].envelope.id in ids and entry[2].stage == Stage.SCHEDULED
        ]

    def forget_tail_of(self, mailbox: Mailbox) -> int:
        """The store dropped this mailbox's scheduled rows: return how many of them were not in memory."""
        rest = max(0, min(mailbox.scheduled, self.tail))
        self.tail -= rest
        return rest
