"""The message: an envelope that brokers read and a body that they never decode.

This file owns the structs that travel inside verbs and rest inside stores: `Envelope` (what the sender said),
`Delivery` (one hand-out of it), `Outcome` (what became of that delivery) and `Result` (what is kept of it).
They are arrays on the wire: a field's place is its name there, so fields are only ever appended.

A message's *position* is its number in its partition, given at accept, never used again. It is what leases,
settles and the store speak of; the id is the sender's business and the result's key.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

#: A header value is a scalar; everything nested travels in `More.opaque` (spec D10).
Scalar = str | int | float | bool | None

#: Longest name of a mailbox, a task, a header, a message id; in characters.
NAME_CHARACTERS_MAX = 255
PRIORITY_MAX = 255
#: Deliveries of one message that may end in the death of its process, unless the task says otherwise.
MAX_DELIVERIES_DEFAULT = 3


Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARACTERS_MAX)]


class Flag(enum.IntFlag):
    """What the sender (or the task's registration) asked for, one bit each."""

    ACKS_LATE = 1
    REJECT_ON_WORKER_LOST = 2
    RETRY_ON_WORKER_LOST = 4
    #: The result is not kept, not even an error.
    IGNORE_RESULT = 8
    #: With IGNORE_RESULT: keep errors all the same.
    STORE_ERRORS = 16
    TRACK_STARTED = 32
    #: Celery's acks_on_failure=False and acks_on_timeout=False.
    REJECT_ON_FAILURE = 64
    REDELIVER_ON_TIMEOUT = 128
    #: The user chose the id: recognised for 24 h, so that a second publish makes no second message.
    CHOSEN_ID = 256
    #: Celery's worker_deduplicate_successful_tasks: a redelivered message with a SUCCESS is not run again.
    DEDUPLICATE = 512
    #: The sender's session wants the result pushed to it.
    WATCHED = 1024


#: The flags that a worker's registration of the task decides when it has announced the task.
POLICY_FLAGS = (
    Flag.ACKS_LATE
    | Flag.REJECT_ON_WORKER_LOST
    | Flag.RETRY_ON_WORKER_LOST
    | Flag.REJECT_ON_FAILURE
    | Flag.REDELIVER_ON_TIMEOUT
    | Flag.DEDUPLICATE
)


class Kind(enum.IntEnum):
    """What a message is."""

    TASK = 0
    #: A tell or an ask to a named actor; `More.actor_class` names the class to host it with.
    ACTOR = 1
    #: Tells an ordinary child that a message ended without one (spec D23): hooks, signals, errbacks.
    AFTERMATH = 2


class More(msgspec.Struct, array_like=True, gc=False):
    """The rarer fields of an envelope, together, so that the common message does not pay for them.

    Times are integer microseconds. Durations are resolved to wall times once, by the broker, at accept:
    `delay` becomes `due`, `expires_in` becomes `expires`. 0 means "not set".
    """

    due: int = 0
    delay: int = 0
    expires: int = 0
    expires_in: int = 0
    time_limit: int = 0
    soft_time_limit: int = 0
    retries: int = 0
    #: 0: the default. -1: no bound (the broker warns at start-up of a task that asks for this).
    max_deliveries: int = 0
    #: Retries after a lost worker (RETRY_ON_WORKER_LOST) and their delay, as Celery's max_retries.
    max_retries: int = 3
    retry_delay: int = 180_000_000
    root_id: str = ""
    parent_id: str = ""
    reply_to: str = ""
    #: Wall time after which nobody waits for the answer (an ask's deadline); 0: none.
    deadline: int = 0
    actor_class: str = ""
    shadow: str = ""
    trace: str = ""
    headers: dict[str, Scalar] | None = None
    #: Nested things that only clients and children decode: links, errbacks, chord, stamps.
    opaque: bytes = b""


class Envelope(msgspec.Struct, array_like=True, gc=False):
    """What the sender said. `name` is a task's registered name or an actor's method."""

    id: Name
    name: Name
    #: "msgpack", "json", "pickle", "cloudpickle", with "+gzip" and the like behind it when compressed.
    content: str
    body: bytes
    flags: int = 0
    priority: int = 0
    kind: int = 0
    origin: str = ""
    more: More | None = None
    #: The ZeroMQ part that holds the body, counted from 1; 0: the body stands here.
    part: int = 0


class Delivery(msgspec.Struct, array_like=True, gc=False):
    """One hand-out of a message. `deliveries` counts this one: 1 the first time."""

    position: int
    envelope: Envelope
    mailbox: str
    deliveries: int = 1
    #: Microseconds until the message expires, judged by the child again before it starts it; 0: never.
    expires_in: int = 0
    #: Handed out before, to anybody (Celery's delivery_info['redelivered']).
    redelivered: bool = False


class State(enum.IntEnum):
    """How a delivery, or a message, ended; or where it stands for those who ask for its result."""

    PENDING = 0
    RECEIVED = 1
    STARTED = 2
    SUCCESS = 3
    FAILURE = 4
    #: The message goes back with a new body, a count and a due time: the same message, never a new one.
    RETRY = 5
    REVOKED = 6
    #: Celery's Reject: requeue=False is a failure, requeue=True is REQUEUED.
    REJECTED = 7
    #: Celery's Ignore: acked, nothing stored.
    IGNORED = 8
    #: nack with requeue: back to the mailbox, after a short delay, no blame.
    REQUEUED = 9
    #: A state that the task named itself with update_state; `Result.custom` has its name.
    CUSTOM = 10
    #: An outcome only: the worker would not load the message, whose body is not signed as it must be. It becomes a
    #: dead letter, and its state FAILURE.
    REFUSED = 11


#: States after which nothing about the message changes any more.
TERMINAL = frozenset({State.SUCCESS, State.FAILURE, State.REVOKED, State.REJECTED, State.IGNORED})


class Failure(msgspec.Struct, array_like=True, gc=False):
    """An exception as a value. Rebuilt by the reader from an allow-list, never imported by name."""

    exc_type: str
    exc_module: str
    #: The exception's args, encoded as msgpack body; what could not be encoded is its repr.
    args: bytes
    text: str
    traceback: str = ""
    cause: Failure | None = None
    #: The exception's own attributes, a msgpack body of a dict; empty: it has none, or nobody told.
    attributes: bytes = b""
    #: The members of an exception group.
    members: list[Failure] | None = None


class Result(msgspec.Struct, array_like=True, gc=False):
    """What is known of a message by its id. Brokers pass it on and keep it as bytes they do not decode."""

    state: int
    content: str = "msgpack"
    #: The return value, or the meta of update_state, as a body.
    body: bytes = b""
    failure: Failure | None = None
    #: Wall microseconds.
    done_at: int = 0
    worker: str = ""
    retries: int = 0
    custom: str = ""
    #: Ids of the messages that the body sent (Celery's children), encoded by the child.
    children: bytes = b""
    #: The message is a dead letter: a redrive makes another end of it, so that nobody should keep this one.
    dead: bool = False


class Retry(msgspec.Struct, array_like=True, gc=False):
    """The next form of the same message: its new envelope; `delay` in microseconds from the settle's accept."""

    envelope: Envelope
    delay: int = 0


class Follow(msgspec.Struct, array_like=True, gc=False):
    """Messages to publish in the commit of the settle that carries them: callbacks, errbacks, replies."""

    mailbox: str
    messages: list[Envelope]


class Outcome(msgspec.Struct, array_like=True, gc=False):
    """What became of one delivery. `lease` names the delivery; `result` is an encoded `Result`, opaque to brokers."""

    position: int
    lease: int
    state: int
    #: Microseconds in user code; the broker measures task types by it.
    runtime: int = 0
    result: bytes = b""
    retry: Retry | None = None
    follows: list[Follow] | None = None
    #: The state of a durable actor after this message, if the message changed it: kept in the commit that ends the
    #: message, or not at all. Brokers do not read it.
    snapshot: bytes | None = None


class Aftermath(msgspec.Struct, array_like=True, gc=False):
    """The body of an AFTERMATH message: what became of `envelope` without a child to say so (spec D23)."""

    envelope: Envelope
    state: int
    #: An encoded `Result`.
    result: bytes
    #: Why, in a word: lost, expired, revoked, dead.
    reason: str
