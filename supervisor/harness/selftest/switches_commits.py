"""Switches at commits: what is said before it is on the disk, what is not written, and what a restart forgets."""

from __future__ import annotations

from typing import Any, Final

from ....transport.broker.accept import Accepting
from ....transport.broker.commits import Commits
from ....transport.broker.core import Broker
from ....transport.broker.events import Persist, Persisted
from ....transport.broker.journal import Journal
from ....transport.broker.leasing import DELIVERY_BYTES, Leasing
from ....transport.broker.outflow import VERB_BYTES
from ....transport.broker.places import Places
from ....transport.broker.recovery import Recovery
from ....transport.broker.results import Watching
from ....transport.broker.settling import Settling
from ....transport.message import TERMINAL
from ....transport.store.memory import MemoryStore
from ....transport.store.records import Append, Dead, Drop, Gone, Lease, Past, ResultRow, Session, Synchronous
from ....transport.verbs import Applied, Deliver
from .switch import Make, Patch, Switch


def _nothing(_: Any) -> Any:
    def nothing(*_: Any, **__: Any) -> None:
        return None

    return nothing


def _confirm_at_once(original: Any) -> Any:
    def publish(self: Any, session: Any, verb: Any, parts: Any, size: int) -> str:
        then = self._desk.journal.open.then
        before = len(then)
        why: str = original(self, session, verb, parts, size)
        while len(then) > before:
            then.pop()()
        return why

    return publish


def _deliver_at_once(_: Any) -> Any:
    def say(self: Any, session: Any, lease: Any, deliveries: Any, size: int, since: int) -> None:
        desk = self._desk
        size += len(deliveries) * DELIVERY_BYTES + VERB_BYTES
        desk.send(session, Deliver(desk.partition, desk.epoch, lease.id, deliveries, since), size)

    return say


def _applied_at_once(_: Any) -> Any:
    def is_new(self: Any, session: Any, number: int) -> bool:
        new: bool = number > session.applied
        if new:
            session.applied = number
        self.desk.send(session, Applied(session.applied))
        return new

    return is_new


def _accept_again(original: Any) -> Any:
    def publish(self: Any, session: Any, verb: Any, parts: Any, size: int) -> str:
        publishing = self._desk.publishing.get(session.id)
        if publishing is not None and verb.number <= publishing.applied:
            publishing.applied = verb.number - 1
        why: str = original(self, session, verb, parts, size)
        return why

    return publish


def _confirm_what_was_undone(original: Any) -> Any:
    def undo(self: Any, accepted: Any) -> None:
        original(self, accepted)
        publishing = self._desk.publishing.get(accepted.session)
        if publishing is not None:
            publishing.refused.pop(accepted.number, None)

    return undo


def _accept_when_full(original: Any) -> Any:
    def too_many(self: Any, added: Any) -> str:
        return ""

    return too_many


def _failure_is_success(original: Any) -> Any:
    def failed(self: Any, event: Any) -> None:
        if event.full:
            original(self, event)
        else:
            self.persisted(Persisted(event.last))

    return failed


def _never_sync(original: Any) -> Any:
    def cut(self: Any) -> Any:
        persist = original(self)
        if persist is None:
            return None
        return Persist(persist.serial, persist.records, Synchronous.NORMAL)

    return cut


def _retry_twice(original: Any) -> Any:
    def renew(self: Any, message: Any, envelope: Any, due: int) -> None:
        row = message.row
        original(self, message, envelope, due)
        self._places.append(row.mailbox, envelope, publisher=row.publisher, durability=row.durability, due=due)

    return renew


def _renew_and_keep(_: Any) -> Any:
    def renew(self: Any, message: Any, envelope: Any, due: int) -> None:
        self._desk.end(message)

    return renew


def _result_dropped(original: Any) -> Any:
    def store(self: Any, message: Any, state: int, blob: bytes) -> None:
        if state not in TERMINAL:
            original(self, message, state, blob)

    return store


def _remembered(original: Any) -> Any:
    def settle(self: Any, session: Any, verb: Any) -> None:
        # What was handed out under each position: production forgets it when it is settled.
        out: dict[int, Any] = self.__dict__.setdefault("out", {})
        for outcome in verb.outcomes:
            message = session.held.get(outcome.position)
            if message is not None:
                out[outcome.position] = message
        original(self, session, verb)

    return settle


def _late_word_counts(original: Any) -> Any:
    def late(self: Any, outcome: Any) -> None:
        original(self, outcome)
        out: dict[int, Any] = self.__dict__.get("out", {})
        message: Any = out.get(outcome.position)
        if message is not None and outcome.state in TERMINAL and outcome.result:
            self._watching.store(message, outcome.state, outcome.result)

    return late


def _skipped(_: Any) -> Any:
    def keep(self: Any, record: Any, duplicates: Any) -> None:
        return None

    return keep


def _after_what_is_left(name: str) -> Any:
    def make(original: Any) -> Any:
        def open_store(self: Any) -> Any:
            disk = self.disk
            left = disk.tables[Lease] if name == "lease" else [row.base + row.count - 1 for row in disk.rows.values()]
            disk.marks[name] = max(left, default=0) + 1
            return original(self)

        return open_store

    return make


def _any_id_is_new(original: Any) -> Any:
    def append(self: Any, record: Any, duplicates: Any) -> None:
        self.disk.uniques.pop(record.unique, None)
        original(self, record, duplicates)

    return append


def _leases_forgotten(original: Any) -> Any:
    def tables(self: Any, recovered: Any) -> Any:
        recovered.leases.clear()
        return original(self, recovered)

    return tables


def _pasts_forgotten(original: Any) -> Any:
    def tables(self: Any, recovered: Any) -> Any:
        recovered.pasts.clear()
        return original(self, recovered)

    return tables


def _numbers_forgotten(original: Any) -> Any:
    def tables(self: Any, recovered: Any) -> Any:
        recovered.sessions.clear()
        return original(self, recovered)

    return tables


def _of_store(record: type, make: Make) -> Patch:
    return Patch(vars(MemoryStore)["_APPLY"], record, make)


SWITCHES: Final = (
    Switch(
        "confirm before the commit",
        "A publish is confirmed only when it is on the disk.",
        ("D7", "LOSS"),
        Patch(Accepting, "publish", _confirm_at_once),
    ),
    Switch(
        "deliver before the lease is committed",
        "Nothing is handed out before its lease is on the disk.",
        ("D7",),
        Patch(Leasing, "_say", _deliver_at_once),
    ),
    Switch(
        "settles answered before the commit",
        "A child is told that its settle is applied only when it is on the disk.",
        ("AMO", "RESULT", "SPUR", "LOSS", "D29"),
        Patch(Broker, "_is_new", _applied_at_once),
    ),
    Switch(
        "a resend is not recognised",
        "A batch that is said again under its number is accepted once.",
        ("AMO", "SPUR", "D7", "RESULT"),
        Patch(Accepting, "publish", _accept_again),
    ),
    Switch(
        "confirm what a full disk refused",
        "What found no room is refused, and its sender knows.",
        ("LOSS",),
        Patch(Accepting, "undo", _confirm_what_was_undone),
    ),
    Switch(
        "the bound of a mailbox is ignored",
        "A mailbox takes no more than its bound.",
        ("BOUND",),
        Patch(Accepting, "_too_many", _accept_when_full),
    ),
    Switch(
        "commits are not synced",
        "What was confirmed survives a loss of power.",
        ("LOSS",),
        Patch(Journal, "cut", _never_sync),
    ),
    Switch(
        "a failed sync is taken for a success",
        "A broker whose disk has failed it confirms nothing more, and ends.",
        ("D29", "LOSS", "D7", "PLACE"),
        Patch(Commits, "failed", _failure_is_success),
    ),
    Switch(
        "settled messages stay in the store",
        "What is settled leaves its row in the same commit.",
        ("QUIESCE", "LOSS", "AMO"),
        Patch(Journal, "lost", _nothing),
    ),
    Switch(
        "apply a settle twice",
        "A settle is applied once: a retry has one next form.",
        ("AMO", "RESULT", "SPUR", "QUIESCE"),
        Patch(Settling, "renew", _retry_twice),
    ),
    Switch(
        "lose the next form of a retry",
        "The old form of a message goes in the commit that brings the next.",
        ("LOSS", "ALO"),
        Patch(Settling, "renew", _renew_and_keep),
    ),
    Switch(
        "drop results",
        "What a body returned is stored in the commit that settles its message.",
        ("RESULT", "ALO"),
        Patch(Watching, "store", _result_dropped),
    ),
    Switch(
        "a terminal result is overwritten",
        "A word that comes too late changes no result.",
        ("RESULT",),
        Patch(Settling, "settle", _remembered),
        Patch(Settling, "late", _late_word_counts),
    ),
    Switch(
        "mask lost at restart",
        "The store remembers which messages of a row are settled.",
        ("LOSS", "AMO", "QUIESCE"),
        _of_store(Gone, _skipped),
    ),
    Switch(
        "rows come back at restart",
        "The store forgets rows of which nothing is left.",
        ("LOSS", "AMO", "QUIESCE"),
        _of_store(Drop, _skipped),
    ),
    Switch(
        "leases lost at restart",
        "The store knows who holds what.",
        ("SPUR", "AMO", "QUIESCE", "D7", "LOSS"),
        _of_store(Lease, _skipped),
    ),
    Switch(
        "deaths forgotten at restart",
        "The store knows how many deaths a message has caused.",
        ("LIMIT", "QUIESCE"),
        _of_store(Past, _skipped),
    ),
    Switch(
        "session numbers reset at restart",
        "The store knows up to which number a session was heard.",
        ("AMO", "D7", "SPUR", "LOSS"),
        _of_store(Session, _skipped),
    ),
    Switch(
        "results lost at restart",
        "The store keeps results.",
        ("RESULT", "LOSS"),
        _of_store(ResultRow, _skipped),
    ),
    Switch(
        "dead letters are not kept",
        "The store keeps dead letters.",
        ("POISON", "LOSS"),
        _of_store(Dead, _skipped),
    ),
    Switch(
        "positions come again after a restart",
        "A position is used once, whatever was lost.",
        ("D7", "LOSS", "SPUR", "FENCE", "INNOCENT"),
        Patch(MemoryStore, "open", _after_what_is_left("position")),
    ),
    Switch(
        "leases come again after a restart",
        "The number of a lease is used once, whatever was lost.",
        ("D7", "SPUR", "LOSS", "FENCE", "INNOCENT"),
        Patch(MemoryStore, "open", _after_what_is_left("lease")),
    ),
    Switch(
        "a chosen id is accepted again",
        "Under an id that its user chose there is one task.",
        ("AMO", "RESULT", "SPUR"),
        _of_store(Append, _any_id_is_new),
    ),
    Switch(
        "recovery takes nobody for a holder",
        "After a restart, leases wait for their sessions.",
        ("SPUR", "AMO", "QUIESCE"),
        Patch(Recovery, "tables", _leases_forgotten),
    ),
    Switch(
        "recovery begins to count anew",
        "A restart does not reset what is counted against a message.",
        ("LIMIT", "QUIESCE", "D25"),
        Patch(Recovery, "tables", _pasts_forgotten),
    ),
    Switch(
        "recovery knows no sessions",
        "A restart does not forget what was accepted of whom.",
        ("AMO", "D7", "SPUR"),
        Patch(Recovery, "tables", _numbers_forgotten),
    ),
    Switch(
        "blame is not written",
        "What is counted against a message is in the commit that gives it back.",
        ("LIMIT", "QUIESCE", "INNOCENT"),
        Patch(Places, "write_past", _nothing),
    ),
)
