"""Hosting: an actor's mailbox goes to one child at a time, in order (spec D12, D25, G10).

A child of kind ACTORS owns an actor from its first message on, for as long as the child's session is there: while it is
cut off, the actor waits. Messages go out as far as the owner's credit goes: the first one needs a free slot, or a
method known to be short; further ones only wait for the first, so only short ones are sent ahead, ACTOR_AHEAD at
the most. A message that comes back with a delay holds up those behind it. While one of the actor's messages is a
suspect, nothing else of it goes out (`quarantine`).
"""

from __future__ import annotations

import heapq

from ..verbs import ChildKind
from .desk import Desk
from .endings import Endings
from .held import Message
from .leasing import Leasing
from .mailbox import ACTOR_PREFIX, Mailbox
from .nodes import ASK_EVERY, Nodes
from .rows import Rows
from .sessions import Session

#: Messages that one owner of an actor's mailbox may hold of it: enough to hide the way to the disk.
ACTOR_AHEAD = 64
#: Bytes of bodies that go to an owner at a time; more when something of the actor is settled.
GIVEN_BYTES_MAX = 1 << 20


class Hosting:
    """Serves the mailboxes of actors."""

    def __init__(self, desk: Desk, endings: Endings, leasing: Leasing, rows: Rows, nodes: Nodes) -> None:
        self._desk = desk
        self._endings = endings
        self._leasing = leasing
        self._rows = rows
        self._nodes = nodes
        #: Actor class -> mailboxes for which no child was there.
        self._homeless: dict[str, dict[str, Mailbox]] = {}
        #: (wall time, mailbox name): heads that must wait until then; and the same by name.
        self._delayed: list[tuple[int, str]] = []
        self._delays: dict[str, int] = {}
        self._ask_at = 0
        #: How often nodes were asked: another one is asked first each time.
        self._asked = 0

    @property
    def next_due(self) -> int:
        """Wall time at which a head's delay is over; 0 if none runs."""
        return self._delayed[0][0] if self._delayed else 0

    def run(self) -> None:
        """Look again at what waited for a time, and ask for hosts that did not come."""
        desk = self._desk
        while self._delayed and self._delayed[0][0] <= desk.now.wall:
            due, name = heapq.heappop(self._delayed)
            mailbox = desk.mailboxes.get(name)
            if self._delays.get(name) == due:
                del self._delays[name]
            if mailbox is not None:
                desk.rouse(mailbox)
        if self._homeless and desk.now.boot >= self._ask_at:
            self._ask_at = desk.now.boot + ASK_EVERY
            for actor_class, mailboxes in self._homeless.items():
                if any(mailbox.ready for mailbox in mailboxes.values()):
                    self._ask(actor_class)

    def _ask(self, actor_class: str) -> None:
        """Ask one node that knows this class for a child that hosts actors."""
        nodes = self._nodes.serving(ACTOR_PREFIX + actor_class)
        if nodes and self._nodes.ask(nodes[self._asked % len(nodes)], ChildKind.ACTORS, 1):
            self._asked += 1

    def attached(self, session: Session) -> None:
        """A child came that knows actor classes: what waits for a host looks at it."""
        for actor_class in session.actors:
            for mailbox in self._homeless.pop(actor_class, {}).values():
                self._desk.rouse(mailbox)
        if session.actors:
            self._ask_at = 0

    def serve(self, mailbox: Mailbox) -> None:
        """Give the actor's owner what it has room for."""
        if mailbox.suspects or not mailbox.ready:
            return
        owner = self._owner(mailbox)
        if owner is None:
            return
        taken: list[Message] = []
        if self._take(mailbox, owner, taken):
            # What waits for the store or for its time is brought back by them; this by the owner.
            mailbox.starved = True
            owner.starving[mailbox.name] = mailbox
        for lane in mailbox.lanes:
            self._rows.read_ahead(lane)
        if taken:
            self._leasing.lease(owner, mailbox, taken)

    def _owner(self, mailbox: Mailbox) -> Session | None:
        """The child that has this actor, or gets it now; None: there is none, or it can't be reached."""
        desk = self._desk
        owner = mailbox.owner
        if owner is not None and owner.kind == ChildKind.QUARANTINE and not (mailbox.acquired or mailbox.started):
            desk.own(mailbox, None)
            owner = None
        if owner is None:
            owner = self._host(mailbox.actor_class)
            if owner is None:
                mailbox.starved = True
                self._homeless.setdefault(mailbox.actor_class, {})[mailbox.name] = mailbox
            else:
                desk.own(mailbox, owner)
        elif not owner.open:
            mailbox.starved = True
            owner.starving[mailbox.name] = mailbox
            return None
        return owner

    def _host(self, actor_class: str) -> Session | None:
        """The child that hosts actors of this class and has the fewest messages in its hands."""
        best: Session | None = None
        for session in self._desk.hosts.get(actor_class, {}).values():
            hosts = session.kind == ChildKind.ACTORS and session.open and session.window > 0
            if hosts and (best is None or _held(session) < _held(best)):
                best = session
        return best

    def _take(self, mailbox: Mailbox, owner: Session, taken: list[Message]) -> bool:
        """Take what may go out now off the lanes; True if it is the owner's room that bounds it."""
        desk = self._desk
        room = min(ACTOR_AHEAD - mailbox.acquired - mailbox.started, owner.room)
        speeds = desk.speeds
        short = desk.settings.short_task
        free = 1 if owner.free_slots > 0 and not (mailbox.acquired or mailbox.started) else 0
        size = 0
        while (lane := mailbox.first_lane()) is not None:
            message = lane.head[0]
            if message.row.unjudged:
                return False
            past = message.past
            if past is not None and past.due > desk.now.wall:
                if self._delays.get(mailbox.name) != past.due:
                    self._delays[mailbox.name] = past.due
                    heapq.heappush(self._delayed, (past.due, mailbox.name))
                return False
            if len(taken) >= room or size >= GIVEN_BYTES_MAX:
                return True
            if len(taken) >= free:
                speed = speeds.get(message.envelope.name)
                if speed is None or speed.average > short:
                    return True
            lane.pop()
            if not self._endings.before_start(message):
                taken.append(message)
                size += len(message.envelope.body)
        return False


def _held(session: Session) -> tuple[int, int]:
    return (len(session.held), len(session.owned))
