"""A store against a model that is obviously right: dicts, and a list of what each commit left.

Hypothesis plays a broker that commits whatever may be committed, in any mixture, and crashes in between. After each
restart the store must hold what one of the commits left: the last one, or, when the power went, any from the last
synced one on. Every read is compared with the model's all along.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from greenroom.transport.store.base import SESSION_KEPT, Store
from greenroom.transport.store.records import (
    ActorState,
    ActorStatesGone,
    Append,
    Dead,
    DeadCount,
    DeadGone,
    Drop,
    Gone,
    Lease,
    MailboxRow,
    Past,
    PastGone,
    Policy,
    Purge,
    Record,
    Recovered,
    ResultRow,
    ResultsGone,
    Revoked,
    Row,
    Session,
    SessionsGone,
    Synchronous,
    Tally,
    Unlease,
)

NAMES = ["", "a", "b", "ä\0z", "c" * 40]
MOMENTS = st.sampled_from([0, 1, 5, 5, 9, 1_700_000_000_000_000, (1 << 63) - 1])
BLOBS = st.one_of(st.binary(max_size=8), st.sampled_from([b"x" * 300, b"y" * 9000]))

KINDS = (
    *(Append, Gone, Drop, Lease, Unlease, Past, PastGone, Session, SessionsGone, ResultRow, ResultsGone),
    *(Dead, DeadGone, Revoked, Policy, MailboxRow, ActorState, ActorStatesGone, Purge),
)


class Model:
    """What a store must hold."""

    def __init__(self) -> None:
        self.rows: dict[int, Append] = {}
        self.gone: dict[int, int] = {}
        self.uniques: dict[str, int] = {}
        self.keyed: dict[type, dict[Any, Any]] = {
            kind: {} for kind in (Lease, Past, Session, ResultRow, Dead, Revoked, Policy, MailboxRow, ActorState)
        }

    def apply(self, records: list[Record]) -> list[int]:
        duplicates: list[int] = []
        for record in records:
            match record:
                case Append():
                    if record.unique and record.unique in self.uniques:
                        duplicates.append(record.base)
                        continue
                    if record.unique:
                        self.uniques[record.unique] = record.unique_until
                    self.rows[record.base] = record
                case Gone():
                    if record.base in self.rows:
                        self.gone[record.base] = record.mask
                case Drop():
                    for base in record.bases:
                        self.drop(base)
                case Purge():
                    for base, row in list(self.rows.items()):
                        if row.mailbox == record.mailbox and base not in record.keep:
                            for position in range(base, base + row.count):
                                self.keyed[Past].pop(position, None)
                            self.drop(base)
                case Unlease(keys):
                    self.forget(Lease, keys)
                case PastGone(keys):
                    self.forget(Past, keys)
                case SessionsGone(keys):
                    self.forget(Session, keys)
                case ResultsGone(keys):
                    self.forget(ResultRow, keys)
                case DeadGone(keys):
                    self.forget(Dead, keys)
                case ActorStatesGone(keys):
                    self.forget(ActorState, keys)
                case ActorState():
                    before = self.keyed[ActorState].get(record.mailbox)
                    if before is None or before.number <= record.number:
                        self.keyed[ActorState][record.mailbox] = record
                case _:
                    self.keyed[type(record)][msgspec.structs.astuple(record)[0]] = record
        return duplicates

    def drop(self, base: int) -> None:
        self.rows.pop(base, None)
        self.gone.pop(base, None)

    def forget(self, kind: type, keys: list[Any]) -> None:
        for key in keys:
            self.keyed[kind].pop(key, None)

    def sweep(self, now: int, limit: int) -> int:
        moments: list[tuple[dict[Any, Any], list[tuple[int, str]]]] = [
            (self.keyed[ResultRow], [(r.expires_at, r.id) for r in self.sorted(ResultRow) if r.expires_at]),
            (self.uniques, [(until, id) for id, until in self.uniques.items()]),
            (self.keyed[Revoked], [(r.until, r.id) for r in self.sorted(Revoked)]),
            (self.keyed[Session], [(s.seen_at + SESSION_KEPT, s.session) for s in self.sorted(Session)]),
        ]
        expired = [(table, key) for table, entries in moments for moment, key in sorted(entries) if moment <= now]
        for table, key in expired[:limit]:
            del table[key]
        return len(expired[:limit])

    def row(self, base: int) -> Row:
        row = self.rows[base]
        gone = self.gone.get(base, 0)
        return Row(base, row.count, row.mailbox, row.priority, row.due, row.session, row.blob, gone)

    def ready(self, mailbox: str, priority: int, after: int, messages_max: int) -> list[Row]:
        found: list[Row] = []
        held = 0
        for base in sorted(self.rows):
            row = self.row(base)
            if (row.mailbox, row.priority, row.due) == (mailbox, priority, 0) and base > after:
                if held >= messages_max:
                    break
                found.append(row)
                held += row.count - row.gone.bit_count()
        return found

    def due(self, after: tuple[int, int], messages_max: int) -> list[Row]:
        waiting = sorted((row.due, base) for base, row in self.rows.items() if row.due)
        return [self.row(base) for due, base in waiting if (due, base) > after][:messages_max]

    def tallies(self) -> list[Tally]:
        tallies: dict[tuple[str, int], list[int]] = {}
        for base in self.rows:
            row = self.row(base)
            tally = tallies.setdefault((row.mailbox, row.priority), [0, 0])
            tally[row.due > 0] += row.count - row.gone.bit_count()
        return [Tally(*key, *tally) for key, tally in sorted(tallies.items())]

    def sorted(self, kind: type) -> list[Any]:
        return [record for _, record in sorted(self.keyed[kind].items())]

    def recovered(self, recovered: Recovered) -> Recovered:
        """What an open must return, but for its numbers."""
        dead = [letter.mailbox for letter in self.sorted(Dead)]
        return msgspec.structs.replace(
            recovered,
            tallies=self.tallies(),
            leases=self.sorted(Lease),
            pasts=self.sorted(Past),
            sessions=self.sorted(Session),
            revoked=self.sorted(Revoked),
            policies=self.sorted(Policy),
            mailboxes=self.sorted(MailboxRow),
            dead=[DeadCount(mailbox, dead.count(mailbox)) for mailbox in sorted(set(dead))],
        )


class StoreMachine(RuleBasedStateMachine):
    """A broker's store, and its crashes."""

    def __init__(self, new_engine: Callable[[ExitStack], Any]) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.engine = new_engine(self.stack)
        #: What each commit left, from the last one that must survive a power cut.
        self.left = [Model()]
        self.used_position = self.used_lease = self.epoch = self.serial = 0
        self.store: Store

    @property
    def model(self) -> Model:
        return self.left[-1]

    def teardown(self) -> None:
        self.store.close()
        self.stack.close()

    @initialize()
    def begin(self) -> None:
        self.open()

    def open(self) -> None:
        self.store = self.engine.store()
        recovered = self.store.open()
        assert recovered.epoch > self.epoch
        assert recovered.next_position > self.used_position
        assert recovered.next_lease > self.used_lease
        self.epoch = recovered.epoch
        self.position, self.lease = recovered.next_position, recovered.next_lease
        # Newest first: commits that were not synced may have survived.
        for model in reversed(self.left):
            if recovered == model.recovered(recovered) and self.reads_as(model):
                self.left = [model]
                return
        raise AssertionError(f"{recovered} is nothing that a commit left")

    def reads_as(self, model: Model) -> bool:
        """Whether all that is read is the model's."""
        store, rows = self.store, model.rows
        lanes = {(row.mailbox, row.priority) for row in rows.values()}
        results = list(model.keyed[ResultRow])
        return (
            all(store.read_ready(*lane, -1, 1 << 40) == model.ready(*lane, -1, 1 << 40) for lane in lanes)
            and store.read_due((0, 0), 1 << 40) == model.due((0, 0), 1 << 40)
            and store.read_rows(list(rows)) == [model.row(base) for base in sorted(rows)]
            and store.read_results(results, -1) == [model.keyed[ResultRow][id] for id in results]
            and store.read_dead(limit=1 << 40) == model.sorted(Dead)
            and store.read_states(NAMES) == [model.keyed[ActorState][n] for n in NAMES if n in model.keyed[ActorState]]
            and store.count_dead() == len(model.keyed[Dead])
        )

    @rule(data=st.data(), synchronous=st.sampled_from(Synchronous), size=st.integers(0, 12))
    def commit(self, data: st.DataObject, synchronous: Synchronous, size: int) -> None:
        after = copy.deepcopy(self.model)
        records: list[Record] = []
        for _ in range(size):
            record = self.record(data, after)
            after.apply([record])
            records.append(record)
        self.committed(records, synchronous)

    def committed(self, records: list[Record], synchronous: Synchronous) -> None:
        # Which ids are known is seen by no read, so that each commit bears its number.
        self.serial += 1
        records.append(Policy("serial", b"%d" % self.serial))
        after = copy.deepcopy(self.model)
        duplicates = after.apply(records)
        assert self.store.commit(records, synchronous).duplicates == duplicates
        self.left.append(after)
        if synchronous is Synchronous.FULL:
            self.left = [after]

    def record(self, data: st.DataObject, model: Model) -> Record:
        """Draw a record that makes sense after what is in the model; now and then one about nothing."""
        draw = data.draw
        name = st.sampled_from(NAMES)
        bases = st.sampled_from([*model.rows, 1 << 40])
        positions = st.sampled_from([*model.rows, *range(max(1, self.position - 4), self.position + 1)])
        kind = draw(st.sampled_from([*KINDS, Append, Append, Gone, Lease]))
        if kind is Append:
            due = draw(MOMENTS)
            unique = draw(st.sampled_from(["", "", "u", "v"]))
            count = 1 if due or unique else draw(st.sampled_from([1, 2, 8, 9, 70, 4096]))
            base = self.position + draw(st.integers(0, 2))
            self.position = base + count
            self.used_position = self.position - 1
            priority = draw(st.sampled_from([0, 0, 1, 255]))
            return Append(base, count, draw(name), priority, due, draw(name), draw(BLOBS), unique, draw(MOMENTS))
        if kind is Gone:
            base = draw(bases)
            count = model.rows[base].count if base in model.rows else 9
            return Gone(base, draw(st.integers(0, (1 << count) - 2)))
        if kind is Drop:
            return Drop(draw(st.lists(bases, max_size=3)))
        if kind is Lease:
            lease = draw(st.sampled_from([self.lease, self.lease, *model.keyed[Lease]]))
            self.lease = max(self.lease, lease + 1)
            self.used_lease = max(self.used_lease, lease)
            first = draw(positions)
            some = draw(st.one_of(st.lists(positions, max_size=5), st.just(list(range(first, first + 300)))))
            return Lease(lease, draw(name), some)
        if kind is Unlease:
            return Unlease(draw(st.lists(st.sampled_from([*model.keyed[Lease], 1 << 40]), max_size=3)))
        if kind is Past:
            return Past(draw(positions), draw(BLOBS))
        if kind is PastGone:
            return PastGone(draw(st.lists(positions, max_size=3)))
        if kind is Session:
            return Session(draw(name), draw(st.integers(0, 1 << 60)), draw(BLOBS), draw(MOMENTS))
        if kind is SessionsGone:
            return SessionsGone(draw(st.lists(name, max_size=2)))
        if kind is ResultRow:
            return ResultRow(draw(name), draw(st.integers(0, 10)), draw(BLOBS), draw(MOMENTS))
        if kind is ResultsGone:
            return ResultsGone(draw(st.lists(name, max_size=2)))
        if kind is Dead:
            id, mailbox, task, reason = (draw(name) for _ in range(4))
            return Dead(draw(positions), id, mailbox, task, reason, draw(MOMENTS), draw(BLOBS), draw(BLOBS))
        if kind is DeadGone:
            return DeadGone(draw(st.lists(positions, max_size=3)))
        if kind is Revoked:
            return Revoked(draw(name), draw(MOMENTS))
        if kind is Policy:
            return Policy(draw(name), draw(BLOBS))
        if kind is MailboxRow:
            return MailboxRow(draw(name), draw(BLOBS))
        if kind is ActorState:
            return ActorState(draw(name), draw(st.integers(0, 9)), draw(BLOBS))
        if kind is ActorStatesGone:
            return ActorStatesGone(draw(st.lists(name, max_size=2)))
        return Purge(draw(name), draw(st.lists(bases, max_size=2)))

    @rule(now=MOMENTS, later=st.sampled_from([0, SESSION_KEPT]), limit=st.integers(0, 5))
    def sweep(self, now: int, later: int, limit: int) -> None:
        now = min(now + later, (1 << 63) - 1)
        after = copy.deepcopy(self.model)
        assert self.store.sweep(now, limit) == after.sweep(now, limit)
        self.left.append(after)
        self.committed([], Synchronous.FULL)

    @rule(mailbox=st.sampled_from(NAMES), priority=st.sampled_from([0, 1]), data=st.data(), most=st.integers(1, 99))
    def read_messages(self, mailbox: str, priority: int, data: st.DataObject, most: int) -> None:
        model = self.model
        after = data.draw(st.sampled_from([-1, *model.rows]))
        found = self.store.read_ready(mailbox, priority, after, most)
        assert found == model.ready(mailbox, priority, after, most)
        moment = data.draw(st.sampled_from([(0, 0), *((row.due, base) for base, row in model.rows.items())]))
        assert self.store.read_due(moment, most) == model.due(moment, most)
        positions = data.draw(st.lists(st.integers(max(0, self.position - 200), self.position + 2)))
        assert self.store.read_rows(positions) == [
            model.row(base)
            for base, row in sorted(model.rows.items())
            if any(base <= position < base + row.count for position in positions)
        ]

    @rule(ids=st.lists(st.sampled_from(NAMES)), now=MOMENTS)
    def read_results(self, ids: list[str], now: int) -> None:
        kept = self.model.keyed[ResultRow]
        found = [kept[id] for id in dict.fromkeys(ids) if id in kept]
        assert self.store.read_results(ids, now) == [r for r in found if not r.expires_at or r.expires_at > now]

    @rule(
        data=st.data(),
        limit=st.integers(1, 3),
        mailbox=st.sampled_from(NAMES),
        name=st.sampled_from(NAMES),
        ids=st.lists(st.sampled_from(NAMES)),
    )
    def read_dead(self, data: st.DataObject, limit: int, mailbox: str, name: str, ids: list[str]) -> None:
        letters: list[Dead] = self.model.sorted(Dead)
        after = data.draw(st.sampled_from([0, *(letter.position for letter in letters)]))
        found = self.store.read_dead(after=after, limit=limit, mailbox=mailbox, name=name, ids=ids)
        wanted = [
            letter
            for letter in letters
            if letter.position > after
            and mailbox in ("", letter.mailbox)
            and name in ("", letter.name)
            and (not ids or letter.id in ids)
        ]
        assert found == wanted[:limit]

    @rule()
    def read_all(self) -> None:
        assert self.reads_as(self.model)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.left = [self.model]
        self.open()

    @rule()
    def crash(self) -> None:
        self.engine.crash(self.store)
        self.left = [self.model]
        self.open()

    @precondition(lambda self: self.engine.has_power)
    @rule(seed=st.integers(0, 1 << 16))
    def cut_power(self, seed: int) -> None:
        self.engine.crash(self.store, power=True, seed=seed)
        self.open()


def test_a_store_holds_what_its_commits_left(new_engine: Callable[[ExitStack], Any]) -> None:
    machine: Any = lambda: StoreMachine(new_engine)  # noqa: E731
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[
                HealthCheck.too_slow,
                HealthCheck.data_too_large,
                HealthCheck.function_scoped_fixture,
            ],
        ),
    )
