"""Quarantine: suspects go out one at a time, to children of their own (spec D25).

A quarantine child with nothing in its hands gets the oldest suspect that it serves. Any node that serves the mailbox
(or knows the actor's class) will do, and every such node is asked for children while suspects wait: it bounds their
number by its pool. Of an actor nothing else is out while one of its suspects is.
"""

from __future__ import annotations

from ..verbs import ChildKind
from .desk import Desk
from .endings import Endings
from .held import Stage
from .leasing import Leasing
from .nodes import ASK_EVERY, Nodes
from .sessions import Session
from .suspects import Suspect, Suspects

#: A node is not asked for more children than this: it has its own bound below.
ASKED_MAX = 1_000


class Quarantine:
    """Serves suspects."""

    def __init__(self, desk: Desk, suspects: Suspects, endings: Endings, leasing: Leasing, nodes: Nodes) -> None:
        self._desk = desk
        self._suspects = suspects
        self._endings = endings
        self._leasing = leasing
        self._nodes = nodes
        self._ask_at = 0

    def run(self) -> None:
        """Give suspects that are due to children that are free, and ask for children where some are left."""
        desk = self._desk
        if self._suspects.ripen():
            self._ask_at = 0
        if not self._suspects.due:
            return
        for session in desk.quarantine.values():
            if session.open and not session.held and min(session.slots, session.window) > 0:
                self._serve(session)
        if self._suspects.due and desk.now.boot >= self._ask_at:
            self._ask()

    def _serve(self, session: Session) -> None:
        """Give this free child the oldest suspect that it serves."""
        suspects = self._suspects
        aside: list[tuple[str, Suspect]] = []
        while (service := self._oldest_of(session)) is not None:
            entry = suspects.pop(service)
            message = entry[2]
            mailbox = message.row.mailbox
            if message.stage != Stage.SCHEDULED or self._endings.before_start(message):
                continue
            if mailbox.is_actor and (mailbox.acquired or mailbox.started):
                aside.append((service, entry))
                continue
            self._desk.uncount(message)
            if mailbox.is_actor:
                # First, so that its lease is known as the new owner's first.
                self._desk.own(mailbox, session)
            self._leasing.lease(session, mailbox, [message])
            break
        for service, entry in aside:
            suspects.put(service, entry)

    def _oldest_of(self, session: Session) -> str | None:
        due = self._suspects.due
        best: str | None = None
        for service, suspects in due.items():
            if service in session.serves and (best is None or suspects[0][:2] < due[best][0][:2]):
                best = service
        return best

    def _ask(self) -> None:
        nodes = {service: self._nodes.serving(service) for service in self._suspects.due}
        if not any(nodes.values()):
            # Looked at again in each pass: it costs little, and a child that comes need not wait.
            return
        self._ask_at = self._desk.now.boot + ASK_EVERY
        self._suspects.forget_settled()
        wanted: dict[str, int] = {}
        for service, suspects in self._suspects.due.items():
            for node in nodes[service]:
                wanted[node] = wanted.get(node, 0) + len(suspects)
        for node, count in wanted.items():
            self._nodes.ask(node, ChildKind.QUARANTINE, min(count, ASKED_MAX))
