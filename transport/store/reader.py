"""What is read back from the tables.

Owns every statement that reads rows, and the check of each row's seal: a row that is not what was once
written is told (StoreCorrupt, with its mailbox and place), never handed on.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import StoreCorrupt
from .connection import Columns, Connection, Value
from .records import (
    ActorState,
    Dead,
    DeadCount,
    Lease,
    MailboxRow,
    Past,
    Policy,
    Recovered,
    ResultRow,
    Revoked,
    Row,
    Session,
    Tally,
)
from .seal import seal_of, unpack_mask, unpack_positions
from .writer import State

#: The first rows of a read; each further step reads twice as many, so that little is read in vain.
STEP_ROWS = 8

_ROW = (
    "SELECT r.base, r.count, r.mailbox, r.priority, r.due, r.session, r.blob, r.seal, g.mask, g.seal"
    " FROM rows AS r LEFT JOIN gone AS g ON g.base = r.base"
)


class Reader:
    """Reads through one connection. Every method raises StoreCorrupt or SqlError."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def state(self) -> State:
        """Return the numbers that the last commit wrote."""
        rows = self._connection.execute("SELECT one, epoch, commits, position_mark, lease_mark, seal FROM state")
        if len(rows) != 1:
            raise StoreCorrupt(f"the store's table of state has {len(rows)} rows, it should have one")
        (row,) = rows
        _check(row, "the store's state")
        return State(*row[1:5])

    def recovered(self, state: State, next_position: int, next_lease: int) -> Recovered:
        """Return all that a broker needs to go on."""
        return Recovered(
            epoch=state.epoch,
            next_position=next_position,
            next_lease=next_lease,
            tallies=self._tallies(),
            leases=[
                Lease(lease, session, unpack_positions(positions))
                for lease, session, positions in self._sealed("leases", "lease, session, positions")
            ],
            pasts=[Past(*row) for row in self._sealed("pasts", "position, blob")],
            sessions=[Session(*row) for row in self._sealed("sessions", "session, number, outcomes, seen_at")],
            revoked=[Revoked(*row) for row in self._sealed("revoked", "id, until")],
            policies=[Policy(*row) for row in self._sealed("policies", "name, blob")],
            mailboxes=[MailboxRow(*row) for row in self._sealed("mailboxes", "name, blob")],
            dead=[
                DeadCount(mailbox, count)
                for mailbox, count in self._connection.execute(
                    "SELECT mailbox, count(*) FROM dead GROUP BY mailbox ORDER BY mailbox"
                )
            ],
        )

    def ready(self, mailbox: str, priority: int, after: int, messages_max: int) -> list[Row]:
        """Return rows without a due time, as `Store.read_ready` says."""
        rows: list[Row] = []
        held = 0
        step = STEP_ROWS
        while held < messages_max:
            # A row holds one message or more.
            limit = min(step, messages_max - held)
            found = self._connection.execute(
                f"{_ROW} WHERE r.due = 0 AND r.mailbox = ? AND r.priority = ? AND r.base > ? ORDER BY r.base LIMIT ?",
                (mailbox, priority, after, limit),
            )
            for columns in found:
                row = _row(columns)
                rows.append(row)
                held += row.count - row.gone.bit_count()
                if held >= messages_max:
                    return rows
            if len(found) < limit:
                return rows
            after = rows[-1].base
            step *= 2
        return rows

    def due(self, after: tuple[int, int], messages_max: int) -> list[Row]:
        """Return rows with a due time, as `Store.read_due` says."""
        # In two steps, since SQLite looks a pair up by its first half only, and many messages may share a due
        # time.
        found = self._connection.execute(
            f"{_ROW} WHERE r.due > 0 AND r.due = ? AND r.base > ? ORDER BY r.base LIMIT ?", (*after, messages_max)
        )
        found += self._connection.execute(
            f"{_ROW} WHERE r.due > 0 AND r.due > ? ORDER BY r.due, r.base LIMIT ?",
            (after[0], messages_max - len(found)),
        )
        return [_row(columns) for columns in found]

    def rows(self, positions: Sequence[int]) -> list[Row]:
        """Return the rows that hold these positions."""
        rows: list[Row] = []
        covered = -1
        for position in sorted(positions):
            if position <= covered:
                continue
            for columns in self._connection.execute(
                f"{_ROW} WHERE r.base <= ? ORDER BY r.base DESC LIMIT 1", (position,)
            ):
                row = _row(columns)
                if position < row.base + row.count:
                    rows.append(row)
                    covered = row.base + row.count - 1
        return rows

    def results(self, ids: Sequence[str], now_wall: int) -> list[ResultRow]:
        """Return the results of these ids that have not expired, in the order of the ids."""
        results: list[ResultRow] = []
        for id in dict.fromkeys(ids):
            for row in self._connection.execute(
                "SELECT id, state, blob, expires_at, seal FROM results"
                " WHERE id = ? AND (expires_at = 0 OR expires_at > ?)",
                (id, now_wall),
            ):
                _check(row, f"the result of {id!r}")
                results.append(ResultRow(*row[:-1]))
        return results

    def states(self, mailboxes: Sequence[str]) -> list[ActorState]:
        """Return the states of the actors with these mailboxes, in their order."""
        states: list[ActorState] = []
        for mailbox in dict.fromkeys(mailboxes):
            for row in self._connection.execute(
                "SELECT mailbox, number, blob, seal FROM actor_states WHERE mailbox = ?", (mailbox,)
            ):
                _check(row, f"the state of the actor with mailbox {mailbox!r}")
                states.append(ActorState(*row[:-1]))
        return states

    def dead(self, after: int, limit: int, mailbox: str, name: str, ids: Sequence[str]) -> list[Dead]:
        """Return dead letters, as `Store.read_dead` says."""
        where = "position > ?"
        values: list[Value] = [after]
        for column, wanted in (("mailbox", mailbox), ("name", name)):
            if wanted:
                where += f" AND {column} = ?"
                values.append(wanted)
        sql = f"SELECT position, id, mailbox, name, reason, died_at, blob, story, seal FROM dead WHERE {where}"
        if ids:
            found = [
                row
                for id in dict.fromkeys(ids)
                for row in self._connection.execute(f"{sql} AND id = ? ORDER BY position LIMIT ?", (*values, id, limit))
            ]
            found.sort()
        else:
            found = self._connection.execute(f"{sql} ORDER BY position LIMIT ?", (*values, limit))
        for row in found[:limit]:
            _check(row, f"the dead letter at position {row[0]}, from mailbox {row[2]!r},")
        return [Dead(*row[:-1]) for row in found[:limit]]

    def count_dead(self) -> int:
        """Return how many dead letters there are."""
        [[count]] = self._connection.execute("SELECT count(*) FROM dead")
        return int(count)

    def _tallies(self) -> list[Tally]:
        execute = self._connection.execute
        counts: dict[tuple[str, int], list[int]] = {}
        for place, which in enumerate(("due = 0", "due > 0")):
            for mailbox, priority, count in execute(
                f"SELECT mailbox, priority, sum(count) FROM rows WHERE {which} GROUP BY mailbox, priority"
            ):
                counts.setdefault((mailbox, priority), [0, 0])[place] += count
        for base, mask, seal, mailbox, priority, due in execute(
            "SELECT g.base, g.mask, g.seal, r.mailbox, r.priority, r.due FROM gone AS g JOIN rows AS r USING (base)"
        ):
            _check((base, mask, seal), f"the mask of row {base} of mailbox {mailbox!r}")
            counts[mailbox, priority][due > 0] -= unpack_mask(mask).bit_count()
        return [Tally(*key, *counts[key]) for key in sorted(counts) if any(counts[key])]

    def _sealed(self, table: str, columns: str) -> list[Columns]:
        """Return these columns of a whole table, by its key, which stands first; a seal covers them all."""
        rows = self._connection.execute(f"SELECT {columns}, seal FROM {table} ORDER BY 1")
        for row in rows:
            _check(row, f"row {row[0]!r} of the table {table!r}")
        return [row[:-1] for row in rows]


def _row(columns: Columns) -> Row:
    *fields, seal, mask, mask_seal = columns
    base, mailbox = fields[0], fields[2]
    _check((*fields, seal), f"row {base} of mailbox {mailbox!r}")
    if mask is not None:
        _check((base, mask, mask_seal), f"the mask of row {base} of mailbox {mailbox!r}")
    fields.append(0 if mask is None else unpack_mask(mask))
    return Row(*fields)


def _check(row: Columns, what: str) -> None:
    try:
        intact = seal_of(*row[:-1]) == row[-1]
    except (TypeError, ValueError, OverflowError):  # a column has become what nobody ever wrote
        intact = False
    if not intact:
        raise StoreCorrupt(
            f"{what} is damaged: it is not what was once written there. Restore the store from a backup, or "
            "purge what is damaged"
        )
