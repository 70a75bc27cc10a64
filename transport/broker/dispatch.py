"""Dispatch: ready messages meet credit, and a lease is written before anything goes out (spec D7, D11, D12, D25).

At the end of each pass every busy mailbox is served. A consumer with a free slot may get any message; beyond its
slots, up to its window, it gets only task types that are known to be short. What is given to one consumer is a
share of what is there, so that the others are not left without. Messages that are revoked or have expired end here.

Suspects wait in `Suspects` by due time and go to quarantine children only, one each. Actors' mailboxes go to one owner,
in order; with a suspect at the head, to a quarantine child, the head alone.
"""

from __future__ import annotations

import heapq

from ..message import Delivery, Kind
from ..store.records import Lease as LeaseRecord
from ..verbs import ChildKind, Deliver, Role, Spawn
from .desk import Desk
from .endings import Endings
from .events import ReadReady
from .held import Lease, Message, Stage
from .mailbox import Lane, Mailbox
from .sessions import Session

#: Messages that one owner of an actor's mailbox may hold of it: enough to hide the way to the disk.
ACTOR_AHEAD = 64
#: A node is asked again for a child of one kind after this long, if none came (microseconds).
SPAWN_PATIENCE = 5_000_000
#: Deliveries in one verb, so that its frame stays within its limit.
DELIVERIES_A_VERB = 1_024
DELIVER_BYTES = 512 << 10


class Dispatch:
    """Hands messages out."""

    def __init__(self, desk: Desk, endings: Endings) -> None:
        self._desk = desk
        self._endings = endings
        #: (due wall, position, message): suspects of task mailboxes.
        self._suspects: list[tuple[int, int, Message]] = []
        #: token of a ReadReady -> its lane.
        self.reads: dict[int, Lane] = {}

    # --- one pass ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve every busy mailbox, then the suspects."""
        desk = self._desk
        if desk.draining:
            return
        if desk.busy:
            for name in list(desk.busy):
                mailbox = desk.busy[name]
                if mailbox.is_actor:
                    self._serve_actor(mailbox)
                else:
                    self._serve(mailbox)
                if not mailbox.ready:
                    desk.busy.pop(name, None)
        if self._suspects:
            self._serve_suspects()

    def next_suspect_due(self) -> int:
        """Wall time at which a suspect may go out next; 0 if none waits for time."""
        if self._suspects and self._suspects[0][0] > self._desk.now.wall:
            return self._suspects[0][0]
        return 0

    def suspect(self, due: int, message: Message) -> None:
        """Let this message wait for a quarantine child, from `due` on."""
        desk = self._desk
        desk.uncount(message)
        desk.unlease(message)
        message.stage = Stage.SCHEDULED
        message.row.mailbox.scheduled += 1
        heapq.heappush(self._suspects, (due, message.position, message))

    # --- task mailboxes ------------------------------------------------------------------------------------------

    def _serve(self, mailbox: Mailbox) -> None:
        consumers = [session for session in mailbox.consumers if session.link and session.room > 0]
        while consumers:
            lane = mailbox.first_lane()
            if lane is None:
                break
            ready = len(lane.head)
            share = -(-ready // len(consumers))
            consumers.sort(key=_load)
            given = 0
            for session in consumers:
                if not lane.head:
                    break
                given += self._give(session, lane, min(share, session.room))
            if given == 0:
                break
            consumers = [session for session in consumers if session.room > 0]
        for lane in mailbox.lanes:
            self._read_ahead(lane)

    def _read_ahead(self, lane: Lane) -> None:
        desk = self._desk
        settings = desk.settings
        if not lane.tail or lane.reading or len(lane.head) > settings.head_messages_max // 2:
            return
        if lane.bytes > settings.head_bytes_max // 2:
            return
        token = desk.token()
        lane.reading = True
        self.reads[token] = lane
        desk.effects.append(
            ReadReady(token, lane.mailbox.name, lane.priority, lane.after, settings.head_messages_max // 2)
        )

    def _give(self, session: Session, lane: Lane, share: int) -> int:
        """Give the session up to `share` messages from the front of the lane; return how many left the lane."""
        speeds = self._desk.speeds
        short = self._desk.settings.short_task
        free = session.free_slots
        out: list[Message] = []
        left = 0
        head = lane.head
        revoked = self._desk.revoked
        while head and len(out) < share:
            envelope = head[0].envelope
            if len(out) >= free:
                speed = speeds.get(envelope.name)
                if speed is None or speed.average > short:
                    break
            message = lane.pop()
            left += 1
            if revoked or envelope.more is not None:
                if envelope.id in revoked and envelope.kind != Kind.AFTERMATH:
                    self._endings.revoked(message, "revoked")
                    continue
                if self._expired(message):
                    self._endings.revoked(message, "expired")
                    continue
            out.append(message)
        if out:
            self.lease(session, lane.mailbox, out)
        return left

    def _expired(self, message: Message) -> bool:
        more = message.envelope.more
        return more is not None and bool(more.expires) and more.expires <= self._desk.now.wall

    def lease(self, session: Session, mailbox: Mailbox, messages: list[Message]) -> None:
        """Write the lease and say Deliver after its commit."""
        desk = self._desk
        # All of one mailbox; a declaration may have changed between their accepts, then the weakest counts.
        durability = min(messages[0].row.durability, messages[-1].row.durability)
        number = desk.next_lease
        desk.next_lease += 1
        lease = Lease(number, session, session.link, len(messages), durability)
        if durability:
            positions = [message.position for message in messages]
            desk.journal.write(LeaseRecord(number, session.id, positions), durability)
        held = session.held
        wall = desk.now.wall
        name = mailbox.name
        deliveries: list[Delivery] = []
        size = 0
        for message in messages:
            message.lease = lease
            message.stage = Stage.ACQUIRED
            message.handed += 1
            held[message.position] = message
            envelope = message.envelope
            past = message.past
            more = envelope.more
            expires_in = more.expires - wall if more is not None and more.expires else 0
            if past is None:
                deliveries.append(
                    Delivery(message.position, envelope, name, message.handed, expires_in, message.handed > 1)
                )
            else:
                handed = message.handed + past.acquired
                deliveries.append(
                    Delivery(message.position, envelope, name, handed, expires_in, handed > 1 or past.bad_ends > 0)
                )
            size += len(envelope.body)
            if size >= DELIVER_BYTES or len(deliveries) >= DELIVERIES_A_VERB:
                desk.journal.say(session, Deliver(desk.partition, desk.epoch, number, deliveries), lease.link)
                deliveries = []
                size = 0
        mailbox.acquired += len(messages)
        if deliveries:
            desk.journal.say(session, Deliver(desk.partition, desk.epoch, number, deliveries), lease.link)

    # --- suspects ------------------------------------------------------------------------------------------------

    def _serve_suspects(self) -> None:
        desk = self._desk
        waiting: list[tuple[int, int, Message]] = []
        wanted: dict[str, int] = {}
        while self._suspects and self._suspects[0][0] <= desk.now.wall:
            entry = heapq.heappop(self._suspects)
            message = entry[2]
            if message.stage != Stage.SCHEDULED:
                continue
            mailbox = message.row.mailbox
            if message.envelope.id in desk.revoked:
                self._endings.revoked(message, "revoked")
                continue
            if self._expired(message):
                self._endings.revoked(message, "expired")
                continue
            taker = self._quarantine_child(mailbox)
            if taker is None:
                waiting.append(entry)
                for node in self._nodes_of(mailbox):
                    wanted[node] = wanted.get(node, 0) + 1
                continue
            desk.uncount(message)
            self.lease(taker, mailbox, [message])
        for entry in waiting:
            heapq.heappush(self._suspects, entry)
        for node, count in wanted.items():
            self._ask(node, ChildKind.QUARANTINE, count)

    def _quarantine_child(self, mailbox: Mailbox) -> Session | None:
        """A quarantine child of a node that serves this mailbox, with nothing in its hands."""
        for session in self._desk.sessions.values():
            if (
                session.kind == ChildKind.QUARANTINE
                and session.link
                and not session.held
                and session.slots
                and (mailbox.name in session.mailboxes or (mailbox.is_actor and mailbox.actor_class in session.actors))
            ):
                return session
        return None

    def _nodes_of(self, mailbox: Mailbox) -> list[str]:
        """Session ids of nodes whose pool children serve this mailbox (or could host its actor), each once."""
        nodes: dict[str, None] = {}
        if mailbox.is_actor:
            for session in self._desk.sessions.values():
                if session.role == Role.CHILD and session.link and mailbox.actor_class in session.actors:
                    nodes[session.parent] = None
        else:
            for session in mailbox.consumers:
                if session.link:
                    nodes[session.parent] = None
        return list(nodes)

    def _ask(self, node: str, kind: ChildKind, count: int) -> None:
        """Ask a node for children of this kind, unless it was asked a moment ago."""
        desk = self._desk
        session = desk.sessions.get(node)
        if session is None or not session.link:
            return
        asked = session.spawn_asked.get(kind, 0)
        if asked and desk.now.boot - asked < SPAWN_PATIENCE:
            return
        session.spawn_asked[kind] = desk.now.boot
        desk.send(session.link, Spawn(kind, count))

    # --- actors --------------------------------------------------------------------------------------------------

    def _serve_actor(self, mailbox: Mailbox) -> None:
        desk = self._desk
        if mailbox.quarantined:
            self._serve_suspect_actor(mailbox)
            return
        owner = mailbox.owner
        if owner is None or not owner.link:
            if owner is not None and owner.held:
                return  # Its lease is open: nobody else may have the actor before it is judged.
            owner = mailbox.owner = self._host(mailbox)
            if owner is None:
                for node in self._nodes_of(mailbox)[:1]:
                    self._ask(node, ChildKind.ACTORS, 1)
                return
        room = ACTOR_AHEAD - mailbox.acquired - mailbox.started
        while room > 0:
            lane = mailbox.first_lane()
            if lane is None:
                break
            out: list[Message] = []
            while lane.head and len(out) < room:
                message = lane.pop()
                if message.envelope.id in desk.revoked:
                    self._endings.revoked(message, "revoked")
                elif self._expired(message):
                    self._endings.revoked(message, "expired")
                else:
                    out.append(message)
            if out:
                self.lease(owner, mailbox, out)
                room -= len(out)
        for lane in mailbox.lanes:
            self._read_ahead(lane)

    def _host(self, mailbox: Mailbox) -> Session | None:
        """The child that hosts actors of this class and has the fewest messages in its hands."""
        best: Session | None = None
        for session in self._desk.sessions.values():
            if (
                session.kind == ChildKind.ACTORS
                and session.link
                and mailbox.actor_class in session.actors
                and (best is None or len(session.held) < len(best.held))
            ):
                best = session
        return best

    def _serve_suspect_actor(self, mailbox: Mailbox) -> None:
        desk = self._desk
        if mailbox.blocked_until > desk.now.wall or mailbox.acquired or mailbox.started:
            return
        lane = mailbox.first_lane()
        if lane is None:
            mailbox.quarantined = False
            return
        taker = self._quarantine_child(mailbox)
        if taker is None:
            for node in self._nodes_of(mailbox):
                self._ask(node, ChildKind.QUARANTINE, 1)
            return
        self.lease(taker, mailbox, [lane.pop()])
        mailbox.owner = taker


def _load(session: Session) -> tuple[int, int]:
    """Consumers with a free slot first, then those that hold least."""
    return (0 if session.free_slots > 0 else 1, len(session.held))
