"""What a commit does to the tables.

Owns every statement that changes a row, and what must be known of the tables to write little: which rows have
a mask, and above what number everything is new. Transactions, durability and errors are the store's
(`sqlite.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .base import SESSION_KEPT
from .changes import Changes
from .connection import Columns, Connection, Value
from .records import ActorState, Append, Purge, Record
from .seal import pack_mask, pack_positions, seal_of

#: Marks are raised by this much at a time, so that few commits need to: each that does is synced.
MARK_STEP = 1 << 16

#: Results in one statement. Each statement that a thread runs gives the interpreter away to the broker's loop, and must
#: wait to get it back: one a result made a busy broker's commits twice as long.
RESULTS_A_STATEMENT = 64
_RESULT = "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?)"
_RESULTS = _RESULT + ", (?, ?, ?, ?, ?)" * (RESULTS_A_STATEMENT - 1)
#: An older state never replaces a newer one.
_STATE = (
    "INSERT INTO actor_states VALUES (?, ?, ?, ?) ON CONFLICT (mailbox) DO UPDATE"
    " SET number = excluded.number, blob = excluded.blob, seal = excluded.seal WHERE excluded.number >= number"
)


class State:
    """The row that changes with every commit: the numbers that must never go back."""

    __slots__ = ("commits", "epoch", "lease_mark", "position_mark")

    def __init__(self, epoch: int = 0, commits: int = 0, position_mark: int = 1, lease_mark: int = 1) -> None:
        self.epoch = epoch
        self.commits = commits
        self.position_mark = position_mark
        self.lease_mark = lease_mark


class Writer:
    """Writes changes through one connection, inside transactions that its caller begins and ends."""

    def __init__(self, connection: Connection, state: State) -> None:
        self._connection = connection
        self._state = state
        #: Rows that have a mask on disk: most rows never do, and a drop need not look for it. None: not read
        #: yet.
        self._masked: set[int] | None = None
        #: Above everything in the tables, exactly; the marks are ahead of them.
        self.next_position = state.position_mark
        self.next_lease = state.lease_mark
        self._sure = (self.next_position, self.next_lease)
        connection.execute("CREATE TEMP TABLE kept (base INTEGER PRIMARY KEY)")

    def changes(self) -> Changes:
        """Return the empty changes of a commit that follows on what is stored."""
        return Changes(self.next_position, self.next_lease, self._is_known)

    def raises_marks(self, changes: Changes) -> bool:
        """Tell whether writing these changes raises a mark, so that the commit must be synced."""
        state = self._state
        return changes.next_position > state.position_mark or changes.next_lease > state.lease_mark

    def advance(self, changes: Changes) -> None:
        """Take over the numbers that were used by changes of which nothing needs to be written."""
        self.next_position = changes.next_position
        self.next_lease = changes.next_lease

    def write_opened(self) -> State:
        """Raise the epoch, and the marks above what this run may use before its commits raise them again."""
        old = self._state
        return self._write_state(
            State(old.epoch + 1, old.commits + 1, old.position_mark + MARK_STEP, old.lease_mark + MARK_STEP)
        )

    def write_state(self) -> State:
        """Count this commit, raise marks that were reached, and return what was written: for `committed`."""
        old = self._state
        position_mark, lease_mark = old.position_mark, old.lease_mark
        if self.next_position > position_mark:
            position_mark = self.next_position + MARK_STEP
        if self.next_lease > lease_mark:
            lease_mark = self.next_lease + MARK_STEP
        return self._write_state(State(old.epoch, old.commits + 1, position_mark, lease_mark))

    def committed(self, state: State) -> None:
        """The transaction that wrote this state is done."""
        self._state = state
        self._sure = (self.next_position, self.next_lease)

    def rolled_back(self) -> None:
        """The transaction is undone: forget what it did to numbers and masks."""
        self.next_position, self.next_lease = self._sure
        self._masked = None

    def write(self, changes: Changes) -> None:
        """Write everything but the state. Raises SqlError."""
        self.advance(changes)
        if changes.rows:
            self._rows(changes.rows.items())
        if changes.gone:
            self._gone(changes.gone.items())
        if changes.uniques:
            self._many("INSERT OR REPLACE INTO uniques VALUES (?, ?)", list(changes.uniques.items()))
        if changes.leases:
            gone = [(key,) for key, lease in changes.leases.items() if lease is None]
            self._many("DELETE FROM leases WHERE lease = ?", gone)
            new: list[Sequence[Value]] = []
            for lease in changes.leases.values():
                if lease is not None:
                    packed = pack_positions(lease.positions)
                    new.append((lease.lease, lease.session, packed, seal_of(lease.lease, lease.session, packed)))
            self._many("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)", new)
        if changes.results:
            self._many(
                "DELETE FROM results WHERE id = ?",
                [(key,) for key, result in changes.results.items() if result is None],
            )
            self._results(
                [
                    (r.id, r.state, r.blob, r.expires_at, seal_of(r.id, r.state, r.blob, r.expires_at))
                    for r in changes.results.values()
                    if r is not None
                ]
            )
        if changes.sessions:
            self._many(
                "DELETE FROM sessions WHERE session = ?",
                [(key,) for key, session in changes.sessions.items() if session is None],
            )
            self._many(
                "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?)",
                [
                    (
                        s.session,
                        s.number,
                        s.outcomes,
                        s.seen_at,
                        seal_of(s.session, s.number, s.outcomes, s.seen_at),
                    )
                    for s in changes.sessions.values()
                    if s is not None
                ],
            )
        if changes.pasts or changes.dead:
            self._histories(changes)
        if changes.revoked or changes.policies or changes.mailboxes:
            self._settings(changes)
        if changes.states or changes.states_gone:
            self._states(changes)

    def purge(self, purge: Purge) -> None:
        """Delete a mailbox's rows but the kept ones, with their masks and histories. Raises SqlError."""
        execute = self._connection.execute
        execute("DELETE FROM kept")
        self._many("INSERT OR IGNORE INTO kept VALUES (?)", [(base,) for base in purge.keep])
        pasts: list[tuple[int]] = []
        for (position,) in execute("SELECT position FROM pasts"):
            found = execute(
                "SELECT base FROM (SELECT * FROM rows WHERE base <= ? ORDER BY base DESC LIMIT 1)"
                " WHERE ? < base + count AND mailbox = ? AND base NOT IN kept",
                (position, position, purge.mailbox),
            )
            if found:
                pasts.append((position,))
        self._many("DELETE FROM pasts WHERE position = ?", pasts)
        # One statement an index: with neither condition SQLite would read every row of every mailbox.
        for which in ("due = 0", "due > 0"):
            execute(f"DELETE FROM rows WHERE {which} AND mailbox = ? AND base NOT IN kept", (purge.mailbox,))
        execute("DELETE FROM gone WHERE base NOT IN (SELECT base FROM rows)")
        self._masked = None

    def expired(self, now_wall: int, limit: int) -> list[tuple[str, list[Columns]]]:
        """Return statements and keys of at most `limit` rows whose time is over, for `forget`. Raises SqlError."""
        found: list[tuple[str, list[Columns]]] = []
        for table, key, condition, order, moment in (
            ("results", "id", "expires_at > 0 AND expires_at <= ?", "expires_at", now_wall),
            ("uniques", "id", "until <= ?", "until", now_wall),
            ("revoked", "id", "until <= ?", "until", now_wall),
            ("sessions", "session", "seen_at <= ?", "seen_at", now_wall - SESSION_KEPT),
        ):
            keys = self._connection.execute(
                f"SELECT {key} FROM {table} WHERE {condition} ORDER BY {order}, {key} LIMIT ?",
                (moment, limit),
            )
            if keys:
                found.append((f"DELETE FROM {table} WHERE {key} = ?", keys))
            limit -= len(keys)
        return found

    def forget(self, expired: list[tuple[str, list[Columns]]]) -> None:
        """Delete what `expired` found. Raises SqlError."""
        for statement, keys in expired:
            self._many(statement, keys)

    def _write_state(self, state: State) -> State:
        numbers = (1, state.epoch, state.commits, state.position_mark, state.lease_mark)
        self._connection.execute(
            "INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?, ?, ?)", (*numbers, seal_of(*numbers))
        )
        return state

    def _masks(self) -> set[int]:
        if self._masked is None:
            self._masked = {base for (base,) in self._connection.execute("SELECT base FROM gone")}
        return self._masked

    def _is_known(self, unique: str) -> bool:
        return bool(self._connection.execute("SELECT 1 FROM uniques WHERE id = ?", (unique,)))

    def _rows(self, rows: Iterable[tuple[int, Append | None]]) -> None:
        new: list[Sequence[Value]] = []
        drops: list[tuple[int]] = []
        for base, r in rows:
            if r is None:
                drops.append((base,))
            else:
                seal = seal_of(base, r.count, r.mailbox, r.priority, r.due, r.session, r.blob)
                new.append((base, r.count, r.mailbox, r.priority, r.due, r.session, seal, r.blob))
        if drops:
            self._many("DELETE FROM rows WHERE base = ?", drops)
            masks = self._masks()
            masked = [drop for drop in drops if drop[0] in masks]
            self._many("DELETE FROM gone WHERE base = ?", masked)
            masks.difference_update(base for (base,) in masked)
        self._many("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?)", new)

    def _gone(self, masks: Iterable[tuple[int, int]]) -> None:
        new: list[Sequence[Value]] = []
        known = self._masks()
        for base, mask in masks:
            packed = pack_mask(mask)
            new.append((base, packed, seal_of(base, packed)))
            known.add(base)
        self._many("INSERT OR REPLACE INTO gone VALUES (?, ?, ?)", new)

    def _results(self, rows: Sequence[Sequence[Value]]) -> None:
        """The only rows of which there is one a message: many a statement."""
        start = 0
        while len(rows) - start >= RESULTS_A_STATEMENT:
            end = start + RESULTS_A_STATEMENT
            self._connection.execute(_RESULTS, [value for row in rows[start:end] for value in row])
            start = end
        self._many(_RESULT, rows[start:])

    def _histories(self, changes: Changes) -> None:
        self._many(
            "DELETE FROM pasts WHERE position = ?",
            [(key,) for key, past in changes.pasts.items() if past is None],
        )
        self._many(
            "INSERT OR REPLACE INTO pasts VALUES (?, ?, ?)",
            [(p.position, p.blob, seal_of(p.position, p.blob)) for p in changes.pasts.values() if p is not None],
        )
        self._many(
            "DELETE FROM dead WHERE position = ?",
            [(key,) for key, dead in changes.dead.items() if dead is None],
        )
        letters: list[Sequence[Value]] = []
        for d in changes.dead.values():
            if d is not None:
                columns = (d.position, d.id, d.mailbox, d.name, d.reason, d.died_at, d.blob, d.story)
                letters.append((*columns, seal_of(*columns)))
        self._many("INSERT OR REPLACE INTO dead VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", letters)

    def _settings(self, changes: Changes) -> None:
        self._many(
            "INSERT OR REPLACE INTO revoked VALUES (?, ?, ?)",
            [(r.id, r.until, seal_of(r.id, r.until)) for r in changes.revoked.values()],
        )
        self._many(
            "INSERT OR REPLACE INTO policies VALUES (?, ?, ?)",
            [(p.name, p.blob, seal_of(p.name, p.blob)) for p in changes.policies.values()],
        )
        self._many(
            "INSERT OR REPLACE INTO mailboxes VALUES (?, ?, ?)",
            [(m.name, m.blob, seal_of(m.name, m.blob)) for m in changes.mailboxes.values()],
        )

    def _states(self, changes: Changes) -> None:
        self._many("DELETE FROM actor_states WHERE mailbox = ?", [(key,) for key in changes.states_gone])
        self._many(
            _STATE,
            [(s.mailbox, s.number, s.blob, seal_of(s.mailbox, s.number, s.blob)) for s in changes.states.values()],
        )

    def _many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        if rows:
            self._connection.executemany(sql, rows)


def log_bytes_of(records: Sequence[Record]) -> int:
    """Return about how many bytes of log these records make, by the pages that they touch."""
    log_bytes = 24 << 10  # the pages that nearly every commit touches
    for record in records:
        log_bytes += 200
        if type(record) is Append or type(record) is ActorState:
            log_bytes += len(record.blob)
    return log_bytes
