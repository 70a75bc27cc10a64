"""What a broker asks a store to remember, and what a store gives back after a restart.

This file owns the records of a `Persist` effect and the rows that reads return. A commit is a list of
records, applied in order, whole or not at all. The unit that holds messages is the *row*: up to 4,096
messages of one mailbox and priority that arrived together, numbered `base`, `base + 1`, ... by position. A
message that must wait for a due time, or whose id the user chose, has a row of its own. Which messages of a
row are gone is a bit mask (bit i: position base + i), kept apart so that a settle does not rewrite bodies.
"""

from __future__ import annotations

import enum

import msgspec


class Append(msgspec.Struct, frozen=True, gc=False):
    """Add a row. `blob` is what codec.encode_envelopes made.

    `base`: 1 or more.
    `due`: wall microseconds before which the row's (single) message must not go out; 0: at once.
    `session`: who published it, for pushing results.
    `unique`: the chosen id of the row's single message. If the store has it already within its window (until
    a sweep forgets it), the row is not added and its base comes back in `Committed.duplicates`. Empty: not
    indexed.
    """

    base: int
    count: int
    mailbox: str
    priority: int
    due: int
    session: str
    blob: bytes
    unique: str = ""
    unique_until: int = 0


class Gone(msgspec.Struct, frozen=True, gc=False):
    """Of row `base`, exactly these messages are settled or moved (the whole mask, not a change of it).

    Never all of them: that is a Drop.
    """

    base: int
    mask: int


class Drop(msgspec.Struct, frozen=True, gc=False):
    """All of these rows are gone: forget the rows and their masks."""

    bases: list[int]


class Lease(msgspec.Struct, frozen=True, gc=False):
    """These positions are out with `session` under `lease` (spec D7): written before they are sent.

    Replaces what was said of this lease before.
    """

    lease: int
    session: str
    positions: list[int]


class Unlease(msgspec.Struct, frozen=True, gc=False):
    """These leases are over: every position of each is settled or back."""

    leases: list[int]


class Past(msgspec.Struct, frozen=True, gc=False):
    """The history of a message after its first bad event: counters, attempts, due time. Replaces what was there."""

    position: int
    blob: bytes


class PastGone(msgspec.Struct, frozen=True, gc=False):
    """The messages at these positions need no history any more."""

    positions: list[int]


class Session(msgspec.Struct, frozen=True, gc=False):
    """A session's last applied number and the outcomes that it has not yet said it knows (spec D6)."""

    session: str
    number: int
    outcomes: bytes
    seen_at: int


class SessionsGone(msgspec.Struct, frozen=True, gc=False):
    """These sessions said goodbye or were not heard of for 24 h."""

    sessions: list[str]


class ResultRow(msgspec.Struct, frozen=True, gc=False):
    """The state of id, replacing what was there. `expires_at`: wall microseconds; 0: never."""

    id: str
    state: int
    blob: bytes
    expires_at: int


class ResultsGone(msgspec.Struct, frozen=True, gc=False):
    """Forget the results of these ids."""

    ids: list[str]


class Dead(msgspec.Struct, frozen=True, gc=False):
    """A dead letter, moved in the same commit from its mailbox. `blob`: its envelope; `story`: encoded attempts."""

    position: int
    id: str
    mailbox: str
    name: str
    reason: str
    died_at: int
    blob: bytes
    story: bytes


class DeadGone(msgspec.Struct, frozen=True, gc=False):
    """These dead letters were redriven or purged."""

    positions: list[int]


class Revoked(msgspec.Struct, frozen=True, gc=False):
    """This id must not start any more; remembered until `until` (wall microseconds)."""

    id: str
    until: int


class Policy(msgspec.Struct, frozen=True, gc=False):
    """How workers registered a task, replacing what was there: an encoded verbs.TaskPolicy."""

    name: str
    blob: bytes


class MailboxRow(msgspec.Struct, frozen=True, gc=False):
    """A mailbox with its declared settings, encoded by the broker; replaces what was there."""

    name: str
    blob: bytes


class ActorState(msgspec.Struct, frozen=True, gc=False):
    """The state of the durable actor whose mailbox this is, in the commit that ends the message that changed it.

    `number`: the lease of that message. Leases of one actor rise, since it has one owner at a time: a state replaces
    what was there unless that has a higher number. `blob` is what the actor's host encoded; brokers do not read it.
    """

    mailbox: str
    number: int
    blob: bytes


class ActorStatesGone(msgspec.Struct, frozen=True, gc=False):
    """An operator has taken the states of these actors away: they begin anew."""

    mailboxes: list[str]


class Purge(msgspec.Struct, frozen=True, gc=False):
    """Drop every row of `mailbox` whose base is not in `keep` (those with leases stand there), due or not.

    An actor's state stays. The histories of its messages go with it, since the broker may never have read the row.
    """

    mailbox: str
    keep: list[int]


Record = (
    Append
    | Gone
    | Drop
    | Lease
    | Unlease
    | Past
    | PastGone
    | Session
    | SessionsGone
    | ResultRow
    | ResultsGone
    | Dead
    | DeadGone
    | Revoked
    | Policy
    | MailboxRow
    | ActorState
    | ActorStatesGone
    | Purge
)


class Synchronous(enum.IntEnum):
    """What a commit must survive: the broker process, or the power."""

    NORMAL = 1
    FULL = 2


class Committed(msgspec.Struct, frozen=True):
    """A commit's answer: positions of `Append`s whose unique id was known already, and so were not added."""

    duplicates: list[int] = []


class Row(msgspec.Struct, frozen=True, gc=False):
    """A row read back. `gone` is its mask."""

    base: int
    count: int
    mailbox: str
    priority: int
    due: int
    session: str
    blob: bytes
    gone: int


class Tally(msgspec.Struct, frozen=True, gc=False):
    """How many messages a mailbox holds at one priority: rows with a due time apart."""

    mailbox: str
    priority: int
    ready: int
    scheduled: int


class DeadCount(msgspec.Struct, frozen=True, gc=False):
    """How many dead letters a mailbox has."""

    mailbox: str
    count: int


class Recovered(msgspec.Struct, frozen=True):
    """All that a broker needs to go on; messages themselves are read ahead later.

    `epoch` was raised by this open and is on disk. `next_position` and `next_lease` are above everything ever
    stored (a store keeps high-water marks, so that a number is never used again, also after everything was
    deleted).
    """

    epoch: int
    next_position: int
    next_lease: int
    tallies: list[Tally]
    leases: list[Lease]
    pasts: list[Past]
    sessions: list[Session]
    revoked: list[Revoked]
    policies: list[Policy]
    mailboxes: list[MailboxRow]
    dead: list[DeadCount]
