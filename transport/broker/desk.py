"""The desk: what all parts of the broker share, and the few moves that every part needs.

The desk holds the tables (mailboxes, sessions, rows in memory, policies, revocations), the journal and the effects of
this pass. It owns two moves: `end`, by which a message becomes SETTLED, and `release`, by which a leased message comes
back into the broker's hands; where it goes then is decided in `places`. Everything else about a message is decided
in the part named after it.
"""

from __future__ import annotations

import msgspec

from ..clock import Now
from ..message import POLICY_FLAGS, Envelope, Flag, Kind, State
from ..store.records import MailboxRow, PastGone
from ..verbs import Durability, FromBroker, TaskPolicy
from .events import Effect, Notice, Send
from .held import Message, Row, Stage
from .journal import Journal
from .mailbox import Declared, Mailbox
from .outflow import VERB_BYTES, Outflow
from .sessions import Publishing, Session
from .settings import BrokerSettings

#: Mailboxes may share this many messages in memory, and bytes of their bodies, before each may keep fewer.
SHARED_MESSAGES = 1 << 20
SHARED_BYTES = 1 << 30
HEAD_MESSAGES_MIN = 64
HEAD_BYTES_MIN = 64 << 10
IGNORE_RESULT = int(Flag.IGNORE_RESULT)
STORE_ERRORS = int(Flag.STORE_ERRORS)
_encoder = msgspec.msgpack.Encoder()
#: As plain integers, for what is compared once a message.
_STARTED = int(Stage.STARTED)
_SETTLED = int(Stage.SETTLED)
_FAILURES = (int(State.FAILURE), int(State.REJECTED))


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
        self.outflow = Outflow(settings)
        self.effects: list[Effect] = []
        self.counts = Counts()
        self.mailboxes: dict[str, Mailbox] = {}
        #: Mailboxes that may have something to hand out, in the order in which they got it.
        self.busy: dict[str, Mailbox] = {}
        self.sessions: dict[str, Session] = {}
        self.links: dict[int, Session] = {}
        #: A node's session id -> sessions of its children, by id.
        self.children: dict[str, dict[str, Session]] = {}
        #: Attached quarantine children, by session id.
        self.quarantine: dict[str, Session] = {}
        #: An actor class -> attached children that know it, by session id: those of kind ACTORS host it.
        self.hosts: dict[str, dict[str, Session]] = {}
        #: Sessions that publish or did: those that have no link any more in front, longest away first.
        self.publishing: dict[str, Publishing] = {}
        self.policies: dict[str, TaskPolicy] = {}
        #: Those among them that say how long results are kept.
        self.lifetimes: dict[str, TaskPolicy] = {}
        self.revoked: dict[str, int] = {}
        self.speeds: dict[str, TaskSpeed] = {}
        #: Unsettled messages that a lost holder may still settle (D21), by position.
        self.loose: dict[int, Message] = {}
        #: Rows by base that a read of the store may still find although (some of) their messages are in memory: such
        #: messages are skipped. Rows with a due time; after a restart, rows with leases and pasts.
        self.known: dict[int, Row] = {}
        self.next_position = 1
        self.next_lease = 1
        #: Commits that failed: what was read since may lack what is written anew.
        self.failures = 0
        self.store_full = False
        self.draining = False
        #: What one lane may keep in memory.
        self.head_messages_max = settings.head_messages_max
        self.head_bytes_max = settings.head_bytes_max
        self._token = 0

    # --- speaking ------------------------------------------------------------------------------------------------

    def send(self, session: Session, verb: FromBroker, size: int = VERB_BYTES) -> None:
        """Say this to the session at once: it depends on no commit. `size` counts as unacknowledged."""
        self.outflow.send(self.effects, session, verb, size, self.now.boot)

    def send_link(self, link: int, verb: FromBroker) -> None:
        """Say this on a link, whoever has it: a greeting, a refusal, a heartbeat."""
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
            self._share_memory()
        return mailbox

    def declare(
        self, name: str, max_messages: int | None = None, on_full: str | None = None, durability: int | None = None
    ) -> None:
        """Give a mailbox settings of its own, which are kept; None leaves one as it is."""
        mailbox = self.mailbox(name)
        before = mailbox.declared
        declared = Declared(
            before.max_messages if max_messages is None else max_messages,
            before.on_full if on_full is None else on_full,
            before.durability if durability is None else durability,
        )
        if declared != before:
            mailbox.declared = declared
            self.journal.write(MailboxRow(name, _encoder.encode(declared)))

    def forget_idle_mailboxes(self) -> None:
        """Forget mailboxes about which there is nothing to know: no message, consumer, owner, letter or setting."""
        idle = [
            name
            for name, mailbox in self.mailboxes.items()
            if not mailbox.depth
            and not mailbox.dead
            and not mailbox.consumers
            and mailbox.owner is None
            and mailbox.declared.max_messages is None
            and mailbox.declared.on_full is None
            and mailbox.declared.durability is None
            and name not in self.busy
        ]
        for name in idle:
            del self.mailboxes[name]
        if idle:
            self._share_memory()

    def _share_memory(self) -> None:
        count = max(1, len(self.mailboxes))
        settings = self.settings
        self.head_messages_max = min(settings.head_messages_max, max(HEAD_MESSAGES_MIN, SHARED_MESSAGES // count))
        self.head_bytes_max = min(settings.head_bytes_max, max(HEAD_BYTES_MIN, SHARED_BYTES // count))

    def durability(self, mailbox: Mailbox) -> Durability:
        """What the mailbox's messages survive."""
        return mailbox.durability(self.settings.durability)

    def positions(self, count: int) -> int:
        """Take `count` new positions; return the first."""
        base = self.next_position
        self.next_position += count
        return base

    def policy(self, envelope: Envelope) -> TaskPolicy:
        """How this message is to be judged: as a worker registered its task, else as its sender said.

        Registrations are of tasks: an aftermath keeps its own flags (D23), and an actor's method is not a task.
        """
        policy = self.policies.get(envelope.name) if envelope.kind == Kind.TASK else None
        more = envelope.more
        asked = more.max_deliveries if more is not None else 0
        if policy is None:
            if more is None:
                return TaskPolicy(envelope.name, envelope.flags & POLICY_FLAGS)
            return TaskPolicy(envelope.name, envelope.flags & POLICY_FLAGS, asked, more.max_retries, more.retry_delay)
        if asked:
            return TaskPolicy(policy.name, policy.flags, asked, policy.max_retries, policy.retry_delay)
        return policy

    def learn(self, policy: TaskPolicy) -> None:
        """A worker has registered its task so."""
        self.policies[policy.name] = policy
        if policy.result_ttl < 0 and policy.failure_ttl < 0:
            self.lifetimes.pop(policy.name, None)
        else:
            self.lifetimes[policy.name] = policy

    def expiry_of_result(self, envelope: Envelope, state: int) -> int:
        """Wall time at which a result of this message may be forgotten; 0: never."""
        ttl = self.settings.result_ttl
        if self.lifetimes and envelope.kind == Kind.TASK:
            policy = self.lifetimes.get(envelope.name)
            if policy is not None:
                own = policy.failure_ttl if state in _FAILURES else policy.result_ttl
                ttl = own if own >= 0 else ttl
        return self.now.wall + ttl if ttl else 0

    def keeps_result(self, envelope: Envelope, failed: bool) -> bool:
        """Whether anything of this message's end is stored."""
        flags = envelope.flags
        return not flags & IGNORE_RESULT or bool(failed and flags & STORE_ERRORS)

    # --- who may be given something ------------------------------------------------------------------------------

    def stir(self, mailbox: Mailbox) -> None:
        """The mailbox has something to hand out: look at it, unless everybody is known to be full."""
        if not mailbox.starved:
            self.busy[mailbox.name] = mailbox

    def rouse(self, mailbox: Mailbox) -> None:
        """Somebody may take from the mailbox who could not before: look at it."""
        mailbox.starved = False
        self.busy[mailbox.name] = mailbox

    def wake(self, session: Session) -> None:
        """The session has gained room: look at what waits for it."""
        starving, session.starving = session.starving, {}
        for mailbox in starving.values():
            self.rouse(mailbox)

    def own(self, mailbox: Mailbox, session: Session | None) -> None:
        """Give an actor to this session, or take it away."""
        if mailbox.owner is not session:
            mailbox.since = 0
        if mailbox.owner is not None:
            mailbox.owner.owned.pop(mailbox.name, None)
        mailbox.owner = session
        if session is not None:
            session.owned[mailbox.name] = mailbox

    # --- moving messages -----------------------------------------------------------------------------------------

    def end(self, message: Message) -> None:
        """The message is SETTLED: it leaves its row, its lease and every count. Results are the caller's.

        A message that is READY has left its lane before.
        """
        row = message.row
        mailbox = row.mailbox
        stage = message.stage
        if stage == Stage.ACQUIRED:
            mailbox.acquired -= 1
        elif stage == Stage.STARTED:
            mailbox.started -= 1
        elif stage == Stage.SCHEDULED:
            mailbox.scheduled -= 1
        mailbox.depth -= 1
        message.stage = Stage.SETTLED
        if message.lease is not None:
            self._unlease(message)
        row.gone |= 1 << (message.position - row.base)
        row.left -= 1
        self.journal.lost(row)
        if message.past is not None:
            self.end_past(message)
        if self.loose:
            self.loose.pop(message.position, None)
        if self.known and not row.left and row.base in self.known:
            self._unknow(row)

    def end_all(self, session: Session, messages: list[Message]) -> None:
        """`end` for what stands in no table any more and was held by this session: neighbours leave as one range."""
        start = 0
        first = messages[0]
        row, lease, position = first.row, first.lease, first.position
        for index, message in enumerate(messages):
            if message.row is not row or message.lease is not lease or message.position != position:
                self._end_range(messages[start:index])
                start = index
                row, lease, position = message.row, message.lease, message.position
            position += 1
        self._end_range(messages[start:] if start else messages)
        if session.starving:
            self.wake(session)

    def _end_range(self, messages: list[Message]) -> None:
        """Let go of messages of one lease that stand side by side in one row."""
        first = messages[0]
        row, lease = first.row, first.lease
        assert lease is not None
        count = len(messages)
        started = 0
        for message in messages:
            if message.stage == _STARTED:
                started += 1
            message.stage = _SETTLED
            message.lease = None
            if message.past is not None:
                self.end_past(message)
        mailbox = row.mailbox
        mailbox.started -= started
        mailbox.acquired -= count - started
        mailbox.depth -= count
        lease.left -= count
        if lease.left == 0:
            self.journal.over(lease)
        row.gone |= ((1 << count) - 1) << (first.position - row.base)
        row.left -= count
        self.journal.lost(row)
        if self.known and not row.left and row.base in self.known:
            self._unknow(row)

    def _unknow(self, row: Row) -> None:
        """All of a known row is gone. A read that was asked for before that is committed may still find it."""
        known = self.known
        self.journal.open.then.append(lambda: _forget(known, row.base))

    def end_past(self, message: Message) -> None:
        """The message is over, and so is its past."""
        row = message.row
        past = message.past
        assert past is not None
        if past.suspect:
            self._fewer_suspects(row.mailbox)
        message.past = None
        if row.durability:
            self.journal.write(PastGone([message.position]), row.durability)

    def _fewer_suspects(self, mailbox: Mailbox) -> None:
        """An actor's last suspect is settled: the actor leaves quarantine."""
        mailbox.suspects -= 1
        if mailbox.is_actor and not mailbox.suspects:
            self.rouse(mailbox)

    def release(self, message: Message) -> None:
        """Take the message out of its stage's count and out of its holder's hands: the caller puts it somewhere."""
        self.uncount(message)
        lease = message.lease
        if lease is not None:
            self._unlease(message)
            if lease.left:
                self.journal.shrunk(lease)

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

    def _unlease(self, message: Message) -> None:
        lease = message.lease
        assert lease is not None
        session = lease.session
        session.held.pop(message.position, None)
        message.lease = None
        lease.left -= 1
        if lease.left == 0:
            self.journal.over(lease)
        if session.starving:
            self.wake(session)


def _forget(known: dict[int, Row], base: int) -> None:
    known.pop(base, None)
