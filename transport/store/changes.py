"""What a commit comes to: the net effect of its records, table by table.

Records apply in order; tables do not depend on each other. So the last record about a key decides, a table's
changes can be written together, and what comes and goes within one commit (a message that was accepted,
leased and settled while the last commit ran) is never written at all.

`Changes` is a plain object without I/O. Each table is a dict from key to the new row, or to None where the
row is to be deleted. It does not know Purge, which depends on what the tables hold: its writer applies what
was gathered until then and goes on with a new `Changes`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from .records import (
    ActorState,
    ActorStatesGone,
    Append,
    Dead,
    DeadGone,
    Drop,
    Gone,
    Lease,
    MailboxRow,
    Past,
    PastGone,
    Policy,
    Record,
    ResultRow,
    ResultsGone,
    Revoked,
    Session,
    SessionsGone,
    Unlease,
)


class Changes:
    """The net effect of records that were taken in with `add`.

    `next_position` and `next_lease` start above all that is stored and rise with what is taken in: a row or
    lease from there on is new, and if it goes again there is nothing to delete. `is_known` tells whether the
    store has an id that a user chose.
    """

    def __init__(self, next_position: int, next_lease: int, is_known: Callable[[str], bool]) -> None:
        self.next_position = self._stored_position = next_position
        self.next_lease = self._stored_lease = next_lease
        self._is_known = is_known
        self.duplicates: list[int] = []
        self.rows: dict[int, Append | None] = {}
        self.gone: dict[int, int] = {}
        self.uniques: dict[str, int] = {}
        self.leases: dict[int, Lease | None] = {}
        self.pasts: dict[int, Past | None] = {}
        self.sessions: dict[str, Session | None] = {}
        self.results: dict[str, ResultRow | None] = {}
        self.dead: dict[int, Dead | None] = {}
        self.revoked: dict[str, Revoked] = {}
        self.policies: dict[str, Policy] = {}
        self.mailboxes: dict[str, MailboxRow] = {}
        self.states: dict[str, ActorState] = {}
        #: Deleted before states are written: what comes after it is newer, whatever its number.
        self.states_gone: dict[str, None] = {}

    def add(self, record: Record) -> None:
        """Take one record in. Raises KeyError for a Purge, or for what is no record."""
        self._TAKE[type(record)](self, record)

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        return bool(
            self.rows
            or self.leases
            or self.results
            or self.gone
            or self.uniques
            or self.sessions
            or self.pasts
            or self.dead
            or self.revoked
            or self.policies
            or self.mailboxes
            or self.states
            or self.states_gone
        )

    def _append(self, record: Append) -> None:
        end = record.base + record.count
        if end > self.next_position:
            self.next_position = end
        if record.unique:
            if record.unique in self.uniques or self._is_known(record.unique):
                self.duplicates.append(record.base)
                return
            self.uniques[record.unique] = record.unique_until
        self.rows[record.base] = record

    def _gone(self, record: Gone) -> None:
        base = record.base
        # Not for a row that was dropped before, nor for a new one that was refused as a duplicate.
        there = self.rows[base] is not None if base in self.rows else base < self._stored_position
        if there:
            self.gone[base] = record.mask

    def _drop(self, record: Drop) -> None:
        for base in record.bases:
            if base >= self._stored_position:
                self.rows.pop(base, None)
            else:
                self.rows[base] = None
            self.gone.pop(base, None)

    def _lease(self, record: Lease) -> None:
        if record.lease >= self.next_lease:
            self.next_lease = record.lease + 1
        self.leases[record.lease] = record

    def _unlease(self, record: Unlease) -> None:
        for lease in record.leases:
            if lease >= self._stored_lease:
                self.leases.pop(lease, None)
            else:
                self.leases[lease] = None

    def _past(self, record: Past) -> None:
        self.pasts[record.position] = record

    def _past_gone(self, record: PastGone) -> None:
        self.pasts.update(dict.fromkeys(record.positions))

    def _session(self, record: Session) -> None:
        self.sessions[record.session] = record

    def _sessions_gone(self, record: SessionsGone) -> None:
        self.sessions.update(dict.fromkeys(record.sessions))

    def _result(self, record: ResultRow) -> None:
        self.results[record.id] = record

    def _results_gone(self, record: ResultsGone) -> None:
        self.results.update(dict.fromkeys(record.ids))

    def _dead(self, record: Dead) -> None:
        self.dead[record.position] = record

    def _dead_gone(self, record: DeadGone) -> None:
        self.dead.update(dict.fromkeys(record.positions))

    def _revoked(self, record: Revoked) -> None:
        self.revoked[record.id] = record

    def _policy(self, record: Policy) -> None:
        self.policies[record.name] = record

    def _mailbox(self, record: MailboxRow) -> None:
        self.mailboxes[record.name] = record

    def _state(self, record: ActorState) -> None:
        before = self.states.get(record.mailbox)
        if before is None or before.number <= record.number:
            self.states[record.mailbox] = record

    def _states_gone(self, record: ActorStatesGone) -> None:
        for mailbox in record.mailboxes:
            self.states.pop(mailbox, None)
            self.states_gone[mailbox] = None

    #: One method a type of record. Reading the type and calling is the whole cost of taking one in.
    _TAKE: ClassVar[dict[type, Callable[[Any, Any], None]]] = {
        Append: _append,
        Gone: _gone,
        Drop: _drop,
        Lease: _lease,
        Unlease: _unlease,
        Past: _past,
        PastGone: _past_gone,
        Session: _session,
        SessionsGone: _sessions_gone,
        ResultRow: _result,
        ResultsGone: _results_gone,
        Dead: _dead,
        DeadGone: _dead_gone,
        Revoked: _revoked,
        Policy: _policy,
        MailboxRow: _mailbox,
        ActorState: _state,
        ActorStatesGone: _states_gone,
    }
