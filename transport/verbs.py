"""The verbs of the protocol, one struct each, in a closed union a direction and role.

This file owns what may be said on a link. `docs/protocol.md` describes the same for other languages, and
`tests/vectors/` has each verb's bytes. A verb is a MessagePack array `[tag, field, ...]`; a frame is an array of
verbs. Fields are only ever appended, with a default, so that a minor version reads its neighbours.

To a broker: `ToBroker`. From a broker: `FromBroker`. What a role may say is in `ALLOWED`.

Numbering (spec D3, D6): `Publish`, `Settle`, `Return`, `Report` and requests carry the sender's session number
in `number`, counted 1, 2, 3 ... per session. A broker answers each once it is committed: `Confirm` for a publish,
`Applied` for the rest. After re-attaching, the sender says again, byte for byte, what was not answered.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from .message import Delivery, Envelope, Outcome

#: Raised when a verb changes its meaning. Peers of another major version are refused in words.
PROTOCOL_VERSION = 1


class Role(enum.IntEnum):
    """Who speaks on a link."""

    CLIENT = 1
    #: The parent of a worker node: it vouches for its children and never runs user code.
    NODE = 2
    #: A child process of a node: it runs user code.
    CHILD = 3


class Durability(enum.IntEnum):
    """What a mailbox's messages survive, told in each confirm."""

    MEMORY = 0
    PROCESS = 1
    DISK = 2
    CLUSTER = 3


class _Verb(msgspec.Struct, array_like=True, gc=False):
    """Common settings of all verbs."""


class _Part(msgspec.Struct, array_like=True, gc=False):
    """Common settings of what stands inside verbs."""


#: Items in any list of a verb (spec D10).
ITEMS_MAX = 4096

Positions = Annotated[list[int], msgspec.Meta(max_length=ITEMS_MAX)]
Ids = Annotated[list[Annotated[str, msgspec.Meta(max_length=255)]], msgspec.Meta(max_length=ITEMS_MAX)]


# --- said by anybody -------------------------------------------------------------------------------------------


class Ping(_Verb, tag=1):
    """Are you there? Answered with `Pong` of the same number."""

    number: int = 0


class Pong(_Verb, tag=2):
    """I am here."""

    number: int = 0


class Goodbye(_Verb, tag=3):
    """The sender ends its session in order: nothing of it needs to be kept."""

    reason: str = ""


# --- to a broker -----------------------------------------------------------------------------------------------


class Hello(_Verb, tag=10):
    """The first verb on every link. `session` is unique for ever; `link` counts the session's links from 1."""

    version: int
    role: int
    #: The worker node's name (celery@host), or the client's origin.
    node: str
    session: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    incarnation: int
    link: int
    host: str = ""
    pid: int = 0
    token: bytes = b""


class Group(_Part):
    """Messages for one mailbox, in order. `messages` is an encoded list of `Envelope`, stored as it came."""

    mailbox: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    count: Annotated[int, msgspec.Meta(ge=1, le=ITEMS_MAX)]
    messages: msgspec.Raw
    #: ZeroMQ parts that hold bodies over 16 KiB, in order; an envelope names its own by `part`, from 1.
    parts: int = 0


class Publish(_Verb, tag=11):
    """Accept these, whole or not at all. `answered`: the sender knows the outcomes up to this number."""

    partition: int
    number: int
    answered: int
    groups: Annotated[list[Group], msgspec.Meta(max_length=ITEMS_MAX)]


class TaskPolicy(_Part):
    """How a worker's code registered a task: it decides over what the sender's copy said."""

    name: str
    flags: int
    max_deliveries: int = 0
    max_retries: int = 3
    retry_delay: int = 180_000_000
    #: How long results are kept, in microseconds, and those of failures; 0: for ever, -1: as the broker was told.
    result_ttl: int = -1
    failure_ttl: int = -1


class Holding(_Part):
    """One delivery that a re-attaching child still has."""

    position: int
    lease: int
    started: bool


class ChildKind(enum.IntEnum):
    """What a child process is for."""

    POOL = 0
    #: Runs suspects only, one at a time (spec D25).
    QUARANTINE = 1
    #: Hosts actors, and runs no tasks, so that a task that kills its process takes no actor with it.
    ACTORS = 2


class Bounds(_Part):
    """What an application says of its mailboxes: 0 and empty leave it as it is."""

    max_messages: int = 0
    #: "reject" or "block".
    on_full: str = ""


class Attach(_Verb, tag=12):
    """A child consumes from these mailboxes. Said after each Welcome, with all that it holds.

    `slots`: bodies it can run at once. `window`: messages it may hold at once, slots included (spec D11); 0: none
    until it says Credit.
    """

    mailboxes: list[str]
    slots: int
    window: int
    kind: int = 0
    held: list[Holding] = []
    policies: list[TaskPolicy] = []
    #: Actor classes of the application, by their registered names: a child of kind ACTORS hosts them, another
    #: says that its node could.
    actors: list[str] = []
    #: What the application says of the mailboxes above.
    bounds: Bounds | None = None


class Credit(_Verb, tag=13):
    """From now on the session may hold `window` messages."""

    window: int


class Settle(_Verb, tag=14):
    """What became of deliveries; applied whole, answered with `Applied`."""

    number: int
    outcomes: Annotated[list[Outcome], msgspec.Meta(max_length=ITEMS_MAX)]


class Return(_Verb, tag=15):
    """These were not started and are given back, without blame; from now on the window is `window`."""

    number: int
    positions: Positions
    window: int
    #: The leases under which they were held, one a position: what is held under a newer one is not given back.
    leases: Positions


class Started(_Verb, tag=16):
    """These bodies run: said with other traffic, and at once for a body that has run for 5 ms."""

    positions: Positions


class Progress(_Verb, tag=17):
    """A state that the body named (update_state, or STARTED where tracked): `results` are encoded Results."""

    number: int
    positions: Positions
    leases: Positions
    results: Annotated[list[bytes], msgspec.Meta(max_length=ITEMS_MAX)]


class RingEntry(_Part):
    """One line of a page: a delivery that a dead child had marked started, and perhaps finished."""

    position: int
    lease: int
    finished: bool


class Report(_Verb, tag=18):
    """A child's end, by the only one who may say so: its parent (or who found the page of a dead node).

    The broker applies `outbox` (settle frames that it had not acknowledged) first, then judges by `ring`.
    """

    number: int
    session: str
    exit_code: int | None = None
    signal: int = 0
    oom: bool = False
    max_rss_kib: int = 0
    pid: int = 0
    outbox: list[Settle] = []
    ring: list[RingEntry] = []
    #: Positions that the parent killed at their hard time limit.
    timed_out: list[int] = []
    #: Killed on purpose through Greenroom (revoke with terminate): convicts nobody.
    terminated: list[int] = []
    #: The child was asked to stop (drain, recycling): nothing started is to blame.
    orderly: bool = False
    #: Set when the evidence was read from the page of a node that is gone.
    node_lost: bool = False


class Watch(_Verb, tag=19):
    """Tell me the results of these ids: what is known now (`snapshot`), and each change until terminal."""

    ids: Ids
    snapshot: bool = True


class Unwatch(_Verb, tag=20):
    """No more of these."""

    ids: Ids


class Op(enum.IntEnum):
    """Requests that are answered with a `Reply`. `Request.params` is the op's own struct in `requests.py`."""

    MAILBOXES = 1
    DEAD_LIST = 2
    DEAD_SHOW = 3
    DEAD_REDRIVE = 4
    DEAD_PURGE = 5
    PURGE = 6
    REVOKE = 7
    FORGET = 8
    RESULTS = 9
    STATUS = 10
    DECLARE = 11
    STATE = 12


class Request(_Verb, tag=21):
    """Ask the broker something, or tell it to act; answered with `Reply` of the same number."""

    number: int
    op: int
    params: msgspec.Raw


class Trouble(_Verb, tag=22):
    """From a node: what is wrong with its children from now on, for the status; empty: nothing any more.

    It belongs to the link: said again after each Welcome for as long as it lasts.
    """

    text: Annotated[str, msgspec.Meta(max_length=1000)]


# --- from a broker ---------------------------------------------------------------------------------------------


class Welcome(_Verb, tag=40):
    """The answer to Hello. `applied`: the last number of this session that is committed (0: none, unknown)."""

    version: int
    broker: str
    epoch: int
    applied: int
    #: Bytes that a publisher may have unconfirmed.
    publish_bytes: int
    known: bool = False
    name: str = ""


class Reset(_Verb, tag=41):
    """The link is of no use: say Hello on a new one, or mend what `reason` says when `final`."""

    reason: str
    final: bool = False


class Refusal(enum.IntEnum):
    """Why a batch was not accepted. A refusal is committed like an acceptance (spec D6)."""

    ACCEPTED = 0
    MAILBOX_FULL = 1
    STORE_FULL = 2
    NOT_ALLOWED = 3
    UNKNOWN_SESSION = 4
    INVALID = 5


class Confirm(_Verb, tag=42):
    """The batch `number` is on disk (or as durable as `durability` says), or was refused."""

    partition: int
    epoch: int
    number: int
    refusal: int = 0
    durability: int = 2
    #: In words, for the exception that the caller gets.
    detail: str = ""


class Deliver(_Verb, tag=43):
    """Run these. They are leased to this session, under one lease, on disk.

    `since`: of an actor's messages, the first lease under which the session has the actor now. While it stays the same,
    nobody else has had the actor, and what the session knows of its state is so; else the session asks (Op.STATE).
    """

    partition: int
    epoch: int
    lease: int
    deliveries: Annotated[list[Delivery], msgspec.Meta(max_length=ITEMS_MAX)]
    since: int = 0


class Recall(_Verb, tag=44):
    """Give these back with `Return` unless they have started. Empty: all that have not started."""

    positions: Positions


class Cancel(_Verb, tag=45):
    """Stop this body: `how` is a signal number for a process, or 0 for a soft cancel."""

    position: int
    how: int = 0


class Applied(_Verb, tag=46):
    """All numbers of this session up to `number` are committed."""

    number: int


class Known(_Part):
    """One id's state. `result` is an encoded `Result`, empty for an id of which nothing is known."""

    id: str
    state: int
    result: bytes


class Results(_Verb, tag=47):
    """What is now known of watched ids."""

    results: list[Known]


class Spawn(_Verb, tag=48):
    """To a node: have at least `count` children of this kind (suspects wait, or an actor has no host)."""

    kind: int
    count: int


class Reply(_Verb, tag=49):
    """The answer to a Request: `value` by the op's struct, or `error` in words."""

    number: int
    error: str = ""
    value: msgspec.Raw = msgspec.Raw(b"\xc0")


class Terminate(_Verb, tag=50):
    """To a node: kill the child that runs this position, for a revoke with terminate."""

    session: str
    position: int
    signal: int = 15


class Attached(_Verb, tag=51):
    """The answer to Attach, after a Recall of what the session held and no longer owns.

    A child that re-attaches starts nothing that it held before until this came (spec D18, D19).
    """

    epoch: int


ToBroker = (
    Ping
    | Pong
    | Goodbye
    | Hello
    | Publish
    | Attach
    | Credit
    | Settle
    | Return
    | Started
    | Progress
    | Report
    | Watch
    | Unwatch
    | Request
    | Trouble
)
FromBroker = (
    Ping
    | Pong
    | Goodbye
    | Welcome
    | Reset
    | Confirm
    | Deliver
    | Recall
    | Cancel
    | Applied
    | Results
    | Spawn
    | Reply
    | Terminate
    | Attached
)
Verb = ToBroker | FromBroker

#: What each role may say to a broker; anything else drops the link (security statement 10).
ALLOWED: dict[Role, tuple[type, ...]] = {
    Role.CLIENT: (Ping, Pong, Goodbye, Hello, Publish, Watch, Unwatch, Request),
    Role.NODE: (Ping, Pong, Goodbye, Hello, Report, Trouble),
    Role.CHILD: (
        Ping,
        Pong,
        Goodbye,
        Hello,
        Publish,
        Attach,
        Credit,
        Settle,
        Return,
        Started,
        Progress,
        Watch,
        Unwatch,
        Request,
    ),
}

__all__ = [
    "ALLOWED",
    "PROTOCOL_VERSION",
    "Durability",
    "Envelope",
    "FromBroker",
    "Op",
    "Role",
    "ToBroker",
    "Verb",
]
