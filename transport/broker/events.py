"""What a broker is told and what it asks its driver to do.

`Broker.apply(event, now)` takes one of `Event` and returns a list of `Effect`s, to be carried out in order. Events and
effects carry batches. A driver decides nothing: it decodes frames, encodes sends, groups commits, answers reads.

Order between effects: records of `Persist` number n are committed before or with those of n + 1; a read that was
asked for after a `Persist` sees what that persisted. What must not leave before a commit is not handed out by the
core until `Persisted` of its serial came back, so a driver may send every `Send` at once.
"""

from __future__ import annotations

import msgspec

from ..codec import BadFrame
from ..store.records import ActorState, Dead, Record, ResultRow, Row, Synchronous
from ..verbs import FromBroker, Report, ToBroker

# --- events ------------------------------------------------------------------------------------------------------


class Frame(msgspec.Struct, frozen=True):
    """One ZeroMQ message of one link: its verbs, and the parts with large bodies behind them.

    `link` is the driver's number of a connection, never used again. `bytes` is the size of all parts together.
    """

    link: int
    verbs: list[ToBroker] | BadFrame
    parts: list[bytes]
    bytes: int = 0


class Received(msgspec.Struct, frozen=True):
    """Everything that was ready to be read, in order of arrival."""

    frames: list[Frame]


class LinksClosed(msgspec.Struct, frozen=True):
    """These connections ended (or were silent for 6 s), and all that they had sent was delivered before."""

    links: list[int]


class LinkBlocked(msgspec.Struct, frozen=True):
    """A send found the link's buffer full: nothing of that send went out."""

    link: int
    verbs: list[FromBroker]


class Persisted(msgspec.Struct, frozen=True):
    """Every Persist up to `serial` is committed. `duplicates`: positions that the store refused as known ids."""

    serial: int
    duplicates: list[int] = []


class PersistFailed(msgspec.Struct, frozen=True):
    """The commit of the Persists `first` to `last` did not happen. `full`: no room; else fatal."""

    first: int
    last: int
    full: bool
    reason: str


class RoomRegained(msgspec.Struct, frozen=True):
    """The store has its ballast again: publishes may be accepted."""


class RowsRead(msgspec.Struct, frozen=True):
    """The answer to ReadReady, ReadDue or ReadRows."""

    token: int
    rows: list[Row]


class ResultsRead(msgspec.Struct, frozen=True):
    """The answer to ReadResults."""

    token: int
    results: list[ResultRow]


class DeadRead(msgspec.Struct, frozen=True):
    """The answer to ReadDead."""

    token: int
    letters: list[Dead]


class StatesRead(msgspec.Struct, frozen=True):
    """The answer to ReadStates."""

    token: int
    states: list[ActorState]


class PagesRead(msgspec.Struct, frozen=True):
    """The answer to ReadPages: what the pages of a dead node's children on this host told, if any were found.

    `sessions` whose pages were not found, or whose process still runs, are not in `reports`.
    """

    node: str
    reports: list[Report]


class Tick(msgspec.Struct, frozen=True):
    """Time has passed: at least as far as the last WakeAt asked."""


class Drain(msgspec.Struct, frozen=True):
    """The operator wants the broker to stop: say Goodbye to all, persist what is open, then Stop."""


Event = (
    Received
    | LinksClosed
    | LinkBlocked
    | Persisted
    | PersistFailed
    | RoomRegained
    | RowsRead
    | ResultsRead
    | DeadRead
    | StatesRead
    | PagesRead
    | Tick
    | Drain
)

# --- effects -----------------------------------------------------------------------------------------------------


class Send(msgspec.Struct, frozen=True):
    """Encode these verbs and send them on this link, in order, in as few frames as the limits allow."""

    link: int
    verbs: list[FromBroker]


class CloseLink(msgspec.Struct, frozen=True):
    """Cut this connection. Frames of it that are still unread are thrown away; no LinksClosed follows."""

    link: int
    reason: str


class Persist(msgspec.Struct, frozen=True):
    """Commit these records; answer with Persisted or PersistFailed. Several may share one commit, in order."""

    serial: int
    records: list[Record]
    synchronous: Synchronous


class ReadReady(msgspec.Struct, frozen=True):
    """Store.read_ready, answered with RowsRead."""

    token: int
    mailbox: str
    priority: int
    after: int
    messages_max: int


class ReadDue(msgspec.Struct, frozen=True):
    """Store.read_due, answered with RowsRead."""

    token: int
    after_due: int
    after_base: int
    messages_max: int


class ReadRows(msgspec.Struct, frozen=True):
    """Store.read_rows, answered with RowsRead."""

    token: int
    positions: list[int]


class ReadResults(msgspec.Struct, frozen=True):
    """Store.read_results, answered with ResultsRead."""

    token: int
    ids: list[str]


class ReadDead(msgspec.Struct, frozen=True):
    """Store.read_dead, answered with DeadRead."""

    token: int
    after: int
    limit: int
    mailbox: str = ""
    name: str = ""
    ids: list[str] = []


class ReadStates(msgspec.Struct, frozen=True):
    """Store.read_states, answered with StatesRead."""

    token: int
    mailboxes: list[str]


class ReadPages(msgspec.Struct, frozen=True):
    """Look on this host for the pages of this node's children (spec D16); answered with PagesRead.

    The driver waits (up to the deadline it was given) until the processes named in the pages have ended.
    """

    node: str
    sessions: list[str]


class Sweep(msgspec.Struct, frozen=True):
    """Let the store forget what has expired, `limit` items at most; no answer."""

    limit: int


class WakeAt(msgspec.Struct, frozen=True):
    """Send a Tick at this boot time (microseconds), unless a later WakeAt says another. 0: not needed."""

    boot: int


class Notice(msgspec.Struct, frozen=True):
    """Something that an operator would want to read: `kind` is a stable word, `fields` its facts."""

    kind: str
    fields: dict[str, str | int | float]


class Stop(msgspec.Struct, frozen=True):
    """The broker is over: `exit_code` 0 after Drain, else why in `reason` (a failed fsync, a damaged row).

    `unsettled`: how many messages it leaves in its mailboxes; -1: it does not know.
    """

    exit_code: int
    reason: str
    unsettled: int = -1


Effect = (
    Send
    | CloseLink
    | Persist
    | ReadReady
    | ReadDue
    | ReadRows
    | ReadResults
    | ReadDead
    | ReadStates
    | ReadPages
    | Sweep
    | WakeAt
    | Notice
    | Stop
)
