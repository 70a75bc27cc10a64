"""Suspects: messages that wait for a quarantine child (spec D25, D26).

A suspect is SCHEDULED here: first until its delay is over, then in the queue of what a child must serve to be given it:
its mailbox, or its actor's class. Who takes it out of there is `quarantine`. An entry whose message has ended
meanwhile is passed over, and forgotten when the queues are cleared.
"""

from __future__ import annotations

import heapq

from .desk import Desk
from .held import Message, Stage
from .mailbox import Mailbox
from .nodes import service_of

#: (due wall, position, message).
Suspect = tuple[int, int, Message]


class Suspects:
    """Suspects of all mailboxes, oldest due first."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        #: Those whose delay is not over.
        self._later: list[Suspect] = []
        #: What a child must serve -> those that wait for one, a heap each, never empty.
        self.due: dict[str, list[Suspect]] = {}

    @property
    def next_due(self) -> int:
        """Wall time at which the next delay is over; 0 if none runs."""
        return self._later[0][0] if self._later else 0

    def add(self, due: int, message: Message) -> None:
        """Let this message, which is in nobody's hands, wait here, until `due` at least."""
        message.stage = Stage.SCHEDULED
        message.row.mailbox.scheduled += 1
        heapq.heappush(self._later, (due, message.position, message))

    def ripen(self) -> bool:
        """Let those whose delay is over wait for a child; True if there were any."""
        later = self._later
        any_due = False
        while later and later[0][0] <= self._desk.now.wall:
            entry = heapq.heappop(later)
            if entry[2].stage == Stage.SCHEDULED:
                self.put(service_of(entry[2].row.mailbox), entry)
                any_due = True
        return any_due

    def put(self, service: str, entry: Suspect) -> None:
        """Let this one, which is due, wait for a child."""
        heapq.heappush(self.due.setdefault(service, []), entry)

    def pop(self, service: str) -> Suspect:
        """Take the oldest that waits for a child that serves this."""
        suspects = self.due[service]
        entry = heapq.heappop(suspects)
        if not suspects:
            del self.due[service]
        return entry

    def waiting(self) -> list[Message]:
        """All that wait here."""
        entries = [*self._later]
        for suspects in self.due.values():
            entries.extend(suspects)
        return [entry[2] for entry in entries if entry[2].stage == Stage.SCHEDULED]

    def waiting_of(self, mailbox: Mailbox) -> list[Message]:
        """Suspects of this mailbox that wait."""
        return [message for message in self.waiting() if message.row.mailbox is mailbox]

    def waiting_with(self, ids: dict[str, None]) -> list[Message]:
        """Suspects with one of these ids that wait."""
        return [message for message in self.waiting() if message.envelope.id in ids]

    def forget_settled(self) -> None:
        """Let go of entries whose messages ended while they waited."""
        self._later = [entry for entry in self._later if entry[2].stage == Stage.SCHEDULED]
        heapq.heapify(self._later)
        due: dict[str, list[Suspect]] = {}
        for service, suspects in self.due.items():
            left = [entry for entry in suspects if entry[2].stage == Stage.SCHEDULED]
            if left:
                heapq.heapify(left)
                due[service] = left
        self.due = due
