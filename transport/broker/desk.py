"""The desk: what all parts of the broker share, and the few moves that every part needs.

The desk holds the tables (mailboxes, sessions, rows being recovered, policies, revocations), the journal and the
effects of this pass. It owns two moves: `end`, by which a message becomes SETTLED, and `release`, by which a leased
message comes back into the broker's hands. Everything else about a message is decided in the part named after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..clock import Now
from ..message import POLICY_FLAGS, Envelope, Flag
from ..store.records import PastGone
from ..verbs import Durability, FromBroker, TaskPolicy
from .events import Effect, Notice, Send
from .held import Message, Row, Stage
from .journal import Journal
from .mailbox import Mailbox
from .sessions import Publishing, Session
from .settings import BrokerSettings

if TYPE_CHECKING:
    from collections.abc import Iterator


class Counts:
    """What happened since the broker started, for status and metrics."""

    __slots__ = ("accepted", "dead", "redelivered", "refused", "settled")

    def __init__(self) -> None:
        self.accepted = 0
        self.settled = 0
        self.redelivered = 0
        self.dead = 0
        self.refused = 0


class TaskSpeed:
    """How long bodies of one task type run, as far as settles told: an average that follows."""

    __slots__ = ("average",)

    def __init__(self, runtime: int) -> None:
        self.average = runtime

    def learn(self, runtime: int) -> None:
        """Count one more body. A slow one counts at once, since waiting behind it costs most."""
        self.average += (runtime - self.average) >> (1 if runtime > self.average else 3)


class Desk:
    """The broker's tables."""

    def __init__(self, settings: BrokerSettings, name: str, epoch: int, now: Now) -> None:
        self.settings = settings
        self.name = name
        self.epoch = epoch
        self.partition = 0
        self.now = now
        self.started_at = now
        self.journal = Journal()
        self.effects: list[Effect] = []
        self.counts = Counts()
        self.mailboxes: dict[str, Mailbox] = {}
        #: Mailboxes that may have something to hand out, in the order in which they got it.
        self.busy: dict[str, Mailbox] = {}
        self.sessions: dict[str, Session] = {}
        self.links: dict[int, Session] = {}
        self.publishing: dict[str, Publishing] = {}
        self.policies: dict[str, TaskPolicy] = {}
        self.revoked: dict[str, int] = {}
        self.speeds: dict[str, TaskSpeed] = {}
        #: Unsettled messages that a lost holder may still settle (D21), by position.
        self.loose: dict[int, Message] = {}
        #: Rows read back after a restart for their leases or pasts, until the rest of them is read.
        self.recovering: dict[int, Row] = {}
        self.next_position = 1
        self.next_lease = 1
        self.store_full = False
        self.draining = False
        self._token = 0

    # --- speaking ------------------------------------------------------------------------------------------------

    def send(self, link: int, verb: FromBroker) -> None:
        """Say this at once: it depends on no commit."""
        self.effects.append(Send(link, [verb]))

    def notice(self, kind: str, **fields: str | int | float) -> None:
        """Tell the operator."""
        self.effects.append(Notice(kind, fields))

    def token(self) -> int:
        """A number for a read, to know its answer by."""
        self._token += 1
        return self._token

    # --- looking up ----------------------------------------------------------------------------------------------

    def mailbox(self, name: str) -> Mailbox:
        """The mailbox of this name, made when it is first used."""
        mailbox = self.mailboxes.get(name)
        if mailbox is None:
            mailbox = self.mailboxes[name] = Mailbox(name)
            for session in self.sessions.values():
                if name in session.mailboxes and session not in mailbox.consumers:
                    mailbox.consumers.append(session)
        return mailbox

    def durability(self, mailbox: Mailbox) -> Durability:
        """What the mailbox's messages survive."""
        return mailbox.durability(self.settings.durability)

    def positions(self, count: int) -> int:
        """Take `count` new positions; return the first."""
        base = self.next_position
        self.next_position += count
        return base

    def policy(self, envelope: Envelope) -> TaskPolicy:
        """How this message is to be judged: as a worker registered its task, else as its sender said."""
        policy = self.policies.get(envelope.name)
        more = envelope.more
        asked = more.max_deliveries if more is not None else 0
        if policy is None:
            if more is None:
                return TaskPolicy(envelope.name, envelope.flags & POLICY_FLAGS)
            return TaskPolicy(envelope.name, envelope.flags & POLICY_FLAGS, asked, more.max_retries, more.retry_delay)
        if asked:
            return TaskPolicy(policy.name, policy.flags, asked, policy.max_retries, policy.retry_delay)
        return policy

    def children_of(self, node: str) -> Iterator[Session]:
        """Sessions of children of the node whose session id this is."""
        for session in self.sessions.values():
            if session.parent == node and session.id != node:
                yield session

    # --- moving messages -----------------------------------------------------------------------------------------

    def end(self, message: Message) -> None:
        """The message is SETTLED: it leaves its row, its lease and every count. Results are the caller's."""
        self.uncount(message)
        message.row.mailbox.depth -= 1
        self.unlease(message)
        message.stage = Stage.SETTLED
        row = message.row
        row.gone |= 1 << (message.position - row.base)
        row.left -= 1
        self.journal.lost(row)
        if message.past is not None:
            message.past = None
            if row.durability:
                self.journal.write(PastGone([message.position]), row.durability)
        if self.loose:
            self.loose.pop(message.position, None)

    def uncount(self, message: Message) -> None:
        """Take the message out of its mailbox's count for its stage; the depth stays."""
        mailbox = message.row.mailbox
        stage = message.stage
        if stage == Stage.ACQUIRED:
            mailbox.acquired -= 1
        elif stage == Stage.STARTED:
            mailbox.started -= 1
        elif stage == Stage.SCHEDULED:
            mailbox.scheduled -= 1

    def unlease(self, message: Message) -> None:
        """Take the message out of its holder's hands."""
        lease = message.lease
        if lease is None:
            return
        session = lease.session
        session.held.pop(message.position, None)
        session.started.discard(message.position)
        message.lease = None
        lease.left -= 1
        if lease.left == 0:
            self.journal.over(lease)

    def back(self, message: Message) -> None:
        """The message is READY again, at its old place in front, without blame."""
        self.uncount(message)
        self.unlease(message)
        message.stage = Stage.READY
        mailbox = message.row.mailbox
        mailbox.lane(message.row.priority).put_back(message)
        self.busy[mailbox.name] = mailbox

    def keeps_result(self, envelope: Envelope, failed: bool) -> bool:
        """Whether anything of this message's end is stored."""
        flags = envelope.flags
        return not flags & int(Flag.IGNORE_RESULT) or bool(failed and flags & int(Flag.STORE_ERRORS))
