"""The parameters and answers of `Request`s: what a client may ask of a broker, one pair of structs an `Op`.

Maps on the wire (field names, not places), since these are rare and read by people and other languages. An answer
lists at most `LIST_MAX` items and says with `more` that there are others.
"""

from __future__ import annotations

import msgspec

from .verbs import Op

LIST_MAX = 1000


class Mailboxes(msgspec.Struct):
    """List mailboxes: these names, or all."""

    names: list[str] = []


class MailboxInfo(msgspec.Struct):
    """One mailbox as `greenroom mailboxes --json` shows it. `depth` counts everything unsettled."""

    name: str
    ready: int
    scheduled: int
    acquired: int
    started: int
    depth: int
    oldest_age_seconds: float
    consumers: int
    dead: int


class MailboxList(msgspec.Struct):
    """The answer to MAILBOXES, by name."""

    mailboxes: list[MailboxInfo]


class DeadFilter(msgspec.Struct):
    """Which dead letters: by ids, mailbox, task name; all when nothing is said. Pages by `after` (a position)."""

    ids: list[str] = []
    mailbox: str = ""
    task: str = ""
    after: int = 0
    limit: int = 100


class Attempt(msgspec.Struct):
    """One delivery of a message that ended badly (spec P8)."""

    worker: str = ""
    node: str = ""
    pid: int = 0
    incarnation: int = 0
    exit_code: int | None = None
    signal: int = 0
    oom: bool = False
    max_rss: int = 0
    started_at: float = 0.0
    ended_at: float = 0.0
    traceback: str = ""
    #: solo, joint, node_lost, timeout, requeued, unsigned.
    cause: str = ""


class DeadInfo(msgspec.Struct):
    """One dead letter as `greenroom dead ls --json` shows it. Times are seconds since the epoch."""

    id: str
    task: str
    mailbox: str
    reason: str
    deliveries: int
    first_failure: float
    last_failure: float
    root_id: str
    attempts: list[Attempt]
    position: int = 0
    redriven: int = 0
    counters: dict[str, int] = {}
    #: Only in DEAD_SHOW: the body and how it is encoded.
    content: str = ""
    body: bytes = b""


class DeadPage(msgspec.Struct):
    """The answer to DEAD_LIST and DEAD_SHOW."""

    letters: list[DeadInfo]
    total: int
    more: bool = False


class Count(msgspec.Struct):
    """The answer to whatever acts on many: how many it was."""

    count: int


class PurgeMailbox(msgspec.Struct):
    """Drop every message of a mailbox that is not out with a worker; of an actor its durable state too, if asked."""

    mailbox: str
    state: bool = False


class Revoke(msgspec.Struct):
    """These ids must not start; with `terminate`, running ones are killed with `signal`."""

    ids: list[str]
    terminate: bool = False
    signal: int = 15


class Forget(msgspec.Struct):
    """Forget the results of these ids."""

    ids: list[str]


class FetchResults(msgspec.Struct):
    """What is kept of these ids, now; answered with `Fetched`."""

    ids: list[str]


class Fetched(msgspec.Struct):
    """(id, state, encoded Result) for each id of which something is known."""

    results: list[tuple[str, int, bytes]]


class FetchState(msgspec.Struct):
    """The durable state of the actor with this mailbox, after all that its host has settled before it asked."""

    mailbox: str


class FetchedState(msgspec.Struct):
    """What its host encoded, and the lease of the message that made it; 0 and empty for an actor without a state."""

    number: int = 0
    snapshot: bytes = b""


class Declare(msgspec.Struct):
    """Give a mailbox settings of its own. None: leave as it is."""

    mailbox: str
    max_messages: int | None = None
    on_full: str | None = None
    durability: int | None = None


class SessionInfo(msgspec.Struct):
    """One peer of the broker."""

    session: str
    role: str
    node: str
    host: str
    pid: int
    mailboxes: list[str]
    slots: int
    window: int
    held: int
    started: int
    kind: str
    linked: bool
    #: Of a node: what is wrong with its children.
    trouble: str = ""


class StatusRequest(msgspec.Struct):
    """Ask how the broker is."""

    sessions: bool = True


class Status(msgspec.Struct):
    """How the broker is: counts since its start, and who is there."""

    broker: str
    epoch: int
    uptime_seconds: float
    accepted: int
    settled: int
    #: Handed out again although their bodies had started.
    redelivered: int
    dead: int
    refused: int
    store_full: bool
    sessions: list[SessionInfo]


#: Op -> (parameters, answer).
SHAPES: dict[Op, tuple[type[msgspec.Struct], type[msgspec.Struct]]] = {
    Op.MAILBOXES: (Mailboxes, MailboxList),
    Op.DEAD_LIST: (DeadFilter, DeadPage),
    Op.DEAD_SHOW: (DeadFilter, DeadPage),
    Op.DEAD_REDRIVE: (DeadFilter, Count),
    Op.DEAD_PURGE: (DeadFilter, Count),
    Op.PURGE: (PurgeMailbox, Count),
    Op.REVOKE: (Revoke, Count),
    Op.FORGET: (Forget, Count),
    Op.RESULTS: (FetchResults, Fetched),
    Op.STATUS: (StatusRequest, Status),
    Op.DECLARE: (Declare, Count),
    Op.STATE: (FetchState, FetchedState),
}
